"""Triangles with what a ray needs to know where it hits, and the few solids everything is built from.

A mesh is a triangle soup: corners, shading normals, albedo and material per triangle. Local frames of things
have x forward, y left, z up and stand on z = 0; metres throughout. Albedo is linear, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float32]
Colour = tuple[float, float, float]


class Material(IntEnum):
    """How a surface answers light."""

    GROUND = 0  # albedo from the ground map
    MATTE = 1
    PAINT = 2  # glossy, with a clear coat; recoloured per vehicle
    GLASS = 3
    FACADE = 4  # windows from texture coordinates
    FOLIAGE = 5
    GLOW = 6  # lamps: shine whatever the light
    METAL = 7


@dataclass(frozen=True)
class Mesh:
    """A triangle soup of F triangles.

    Args:
        corners: (F, 3, 3) float32 metres; axis 1 is the corner, counter-clockwise seen from outside.
        normals: (F, 3, 3) float32 unit shading normal of each corner.
        albedo: (F, 3) float32 linear RGB.
        material: (F,) uint8 `Material`.
        texture: (F, 3, 3) float32, facades only: bays along the wall, storeys up, number of the facade style.
    """

    corners: Float
    normals: Float
    albedo: Float
    material: NDArray[np.uint8]
    texture: Float

    def __len__(self) -> int:
        return len(self.corners)

    def moved(self, a_T_local: NDArray[np.floating]) -> Mesh:
        """The mesh in frame a; `a_T_local` is a (4, 4) rigid transform."""
        rotation = a_T_local[:3, :3].astype(np.float32)
        shift = a_T_local[:3, 3].astype(np.float32)
        shape = self.corners.shape
        corners, normals = self.corners.reshape(-1, 3) @ rotation.T, self.normals.reshape(-1, 3) @ rotation.T
        corners += shift
        return replace(self, corners=corners.reshape(shape), normals=normals.reshape(shape))

    def painted(self, colour: Colour) -> Mesh:
        """The mesh with another colour on its PAINT triangles."""
        paint = (self.material == Material.PAINT)[:, None]
        return replace(self, albedo=np.where(paint, np.float32(colour), self.albedo))

    def none(self) -> Mesh:
        """A mesh without triangles."""
        return Mesh(self.corners[:0], self.normals[:0], self.albedo[:0], self.material[:0], self.texture[:0])

    def bounds(self) -> Float:
        """(2, 3) lowest and highest coordinates."""
        low = [self.corners[..., axis].min() for axis in range(3)]
        return np.array([low, [self.corners[..., axis].max() for axis in range(3)]], np.float32)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several, in order."""
    return Mesh(
        np.concatenate([m.corners for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.albedo for m in meshes]),
        np.concatenate([m.material for m in meshes]),
        np.concatenate([m.texture for m in meshes]),
    )


def solid(
    shape: trimesh.Trimesh,
    colour: Colour,
    material: Material = Material.MATTE,
    *,
    crease_deg: float = 40.0,
) -> Mesh:
    """A trimesh shape as a mesh of one colour; edges sharper than `crease_deg` stay sharp in the shading."""
    return Mesh(
        shape.triangles.astype(np.float32),
        _corner_normals(shape, crease_deg),
        np.tile(np.float32(colour), (len(shape.faces), 1)),
        np.full(len(shape.faces), material, np.uint8),
        np.zeros((len(shape.faces), 3, 3), np.float32),
    )


def _corner_normals(shape: trimesh.Trimesh, crease_deg: float) -> Float:
    around = shape.vertex_faces[shape.faces]  # (F, 3, valence), padded with -1
    normals = shape.face_normals[around]
    smooth = np.einsum("fc,fkvc->fkv", shape.face_normals, normals) > np.cos(np.radians(crease_deg))
    weights = np.where((around >= 0) & smooth, shape.area_faces[around], 0.0)
    total = np.einsum("fkv,fkvc->fkc", weights, normals)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    flat = np.broadcast_to(shape.face_normals[:, None], total.shape)
    return np.where(length > 1e-9, total / np.maximum(length, 1e-9), flat).astype(np.float32)


def box(
    size: ArrayLike,
    centre: ArrayLike,
    colour: Colour,
    material: Material = Material.MATTE,
    *,
    yaw: float = 0.0,
) -> Mesh:
    """An upright box; `size` and `centre` are (x, y, z), `yaw` turns it about its middle (radians)."""
    unit = _unit_box()
    sized = replace(unit, corners=unit.corners * np.asarray(size, np.float32))
    return _coloured(sized, colour, material).moved(place(*np.asarray(centre, float), yaw))


def rod(
    start: ArrayLike,
    end: ArrayLike,
    radius: float,
    colour: Colour,
    material: Material = Material.MATTE,
    *,
    sides: int = 10,
) -> Mesh:
    """A round bar from `start` to `end` with flat ends."""
    unit = _unit_rod(sides)
    start, along = np.asarray(start, float), np.subtract(end, start)
    length = float(np.linalg.norm(along))
    sized = replace(unit, corners=unit.corners * np.float32([radius, radius, length]))
    frame = np.eye(4)
    frame[:3, :3] = frame_along(along / length)
    frame[:3, 3] = start
    return _coloured(sized, colour, material).moved(frame)


