"""Renders rooms: lamps, sky and sun through windows with soft shade, one bounce of light, reflections.

Each pixel sends one ray to each light and one to the surroundings, to one of 16 places in turn; averaging
over the 4 x 4 neighbours on the same surface gives every pixel all 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omma.world.cast import MISS, Caster, Hits
from omma.world.finishes import Pattern, finish, outside
from omma.world.materials import fresnel
from omma.world.mesh import Float, Material, Mesh, join
from omma.world.render import displayed, interpolated
from omma.world.rooms import Room
from omma.world.sensors import SUBPIXELS, PinholeCamera, edge_pixels, exposed

_GRID = 4  # pixels of a block in each direction
_JITTER = np.float32(0.4)  # of a place: more gives grain, less gives bands
_OPEN_M = 0.004  # rays start this far off the surface
_SAME_PLANE_M = 0.02
_SAME_NORMAL = 0.8
_PROBES = 600
_KEY = 0.17  # mean brightness of a picture before the tone curve
_LAMP_M = 0.16  # half width of a lamp
_NEAR_M2 = 0.2  # lamps are no nearer than this, squared, or single rays would sparkle
_SUN_RAD = 0.006
_SPREAD = np.array([0, 10, 5, 15, 12, 6, 9, 3, 2, 8, 7, 13, 14, 4, 11, 1])  # order of places in a block

_MIRROR = np.zeros(len(Material), np.float32)
_MIRROR[[Material.PAINT, Material.GLASS, Material.METAL]] = 0.8, 1.4, 6.0
_GLOSS = {Pattern.PLANKS: np.float32(0.45), Pattern.TILES: np.float32(0.7)}


@dataclass(frozen=True)
class Surface:
    """Where N rays end; vectors are (3, N) float32.

    Args:
        position: metres, room frame.
        normal: unit, towards the viewer.
        albedo: linear RGB.
        material: (N,) `Material`.
        mirror: (N,) float32 strength of reflections.
        face: (N,) triangle, `MISS` for none.
        distance: (N,) metres along the ray.
        view: unit directions of the rays.
        shine: radiance of its own.
    """

    position: Float
    normal: Float
    albedo: Float
    material: NDArray[np.uint8]
    mirror: Float
    face: NDArray[np.int32]
    distance: Float
    view: Float
    shine: Float


@dataclass(frozen=True)
class Shot:
    """A picture of a room with what is behind its pixels.

    Args:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 along the optical axis.
        surface: of the H W pixel centres, row by row.
        sunlit: (H W,) float32 share of the sun's light that arrives there.
    """

    rgb: NDArray[np.uint8]
    depth_m: Float
    surface: Surface
    sunlit: Float


class IndoorRenderer:
    """Renders a room at an instant.

    Args:
        room: the room.
        time_s: the instant.
        guests: instead of its own people; their triangles are numbered last.
    """

    def __init__(self, room: Room, time_s: float, guests: Mesh | None = None) -> None:
        self._room = room
        people = room.people_at(time_s) if guests is None else guests
        self._mesh = join([room.solid, room.clear, people])
        seen, stops = room.accelerated
        self.caster = Caster(seen, len(room.solid) + len(room.clear), people.corners)
        self._stops = Caster(stops, len(room.solid), people.corners)

    def shoot(self, camera: PinholeCamera, rng: np.random.Generator) -> Shot:
        """Take a picture with smoothed edges and sensor noise drawn from `rng`."""
        shape, uv = camera.image_size, camera.centres()
        origin, pixel_rad = camera.scene_T_cam[:3, 3], float(1 / camera.intrinsics[0, 0])
        view, cosine = camera.rays(uv)
        surface = self.meet(np.float32(origin)[:, None], view, pixel_rad)
        block = _SPREAD[_block(shape)]
        direct, sunlit = self._direct(surface, block, rng)
        bounced = self._bounced(surface, block, rng)
        alike = _Alike(surface, shape, pixel_rad)
        light = alike.mean(direct, 1, range(-1, 3))
        bounced = alike.mean(alike.mean(bounced, 1, range(-1, 3)), _GRID, range(-1, 2))
        light += bounced
        reflected = alike.mean(self._reflected(surface, bounced, rng), 1, range(-1, 2))
        radiance = surface.albedo * light + reflected + surface.shine
        develop = _Development.of(radiance, surface.shine, light)
        rgb = develop(radiance)
        edges = np.flatnonzero(edge_pixels(rgb.reshape(*shape, 3)))
        if len(edges):
            extra = camera.rays((uv[:, None, edges] + SUBPIXELS[:, :, None]).reshape(2, -1))[0]
            finer = self.meet(np.float32(origin)[:, None], extra, pixel_rad)
            source = _nearest_alike(surface, finer, np.tile(edges, SUBPIXELS.shape[1]), shape)
            colour = finer.albedo * light[:, source] + reflected[:, source] + finer.shine
            extra_rgb = develop(colour).reshape(-1, len(edges), 3).sum(0)
            rgb[edges] = (rgb[edges] + extra_rgb) / (1 + SUBPIXELS.shape[1])
        depth_m = (surface.distance * cosine).reshape(shape)
        return Shot(exposed(rgb.reshape(*shape, 3), rng), depth_m, surface, sunlit)

    def meet(self, origin: Float, view: Float, pixel_rad: float) -> Surface:
        """What rays from a point or points `origin` (3, 1) or (3, N) along `view` (3, N) meet."""
        hits = self.caster.cast(np.broadcast_to(origin, view.shape), view)
        face = np.maximum(hits.face, 0)
        normal = interpolated(self._mesh.normals[face], (hits.u, hits.v))
        towards = _dot(normal, view)
        normal *= -np.sign(towards) / np.maximum(np.sqrt(_dot(normal, normal)), 1e-9)
        distance = np.where(hits.face == MISS, np.float32(0), hits.distance)
        texture = interpolated(self._mesh.texture[face], (hits.u, hits.v))
        texture[2] = self._mesh.texture[face, 0, 2]
        albedo = np.ascontiguousarray(self._mesh.albedo[face].T)
        facing = np.maximum(-_dot(normal, view), np.float32(0.05))
        finish(albedo, texture, distance * np.float32(pixel_rad) / np.sqrt(facing))
        material = self._mesh.material[face]
        mirror, pattern = _MIRROR[material], texture[2].astype(np.int32)
        for kind, gloss in _GLOSS.items():
            mirror[pattern == kind] = gloss
        shine = self._shine(view, (material, pattern, albedo))
        return Surface(
            origin + view * distance, normal, albedo, material, mirror, hits.face, distance, view, shine
        )

    def _shine(self, view: Float, what: tuple[NDArray[np.uint8], NDArray[np.int32], Float]) -> Float:
        material, pattern, albedo = what
        shine = np.zeros_like(view)
        lamps = np.flatnonzero(material == Material.GLOW)
        shine[:, lamps] = albedo[:, lamps] * np.float32(2.2)
        panes = np.flatnonzero(pattern == Pattern.OUTSIDE)
        if len(panes):
            shine[:, panes] = outside(view[:, panes]) * np.float32(self._room.sky)
        return shine

    def _direct(
        self, surface: Surface, block: NDArray[np.intp], rng: np.random.Generator
    ) -> tuple[Float, Float]:
        """(3, N) light from lamps, sky and sun, and the share (N,) of the sun that arrives."""
        room, light = self._room, np.zeros_like(surface.position)
        start = surface.position + surface.normal * np.float32(_OPEN_M)
        for number, lamp in enumerate(room.lamps):
            a, b = _strata(block + 5 * number, rng)
            spot = np.float32(lamp.xyz)[:, None] + np.float32(_LAMP_M) * np.stack(
                [2 * a - 1, 2 * b - 1, a * 0]
            )
            way, distance, facing = _towards(start, spot, surface.normal)
            some = np.flatnonzero(facing > 0)
            met = self._stops.cast(start.take(some, 1), way.take(some, 1)).distance
            clear = met > distance[some] - np.float32(_LAMP_M)
            fall = facing[some] * clear / np.maximum(distance[some] ** 2, np.float32(_NEAR_M2))
            light[:, some] += np.float32(lamp.power)[:, None] * fall
        for number, corners in enumerate(room.windows):
            light += self._from_window(surface, start, corners, _strata(block + 3 + 7 * number, rng))
        towards, power = room.sun
        sunlit = np.zeros(start.shape[1], np.float32)
        if power > 0:
            a, b = _strata(block, rng)
            way = np.float32(towards)[:, None] + np.float32(_SUN_RAD) * np.stack([a - 0.5, b - 0.5, a - b])
            way /= np.sqrt(_dot(way, way))
            facing = _dot(surface.normal, way)
            some = np.flatnonzero(facing > 0)
            sunlit[some] = ~self._stops.blocked(start.take(some, 1), way.take(some, 1)) * facing[some]
            light += np.float32([[1.0], [0.93], [0.8]]) * (np.float32(power) * sunlit)
        return light, sunlit

    def _from_window(
        self, surface: Surface, start: Float, corners: NDArray[np.float64], strata: tuple[Float, Float]
    ) -> Float:
        """Light of the sky through one window, whose `corners` (4, 3) start at the lower left."""
        corner, right, up = corners[0], corners[1] - corners[0], corners[3] - corners[0]
        inward = np.cross(right, up)
        area = float(np.linalg.norm(inward))
        spot = np.float32(corner)[:, None] + np.outer(np.float32(right), strata[0])
        spot += np.outer(np.float32(up), strata[1])
        way, distance, facing = _towards(start, spot, surface.normal)
        leaving = -(np.float32(inward / area) @ way)
        some = np.flatnonzero((facing > 0) & (leaving > 0))
        clear = ~self._stops.blocked(start.take(some, 1), way.take(some, 1))
        # a patch as a disc: near by it fills the view, however large
        fall = facing[some] * leaving[some] * clear / (np.pi * distance[some] ** 2 + area).astype(np.float32)
        light = np.zeros_like(start)
        tint = np.float32([[0.92], [1.0], [1.1]]) * np.where(way[2, some] > 0.03, 1.0, 0.3)
        light[:, some] = tint * (np.float32(self._room.sky * area) * fall)
        return light

    def _bounced(self, surface: Surface, block: NDArray[np.intp], rng: np.random.Generator) -> Float:
        """(3, N) light that other surfaces send on."""
        a, b = _strata(block + 1, rng)
        radius, turn = np.sqrt(a), b * np.float32(2 * np.pi)
        helper = np.where(
            np.abs(surface.normal[0]) < 0.7, np.float32([[1], [0], [0]]), np.float32([[0], [1], [0]])
        )
        x = np.cross(helper, surface.normal, axis=0)
        x /= np.sqrt(_dot(x, x))
        y = np.cross(surface.normal, x, axis=0)
        way = x * (radius * np.cos(turn)) + y * (radius * np.sin(turn)) + surface.normal * np.sqrt(1 - a)
        start = surface.position + surface.normal * np.float32(_OPEN_M)
        return self._sent_on(self.caster.cast(start, way.astype(np.float32)))

    def _sent_on(self, hits: Hits) -> Float:
        """(3, N) radiance of matt surfaces under the mean light of the room; lamps and panes send none."""
        face = np.maximum(hits.face, 0)
        solid = (face < len(self._room.solid)) | (face >= len(self._room.solid) + len(self._room.clear))
        near = np.minimum(hits.distance / np.float32(0.5), 1) * np.float32(0.5) + np.float32(0.5)
        return self._mesh.albedo[face].T * (self._level * (solid * near))

    @cached_property
    def _level(self) -> Float:
        """(3, 1) mean light on the surfaces of the room."""
        rng = np.random.default_rng(self._room.number)
        middle = np.float32(self._room.size)[:, None] * np.float32([[0.5], [0.5], [0.75]])
        way = rng.standard_normal((3, _PROBES)).astype(np.float32)
        way /= np.sqrt(_dot(way, way))
        surface = self.meet(middle, way, 0.05)
        direct, _ = self._direct(surface, np.arange(_PROBES) % 16, rng)
        albedo = surface.albedo.mean(1, keepdims=True)
        return direct.mean(1, keepdims=True) / (1 - np.minimum(albedo.mean() * 0.9, 0.7))

    def _reflected(self, surface: Surface, bounced: Float, rng: np.random.Generator) -> Float:
        """(3, N) radiance mirrored in shiny surfaces."""
        radiance = np.zeros_like(bounced)
        shiny = np.flatnonzero(surface.mirror > 0)
        if not len(shiny):
            return radiance
        view, normal = surface.view.take(shiny, 1), surface.normal.take(shiny, 1)
        rough = np.where(surface.material[shiny] == Material.MATTE, 0.03, 0.006).astype(np.float32)
        normal = normal + rough * rng.standard_normal(normal.shape, np.float32)
        cosine = np.clip(-_dot(view, normal), 0, 1)
        way = view + normal * (2 * cosine)
        way /= np.sqrt(_dot(way, way))
        start = surface.position.take(shiny, 1) + surface.normal.take(shiny, 1) * np.float32(_OPEN_M)
        seen = self.meet(start, way.astype(np.float32), 0.01)
        mirrored = seen.albedo * self._level + np.minimum(seen.shine, 6)
        share = np.minimum(surface.mirror[shiny] * fresnel(cosine), np.float32(0.9))
        radiance[:, shiny] = mirrored * share
        return radiance


@dataclass(frozen=True)
class _Development:
    """Exposure and white balance of a picture."""

    gain: Float

    @classmethod
    def of(cls, radiance: Float, shine: Float, light: Float) -> _Development:
        lit = shine.sum(0) == 0
        grey = radiance[:, lit].mean(0) if lit.any() else radiance.mean(0)
        level = np.exp(np.log(np.maximum(grey, 1e-4)).mean())
        tint = light[:, lit].mean(1) if lit.any() else light.mean(1)
        balance = (tint.mean() / np.maximum(tint, 1e-4)) ** 0.75
        return cls((np.float32(_KEY / level) * balance).astype(np.float32)[:, None])

    def __call__(self, radiance: Float) -> Float:
        """(N, 3) display values 0 to 255 of radiance (3, N)."""
        return displayed(radiance * self.gain)


class _Alike:
    """Averages pixels with their neighbours on the same surface."""

    def __init__(self, surface: Surface, shape: tuple[int, int], pixel_rad: float) -> None:
        self._position = surface.position.reshape(3, *shape)
        self._normal = surface.normal.reshape(3, *shape)
        self._shape = shape
        self._gap_m = np.float32(_SAME_PLANE_M) + surface.distance.reshape(shape) * np.float32(pixel_rad)

    def mean(self, values: Float, stride: int, steps: range) -> Float:
        """(3, N) means over so many steps of `stride` pixels down and across."""
        image = values.reshape(3, *self._shape)
        total, count = np.zeros_like(image), np.zeros(self._shape, np.float32)
        for down in steps:
            for across in steps:
                here, there = _overlapping(self._shape, down * stride, across * stride)
                normal, gap = self._normal[here], self._position[there] - self._position[here]
                same = np.abs(_dot(normal, gap)) < self._gap_m[here[1:]] * np.float32(stride**0.5)
                same &= _dot(normal, self._normal[there]) > _SAME_NORMAL
                total[here] += image[there] * same
                count[here[1:]] += same
        return (total / np.maximum(count, 1)).reshape(3, -1)


def _overlapping(shape: tuple[int, int], down: int, across: int) -> tuple[tuple, tuple]:
    """Slices of pixels and of their neighbours so far down and across."""

    def pair(length: int, step: int) -> tuple[slice, slice]:
        return slice(max(0, -step), length - max(0, step)), slice(max(0, step), length - max(0, -step))

    rows, columns = pair(shape[0], down), pair(shape[1], across)
    return (slice(None), rows[0], columns[0]), (slice(None), rows[1], columns[1])


def _nearest_alike(
    surface: Surface, finer: Surface, pixels: NDArray[np.intp], shape: tuple[int, int]
) -> NDArray[np.intp]:
    """For each finer sample the pixel around `pixels` (N,) that lies most on the same surface."""
    row, column = np.divmod(pixels, shape[1])
    best, least = pixels, np.full(len(pixels), np.inf, np.float32)
    for down in (0, -1, 1):
        for across in (0, -1, 1):
            other = np.clip(row + down, 0, shape[0] - 1) * shape[1] + np.clip(
                column + across, 0, shape[1] - 1
            )
            gap = surface.position.take(other, 1) - finer.position
            cost = np.abs(_dot(finer.normal, gap)) + np.float32(0.05) * np.sqrt(_dot(gap, gap))
            cost += np.float32(0.3) * (1 - _dot(finer.normal, surface.normal.take(other, 1)))
            better = cost < least
            best, least = np.where(better, other, best), np.where(better, cost, least)
    return best


def _block(shape: tuple[int, int]) -> NDArray[np.intp]:
    """(H W,) place of each pixel in its block of 4 x 4."""
    row, column = np.indices(shape)
    return (row % _GRID * _GRID + column % _GRID).ravel()


def _strata(block: NDArray[np.intp], rng: np.random.Generator) -> tuple[Float, Float]:
    """Two numbers in [0, 1) per pixel, one from each of the 16 cells of the unit square in turn."""
    cell = block % _GRID**2
    jitter = (1 - _JITTER) / 2 + _JITTER * rng.random((2, len(block)), np.float32)
    first, second = ((np.stack([cell % _GRID, cell // _GRID]) + jitter) / _GRID).astype(np.float32)
    return first, second


def _towards(start: Float, spot: Float, normal: Float) -> tuple[Float, Float, Float]:
    """Unit directions, distances and cosines to the normals, from `start` to `spot`."""
    way = spot - start
    distance = np.sqrt(_dot(way, way))
    way = (way / distance).astype(np.float32)
    return way, distance, _dot(normal, way)


def _dot(a: Float, b: Float) -> Float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
