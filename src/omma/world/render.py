"""Shades what rays meet: sun with shadows, sky, textures, reflections, haze; then exposure and tone curve.

Nothing here knows about cameras: a bundle of rays comes in, so that pinhole, panoramic and other sensors share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.cast import MISS, Hits
from omma.world.ground import LINE, ROAD, SIDEWALK, TERRAIN, Ground
from omma.world.lookup import look_up
from omma.world.materials import facade, foliage_shade, fresnel
from omma.world.mesh import Float, Material
from omma.world.scene import CLASS_INDEX, NO_INSTANCE, Snapshot

_GROUND_CLASSES = np.zeros(4, np.uint8)
_GROUND_CLASSES[[ROAD, SIDEWALK, TERRAIN, LINE]] = [
    CLASS_INDEX[name] for name in ("road", "sidewalk", "terrain", "road_line")
]
_BOUNCE = np.float32((0.10, 0.10, 0.095))  # what the ground sends back up
_OPEN_M = 0.02  # shadow rays start this far off the surface
_CONTACT_CELL_M = 0.25
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Samples:
    """What N rays see.

    Args:
        rgb: (N, 3) float32 display values 0 to 255, gamma applied.
        t: (N,) float32 ray length in units of the direction, infinite for the sky.
        class_index: (N,) uint8 index into `CLASSES`.
        instance: (N,) int32, `NO_INSTANCE` where no actor is met.
    """

    rgb: Float
    t: Float
    class_index: NDArray[np.uint8]
    instance: NDArray[np.int32]


class Renderer:
    """Renders rays through one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._daylight = snapshot.scene.daylight
        self._contact = _contact_shade(snapshot)
        brightness = 0.55 * self._daylight.sun.mean() + self._daylight.ambient.mean()
        self._exposure = np.float32(1.15 / brightness)

    def see(self, origins: Float, directions: Float, pixel_rad: float) -> Samples:
        """What rays see.

        Args:
            origins: (N, 3) float32, scene frame.
            directions: (N, 3) float32 of any length.
            pixel_rad: angle between neighbouring rays, for the filtering of textures.

        Returns:
            One sample per ray.
        """
        parts = [
            self._see(origins[start : start + _CHUNK], directions[start : start + _CHUNK], pixel_rad)
            for start in range(0, len(origins), _CHUNK)
        ]
        return Samples(
            np.concatenate([p.rgb for p in parts]),
            np.concatenate([p.t for p in parts]),
            np.concatenate([p.class_index for p in parts]),
            np.concatenate([p.instance for p in parts]),
        )

    def _see(self, origins: Float, directions: Float, pixel_rad: float) -> Samples:
        hits = self._snapshot.caster.cast(origins, directions)
        count = len(origins)
        length = np.sqrt(np.einsum("ij,ij->i", directions, directions))
        view = directions / length[:, None]
        radiance = np.empty((count, 3), np.float32)
        classes = np.zeros(count, np.uint8)
        instances = np.full(count, NO_INSTANCE, np.int32)
        met = hits.face != MISS
        sky, solid = np.flatnonzero(~met), np.flatnonzero(met)
        radiance[sky] = self._daylight.clouded_sky(view[sky])
        face = hits.face[solid]
        classes[solid], instances[solid] = self._snapshot.face_class[face], self._snapshot.face_instance[face]
        ground = self._snapshot.mesh.material[face] == Material.GROUND
        for pick, shade in ((solid[ground], self._ground), (solid[~ground], self._thing)):
            if len(pick):
                rays = _Rays(view[pick], hits.t[pick] * length[pick], hits.face[pick], hits.barycentric[pick])
                colour, classes_here = shade(origins[pick], rays, pixel_rad)
                haze = np.exp(rays.distance * np.float32(-1 / self._daylight.haze_m))[:, None]
                radiance[pick] = self._daylight.horizon + (colour - self._daylight.horizon) * haze
                if classes_here is not None:
                    classes[pick] = classes_here
        return Samples(_displayed(radiance * self._exposure), hits.t, classes, instances)

    def _ground(self, origins: Float, rays: _Rays, pixel_rad: float) -> tuple[Float, NDArray[np.uint8]]:
        position = origins + rays.view * rays.distance[:, None]
        footprint = rays.distance * np.float32(pixel_rad) / np.sqrt(np.maximum(-rays.view[:, 2], 0.02))
        ground, xy = self._snapshot.scene.ground, position[:, :2]
        coverage = ground.coverage(xy, footprint)
        albedo = ground.albedo(xy, coverage, footprint)
        lit = self._lit(position, np.float32((0, 0, 1)), rays.distance)
        open_sky = self._contact_at(xy)
        light = self._daylight.ambient * open_sky[:, None] * np.float32(0.9)
        light += (self._daylight.sun * self._daylight.sun_direction[2]) * lit[:, None]
        return albedo * light, _GROUND_CLASSES[Ground.kinds(coverage)]

    def _thing(self, origins: Float, rays: _Rays, pixel_rad: float) -> tuple[Float, None]:
        mesh, daylight = self._snapshot.mesh, self._daylight
        position = origins + rays.view * rays.distance[:, None]
        normal = _interpolated(mesh.normals[rays.face], rays.barycentric)
        normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
        towards = np.einsum("ij,ij->i", normal, rays.view)
        normal *= -np.sign(towards)[:, None]
        material, albedo = mesh.material[rays.face], mesh.albedo[rays.face]
        mirror = _MIRROR[material]
        self._texture(rays, position, (albedo, mirror), pixel_rad)
        facing = normal @ daylight.sun_direction
        lit = np.zeros(len(facing), np.float32)
        bright = np.flatnonzero(facing > 0)
        lit[bright] = self._lit(position[bright], normal[bright], rays.distance[bright])
        up = normal[:, 2:] * np.float32(0.5) + np.float32(0.5)
        near_ground = np.clip(position[:, 2:] * np.float32(0.5) + np.float32(0.45), 0, 1)
        bounce = _BOUNCE * (daylight.sun * daylight.sun_direction[2] + daylight.ambient)
        light = daylight.ambient * (up * (0.4 + 0.6 * near_ground)) + bounce * (1 - up)
        light += daylight.sun * (np.maximum(facing, 0) * lit)[:, None]
        colour = albedo * light
        glow = material == Material.GLOW
        colour[glow] = albedo[glow] * (np.float32(0.8) + 0.5 * light[glow])
        shiny = np.flatnonzero(mirror > 0)
        if len(shiny):
            cosine = np.abs(towards[shiny])
            colour[shiny] = self._reflected(
                colour[shiny], (rays.view[shiny], normal[shiny], cosine), (mirror[shiny], lit[shiny])
            )
        return colour, None

    def _texture(self, rays: _Rays, position: Float, surface: tuple[Float, Float], pixel_rad: float) -> None:
        """Overwrite albedo and mirror share of façades and leaves in place."""
        albedo, mirror = surface
        mesh = self._snapshot.mesh
        material = mesh.material[rays.face]
        walls = np.flatnonzero(material == Material.FACADE)
        if len(walls):
            bays = _interpolated(mesh.texture[rays.face[walls]], rays.barycentric[walls])
            width = rays.distance[walls] * np.float32(pixel_rad / 2.5)
            albedo[walls], mirror[walls] = facade(bays, albedo[walls], width)
        leaves = np.flatnonzero(material == Material.FOLIAGE)
        if len(leaves):
            albedo[leaves] *= foliage_shade(position[leaves], rays.distance[leaves] * np.float32(pixel_rad))

    def _reflected(
        self, colour: Float, geometry: tuple[Float, Float, Float], surface: tuple[Float, Float]
    ) -> Float:
        """Colour with the sky, the ground and the sun mirrored in it."""
        (view, normal, cosine), (mirror, lit) = geometry, surface
        bounced = view + normal * (2 * cosine)[:, None]
        sky = self._daylight.sky(bounced)
        below = np.clip(np.float32(0.5) - bounced[:, 2:] * 12, 0, 1)
        seen = sky + (self._daylight.ambient * np.float32(0.16) - sky) * below
        share = (mirror * fresnel(cosine))[:, None]
        glint = np.clip(bounced @ self._daylight.sun_direction, 0, 1) ** 220 * lit * mirror
        return colour * (1 - share) + seen * share + self._daylight.sun * (glint * np.float32(1.6))[:, None]

    def _lit(self, position: Float, normal: Float, distance: Float) -> Float:
        """1 where the sun shines, 0 in the shade."""
        lift = np.float32(_OPEN_M) + np.float32(4e-4) * distance
        origins = position + normal * lift[:, None]
        sun = np.broadcast_to(self._daylight.sun_direction, origins.shape)
        blocked = self._snapshot.caster.blocked(origins, np.ascontiguousarray(sun))
        return np.where(blocked, np.float32(0), np.float32(1))

    def _contact_at(self, xy: Float) -> Float:
        shade, low = self._contact
        return look_up(shade, (xy - low) * np.float32(1 / _CONTACT_CELL_M), cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class _Rays:
    view: Float
    distance: Float
    face: NDArray[np.int32]
    barycentric: Float


# how much of the mirrored world each material shows
_MIRROR = np.zeros(len(Material), np.float32)
_MIRROR[Material.PAINT] = 0.85
_MIRROR[Material.GLASS] = 1.7
_MIRROR[Material.METAL] = 1.4
_MIRROR[Material.GLOW] = 0.6


def _interpolated(corners: Float, barycentric: Float) -> Float:
    """(N, k) of corner values (N, 3, k) at barycentric coordinates (N, 2)."""
    first = corners[:, 0]
    u, v = barycentric[:, :1], barycentric[:, 1:]
    return first + (corners[:, 1] - first) * u + (corners[:, 2] - first) * v


def _contact_shade(snapshot: Snapshot) -> tuple[Float, Float]:
    """Share of open sky on the ground around actors: (H, W) float32 and the position of its first cell."""
    low = snapshot.ego.scene_T_actor[:2, 3].astype(np.float32) - 60
    cells = round(120 / _CONTACT_CELL_M)
    cover = np.zeros((cells, cells), np.float32)
    for actor in snapshot.actors:
        corners = np.rint((actor.footprint - low) / _CONTACT_CELL_M * 16).astype(np.int32)
        small = actor.class_name in ("pedestrian", "rider", "bicycle", "motorcycle", "traffic_cone")
        cv2.fillPoly(cover, [corners], 0.35 if small else 0.85, cv2.LINE_8, 4)
    return 1 - cv2.GaussianBlur(cover, (0, 0), 0.45 / _CONTACT_CELL_M), low


def _displayed(radiance: Float) -> Float:
    """Display values 0 to 255 of exposed linear radiance: a filmic curve and the sRGB gamma."""
    steps = np.clip(radiance * np.float32(1024), 0, 8191).astype(np.int16)
    return _TONE[steps]


def _tone_table() -> Float:
    x = (np.arange(8192) + 0.5) / 1024
    film = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    srgb = np.where(film < 0.0031308, 12.92 * film, 1.055 * film ** (1 / 2.4) - 0.055)
    return (255 * srgb).astype(np.float32)


_TONE = _tone_table()