def disc(
    centre: ArrayLike, side: int, radius: float, colour: Colour, material: Material, *, points: int
) -> Mesh:
    """A round sheet that faces along the y axis, to the left (`side` 1) or right (-1)."""
    turn = side * np.arange(points) * 2 * np.pi / points
    rim = np.stack([np.sin(turn), np.zeros(points), np.cos(turn)], 1) * radius + centre
    hub = np.broadcast_to(np.asarray(centre, float), rim.shape)
    shape = trimesh.Trimesh(
        np.stack([hub, rim, np.roll(rim, -1, axis=0)], 1).reshape(-1, 3), np.arange(3 * points).reshape(-1, 3)
    )
    return solid(shape, colour, material)


def frame_along(axis: NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., 3, 3) rotations whose third column is the unit vector `axis` (..., 3)."""
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=-1)]
    x = helper - axis * (helper * axis).sum(-1, keepdims=True)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(axis, x), axis], -1)


def _coloured(mesh: Mesh, colour: Colour, material: Material) -> Mesh:
    return replace(
        mesh,
        albedo=np.broadcast_to(np.float32(colour), (len(mesh), 3)),
        material=np.full(len(mesh), material, np.uint8),
    )


@lru_cache(maxsize=1)
def _unit_box() -> Mesh:
    return solid(trimesh.creation.box((1, 1, 1)), (0, 0, 0))


@lru_cache(maxsize=16)
def _unit_rod(sides: int) -> Mesh:
    return solid(
        trimesh.creation.cylinder(1.0, segment=[(0, 0, 0), (0, 0, 1)], sections=sides),
        (0, 0, 0),
        crease_deg=75,
    )


def ball(
    centre: ArrayLike, radii: ArrayLike, colour: Colour, material: Material, *, subdivisions: int = 2
) -> Mesh:
    """An ellipsoid with half axes `radii` (x, y, z)."""
    shape = trimesh.creation.icosphere(subdivisions=subdivisions)
    shape.apply_scale(np.asarray(radii, float))
    shape.apply_translation(np.asarray(centre, float))
    return solid(shape, colour, material, crease_deg=180.0)


def ring(centre: ArrayLike, radius: float, thickness: float, colour: Colour, *, sides: int = 18) -> Mesh:
    """An upright tyre in the x-z plane: a torus around the y axis."""
    shape = trimesh.creation.torus(radius - thickness, thickness, major_sections=sides, minor_sections=5)
    shape.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    shape.apply_translation(np.asarray(centre, float))
    return solid(shape, colour, crease_deg=80.0)


def loft(sections: ArrayLike, colour: Colour, material: Material, *, crease_deg: float = 40.0) -> Mesh:
    """A closed skin over cross sections that follow one another, with flat caps at both ends.

    Args:
        sections: (S, P, 3) rings of P points, counter-clockwise seen from the last section.
        colour: albedo of the skin.
        material: of the skin.
        crease_deg: edges sharper than this stay sharp in the shading.
    """
    rings = np.asarray(sections, float)
    count, points = rings.shape[:2]
    here = np.arange(points)
    after = (here + 1) % points
    strips = [_strip(here + s * points, after + s * points, points) for s in range(count - 1)]
    last = (count - 1) * points
    caps = [
        np.stack([np.zeros(points - 2, int), here[2:], here[1:-1]], 1),
        np.stack([np.full(points - 2, last), last + here[1:-1], last + here[2:]], 1),
    ]
    shape = trimesh.Trimesh(rings.reshape(-1, 3), np.concatenate([*strips, *caps]))
    return solid(shape, colour, material, crease_deg=crease_deg)


def _strip(here: NDArray, after: NDArray, step: int) -> NDArray:
    lower = np.stack([here, after, after + step], 1)
    upper = np.stack([here, after + step, here + step], 1)
    return np.concatenate([lower, upper])


def quad(
    corners: ArrayLike,
    colour: Colour,
    material: Material = Material.MATTE,
    texture: ArrayLike | None = None,
) -> Mesh:
    """A flat four-cornered sheet, counter-clockwise seen from its front.

    Args:
        corners: (4, 3) metres.
        colour: albedo.
        material: of the sheet.
        texture: (4, 3) texture coordinates of the corners, zeros by default.
    """
    points = np.asarray(corners, np.float32)
    uv = np.zeros((4, 3), np.float32) if texture is None else np.asarray(texture, np.float32)
    picks = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(
        points[picks],
        np.broadcast_to(_facing(points), (2, 3, 3)),
        np.tile(np.float32(colour), (2, 1)),
        np.full(2, material, np.uint8),
        uv[picks],
    )


def panel(
    corners: ArrayLike, inset: float, colour: Colour, material: Material, *, lift: float = 0.006
) -> Mesh:
    """A sheet on a sheet: the quad shrunk by the share `inset` and lifted off by `lift` metres."""
    points = np.asarray(corners, float)
    middle = points.mean(0)
    return quad(middle + (points - middle) * (1 - inset) + lift * _facing(points), colour, material)


def _facing(corners: NDArray[np.floating]) -> Float:
    (ax, ay, az), (bx, by, bz) = corners[1] - corners[0], corners[3] - corners[0]
    normal = np.float32((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))
    return normal / np.sqrt(normal @ normal)


def place(x: float, y: float, z: float, yaw: float) -> NDArray[np.float64]:
    """(4, 4) pose of something that stands at (x, y, z) metres and faces `yaw` radians from the x axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])
