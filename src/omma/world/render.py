"""Shades what rays meet: sun with shadows, sky, textures, reflections, haze; then exposure and tone curve.

Nothing here knows about cameras: a bundle of rays comes in, so that pinhole, panoramic and other sensors
share it. Vectors of many rays are stored by coordinate, (3, N): numpy works through them several times as
fast as through (N, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omma.world.cast import MISS, Hits
from omma.world.daylight import power_of_two
from omma.world.ground import LINE, ROAD, SIDEWALK, TERRAIN, Ground
from omma.world.materials import facade, foliage_shade, fresnel
from omma.world.mesh import Float, Material
from omma.world.scene import CLASS_INDEX, NO_INSTANCE, Snapshot
from omma.world.shadows import ContactShade, MoverShadows

_GROUND_CLASSES = np.zeros(4, np.uint8)
_GROUND_CLASSES[[ROAD, SIDEWALK, TERRAIN, LINE]] = [
    CLASS_INDEX[name] for name in ("road", "sidewalk", "terrain", "road_line")
]
_BOUNCE = np.float32([[0.10], [0.10], [0.095]])  # what the ground sends back up
_UP = np.float32([[0], [0], [1]])
_OPEN_M = 0.02  # shadow rays start this far off the surface
_CHUNK = 1 << 16

# how much of the mirrored world each material shows
_MIRROR = np.zeros(len(Material), np.float32)
_MIRROR[Material.PAINT] = 0.85
_MIRROR[Material.GLASS] = 1.7
_MIRROR[Material.METAL] = 1.4
_MIRROR[Material.GLOW] = 0.6


@dataclass(frozen=True)
class Samples:
    """What N rays see.

    Args:
        rgb: (N, 3) float32 display values 0 to 255, gamma applied.
        distance_m: (N,) float32 along the ray, infinite for the sky.
        class_index: (N,) uint8 index into `CLASSES`.
        instance: (N,) int32, `NO_INSTANCE` where no actor is met.
    """

    rgb: Float
    distance_m: Float
    class_index: NDArray[np.uint8]
    instance: NDArray[np.int32]


class Renderer:
    """Renders rays through one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        daylight = snapshot.scene.daylight
        self._daylight = daylight
        self._sun, self._ambient = daylight.sun[:, None], daylight.ambient[:, None]
        here = snapshot.ego.scene_T_actor[:2, 3]
        self._contact = ContactShade(snapshot.actors, here)
        movers = [a for a in snapshot.actors if not a.rests]
        self._mover_shadows = MoverShadows(movers, daylight.sun_direction, here)
        brightness = 0.5 * daylight.sun.mean() + daylight.ambient.mean()
        self._exposure = np.float32(0.95 / brightness)

    def see(
        self,
        origin: NDArray[np.floating],
        directions: Float,
        pixel_rad: float,
        maybe_moving: NDArray[np.bool_] | None = None,
    ) -> Samples:
        """What rays from one point see.

        Args:
            origin: (3,) where the rays start, scene frame.
            directions: (3, N) float32 unit vectors, scene frame.
            pixel_rad: angle between neighbouring rays, for the filtering of textures.
            maybe_moving: (N,) rays that can meet a moving actor, all by default.

        Returns:
            One sample per ray.
        """
        start, count = np.float32(origin)[:, None], directions.shape[1]
        parts = []
        for first in range(0, count, _CHUNK):
            rows = slice(first, first + _CHUNK)
            mask = None if maybe_moving is None else maybe_moving[rows]
            parts.append(
                self._see(start, np.ascontiguousarray(directions[:, rows]), np.float32(pixel_rad), mask)
            )
        return Samples(
            np.concatenate([p.rgb for p in parts]),
            np.concatenate([p.distance_m for p in parts]),
            np.concatenate([p.class_index for p in parts]),
            np.concatenate([p.instance for p in parts]),
        )

    def _see(
        self, origin: Float, view: Float, pixel_rad: np.float32, maybe_moving: NDArray[np.bool_] | None
    ) -> Samples:
        snapshot, count = self.snapshot, view.shape[1]
        hits = snapshot.caster.cast(np.broadcast_to(origin, view.shape), view, maybe_moving)
        classes, instances = np.zeros(count, np.uint8), np.full(count, NO_INSTANCE, np.int32)
        radiance = np.empty((3, count), np.float32)
        solid = np.flatnonzero(hits.face != MISS)
        face = hits.face[solid]
        classes[solid], instances[solid] = snapshot.face_class[face], snapshot.face_instance[face]
        material = snapshot.pick("material", face)
        ground = material == Material.GROUND
        sky, floor, things = np.flatnonzero(hits.face == MISS), solid[ground], solid[~ground]
        if len(sky):
            radiance[:, sky] = self._daylight.clouded_sky(view.take(sky, 1))
        if len(floor):
            rays = _Rays.of(origin, view, hits, floor)
            colour, classes[floor] = self._floor(rays, pixel_rad)
            radiance[:, floor] = self._hazy(colour, rays.distance)
        if len(things):
            rays = _Rays.of(origin, view, hits, things)
            colour = self._thing(rays, hits, (things, material[~ground]), pixel_rad)
            radiance[:, things] = self._hazy(colour, rays.distance)
        radiance *= self._exposure
        return Samples(displayed(radiance), hits.distance, classes, instances)

    def _hazy(self, colour: Float, distance: Float) -> Float:
        clear = np.exp(distance * np.float32(-1 / self._daylight.haze_m))
        horizon = self._daylight.horizon[:, None]
        colour -= horizon
        colour *= clear
        colour += horizon
        return colour

    def _floor(self, rays: _Rays, pixel_rad: np.float32) -> tuple[Float, NDArray[np.uint8]]:
        footprint = rays.distance * pixel_rad / np.sqrt(np.maximum(-rays.view[2], np.float32(0.02)))
        ground, xy = self.snapshot.scene.ground, np.ascontiguousarray(rays.position[:2].T)
        coverage = ground.coverage(xy, footprint)
        colour = ground.albedo(xy, coverage, footprint)
        light = self._ambient * (np.float32(0.9) * self._contact.open_sky(xy))
        light += (self._sun * self._daylight.sun_direction[2]) * self._lit(rays.position, _UP, rays.distance)
        colour *= light
        return colour, _GROUND_CLASSES[Ground.kinds(coverage)]

    def _thing(
        self,
        rays: _Rays,
        hits: Hits,
        which: tuple[NDArray[np.intp], NDArray[np.uint8]],
        pixel_rad: np.float32,
    ) -> Float:
        index, material = which
        face, weights = hits.face[index], (hits.u[index], hits.v[index])
        normal = interpolated(self.snapshot.pick("normals", face), weights)
        towards = _dot(normal, rays.view)
        normal *= -np.sign(towards) / np.sqrt(_dot(normal, normal))
        albedo = np.ascontiguousarray(self.snapshot.pick("albedo", face).T)
        mirror = _MIRROR[material]
        self._texture(rays, (face, weights), (material, albedo, mirror), pixel_rad)
        facing = self._daylight.sun_direction @ normal
        lit = np.zeros(len(facing), np.float32)
        bright = np.flatnonzero(facing > 0)
        lit[bright] = self._lit(rays.position.take(bright, 1), normal.take(bright, 1), rays.distance[bright])
        colour = albedo * self._light(normal[2], rays.position[2], np.maximum(facing, 0) * lit)
        glow = np.flatnonzero(material == Material.GLOW)
        colour[:, glow] = 1.2 * albedo.take(glow, 1)
        shiny = np.flatnonzero(mirror > 0)
        if len(shiny):
            view, normal = rays.view.take(shiny, 1), normal.take(shiny, 1)
            colour[:, shiny] = self._reflected(
                colour.take(shiny, 1), view, normal, (mirror[shiny], lit[shiny])
            )
        return colour

    def _light(self, normal_z: Float, height_m: Float, sunshine: Float) -> Float:
        """(3, N) light on a surface from the sky, the ground and the sun."""
        up = normal_z * np.float32(0.5) + np.float32(0.5)
        clearance = np.clip(height_m * np.float32(0.3) + np.float32(0.67), 0.4, 1)
        light = self._ambient * (up * clearance)
        light += (_BOUNCE * (self._sun * self._daylight.sun_direction[2] + self._ambient)) * (1 - up)
        light += self._sun * sunshine
        return light

    def _texture(
        self,
        rays: _Rays,
        spot: tuple[NDArray[np.int32], tuple[Float, Float]],
        surface: tuple[NDArray[np.uint8], Float, Float],
        pixel_rad: np.float32,
    ) -> None:
        """Overwrite albedo and mirror share of façades and leaves in place."""
        (face, (u, v)), (material, albedo, mirror) = spot, surface
        walls = np.flatnonzero(material == Material.FACADE)
        if len(walls):
            bays = interpolated(self.snapshot.pick("texture", face[walls]), (u[walls], v[walls]))
            width = rays.distance[walls] * (pixel_rad / np.float32(2.5))
            albedo[:, walls], mirror[walls] = facade(bays, albedo.take(walls, 1), width)
        leaves = np.flatnonzero(material == Material.FOLIAGE)
        if len(leaves):
            shade = foliage_shade(rays.position.take(leaves, 1), rays.distance[leaves] * pixel_rad)
            albedo[:, leaves] *= shade

    def _reflected(self, colour: Float, view: Float, normal: Float, surface: tuple[Float, Float]) -> Float:
        """Colour with the sky, the ground and the sun mirrored in it."""
        mirror, lit = surface
        cosine = np.abs(_dot(view, normal))
        bounced = view + normal * (2 * cosine)
        seen = self._daylight.sky(bounced)
        below = np.clip(np.float32(0.5) - bounced[2] * 12, 0, 1)
        seen += (self._ambient * np.float32(0.16) - seen) * below
        seen -= colour
        colour += seen * np.minimum(mirror * fresnel(cosine), 1)
        glint = power_of_two(np.clip(self._daylight.sun_direction @ bounced, 0, 1), 8)
        return colour + self._sun * (glint * lit * mirror * np.float32(1.6))

    def _lit(self, position: Float, normal: Float, distance: Float) -> Float:
        """1 where the sun shines, 0 in the shade."""
        origins = position + normal * (np.float32(_OPEN_M) + np.float32(4e-4) * distance)
        sun = np.broadcast_to(self._daylight.sun_direction[:, None], origins.shape)
        blocked = self.snapshot.caster.blocked(origins, sun, self._mover_shadows.possible(origins))
        return np.where(blocked, np.float32(0), np.float32(1))


@dataclass(frozen=True)
class _Rays:
    """Direction (3, N), length (N,) and end (3, N) of rays that met something."""

    view: Float
    distance: Float
    position: Float

    @classmethod
    def of(cls, origin: Float, view: Float, hits: Hits, index: NDArray[np.intp]) -> _Rays:
        some, distance = view.take(index, 1), hits.distance[index]
        return cls(some, distance, origin + some * distance)


def _dot(a: Float, b: Float) -> Float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def interpolated(corners: Float, weights: tuple[Float, Float]) -> Float:
    """(3, N) of corner values (N, corner, 3) at barycentric weights of the second and third corner."""
    values = np.ascontiguousarray(corners.transpose(1, 2, 0))
    first = values[0]
    return first + (values[1] - first) * weights[0] + (values[2] - first) * weights[1]


def displayed(radiance: Float) -> Float:
    """(N, 3) display values 0 to 255 of exposed linear radiance (3, N): a filmic curve and the sRGB gamma."""
    steps = np.clip(radiance * np.float32(1024), 0, 8191).astype(np.int16)
    return _TONE.take(np.ascontiguousarray(steps.T))


def _tone_table() -> Float:
    x = (np.arange(8192) + 0.5) / 1024
    film = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    srgb = np.where(film < 0.0031308, 12.92 * film, 1.055 * film ** (1 / 2.4) - 0.055)
    return (255 * srgb).astype(np.float32)


_TONE = _tone_table()
