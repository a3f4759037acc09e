"""Buildings, trees and street furniture as meshes that stand on z = 0."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import trimesh

from omma.world.mesh import Colour, Float, Material, Mesh, ball, box, join, loft, quad, rod, solid

BARK: Colour = (0.10, 0.07, 0.045)
POLE: Colour = (0.10, 0.11, 0.115)
WALLS: tuple[Colour, ...] = (
    (0.55, 0.48, 0.38),
    (0.42, 0.20, 0.13),
    (0.62, 0.60, 0.56),
    (0.34, 0.33, 0.32),
    (0.60, 0.44, 0.28),
    (0.28, 0.15, 0.11),
    (0.48, 0.52, 0.54),
    (0.66, 0.58, 0.44),
)
ROOFS: tuple[Colour, ...] = ((0.22, 0.07, 0.04), (0.09, 0.085, 0.085), (0.16, 0.10, 0.07))
LEAVES: tuple[Colour, ...] = (
    (0.06, 0.12, 0.025),
    (0.09, 0.15, 0.03),
    (0.045, 0.10, 0.035),
    (0.14, 0.14, 0.03),
)
NUM_FACADES = 4
STOREY_M = 3.3
GREEN_LAMP: Colour = (0.02, 0.75, 0.35)
RED_LAMP: Colour = (0.9, 0.03, 0.02)
DARK_LAMP: Colour = (0.03, 0.03, 0.03)


def building(size: tuple[float, float, float], wall: Colour, facade: int) -> Mesh:
    """A flat-roofed building.

    Args:
        size: (x, y, height) metres; the height is rounded to storeys.
        wall: albedo of the walls.
        facade: style number of the windows, below `NUM_FACADES`.
    """
    storeys = max(2, round(size[2] / STOREY_M))
    x, y, z = size[0] / 2, size[1] / 2, storeys * STOREY_M
    feet = [(-x, -y), (x, -y), (x, y), (-x, y)]
    walls = [_wall(a, b, z, wall, (storeys, facade)) for a, b in zip(feet, [*feet[1:], feet[0]], strict=True)]
    rim = tuple(0.6 * c for c in wall)
    edges = [box((2 * x + 0.3, 0.3, 0.7), (0, s * y, z + 0.2), rim) for s in (-1, 1)]
    edges += [box((0.3, 2 * y + 0.3, 0.7), (s * x, 0, z + 0.2), rim) for s in (-1, 1)]
    roof = quad([(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)], (0.2, 0.2, 0.2))
    plant = box((x * 0.5, y * 0.6, 1.8), (x * 0.2, -y * 0.1, z + 0.9), (0.35, 0.36, 0.37))
    return join([*walls, *edges, roof, plant])


def _wall(
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    colour: Colour,
    style: tuple[int, int],
) -> Mesh:
    storeys, facade = style
    width = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    bays = max(2, round(width / 2.9))
    corners = [(*start, 0), (*end, 0), (*end, height), (*start, height)]
    texture = [(0, 0, facade), (bays, 0, facade), (bays, storeys, facade), (0, storeys, facade)]
    return quad(corners, colour, Material.FACADE, texture)


def house(size: tuple[float, float], wall: Colour, roof: Colour) -> Mesh:
    """A two-storey house with a gable roof along x; `size` is (x, y) metres."""
    x, y, z = size[0] / 2, size[1] / 2, 2 * STOREY_M * 0.85
    feet = [(-x, -y), (x, -y), (x, y), (-x, y)]
    walls = [_wall(a, b, z, wall, (2, 3)) for a, b in zip(feet, [*feet[1:], feet[0]], strict=True)]
    out, top, eaves = 0.5, z + 0.65 * y, z - 0.25
    ridge = [(x + out, 0, top), (-x - out, 0, top)]
    slopes = [
        quad([(-x - out, -y - out, eaves), (x + out, -y - out, eaves), *ridge], roof),
        quad([(x + out, y + out, eaves), (-x - out, y + out, eaves), *ridge[::-1]], roof),
    ]
    gables = [
        quad([(s * x, -s * y, z), (s * x, s * y, z), (s * x, 0, top), (s * x, 0, top)], wall) for s in (-1, 1)
    ]
    chimney = box((0.7, 0.7, 1.6), (0.3 * x, 0.3 * y, top), (0.3, 0.13, 0.09))
    door = box((1.0, 0.12, 2.1), (0.2 * x, -y, 1.05), (0.12, 0.06, 0.03))
    return join([*walls, *slopes, *gables, chimney, door])


@lru_cache(maxsize=32)
def tree(variant: int, subdivisions: int = 1) -> Mesh:
    """A tree of 5 to 9 m; every fourth variant is a conifer. Its crown is rounder with more subdivisions."""
    rng = np.random.default_rng([variant, 201])
    height = rng.uniform(5.0, 9.0)
    leaves = LEAVES[rng.integers(len(LEAVES))]
    trunk = rod((0, 0, 0), (0, 0, height * 0.5), 0.11 + 0.012 * height, BARK, sides=8)
    if variant % 4 == 3:
        return join([trunk, *_conifer(height, leaves)])
    parts = [trunk]
    for _ in range(6):
        spread = rng.uniform(-1, 1, 3) * (0.15, 0.15, 0.13) * height
        radii = rng.uniform(0.11, 0.18, 3) * height
        place = spread + np.array([0, 0, 0.68 * height]), radii
        parts.append(_leafy(rng, place, leaves, subdivisions))
    return join(parts)


def _leafy(rng: np.random.Generator, place: tuple[Float, Float], colour: Colour, subdivisions: int) -> Mesh:
    centre, radii = place
    shape = trimesh.creation.icosphere(subdivisions=subdivisions)
    bumps = rng.normal(0, 0.1, (len(shape.vertices), 1))
    shape.vertices = shape.vertices * (1 + bumps) * radii + centre
    return solid(shape, tuple(np.array(colour) * rng.uniform(0.8, 1.25)), Material.FOLIAGE, crease_deg=70.0)


def _conifer(height: float, colour: Colour) -> list[Mesh]:
    parts = []
    for level in range(4):
        low, radius = (0.18 + 0.19 * level) * height, (0.24 - 0.05 * level) * height
        cone = trimesh.creation.cone(radius, 0.34 * height, sections=11)
        cone.apply_translation((0, 0, low))
        parts.append(solid(cone, colour, Material.FOLIAGE, crease_deg=80.0))
    return parts


@lru_cache(maxsize=8)
def bush(variant: int) -> Mesh:
    """A low hedge plant."""
    rng = np.random.default_rng([variant, 202])
    leaves = LEAVES[rng.integers(len(LEAVES))]
    return join(
        [
            ball((x, 0, 0.4), rng.uniform(0.4, 0.65, 3), leaves, Material.FOLIAGE, subdivisions=1)
            for x in (-0.4, 0.35)
        ]
    )


@lru_cache(maxsize=1)
def street_lamp() -> Mesh:
    """A lamp post whose arm reaches out along +x."""
    return join(
        [
            rod((0, 0, 0), (0, 0, 0.9), 0.1, POLE, sides=6),
            rod((0, 0, 0.9), (0, 0, 7.4), 0.06, POLE, Material.METAL, sides=6),
            rod((0, 0, 7.35), (1.7, 0, 7.75), 0.045, POLE, Material.METAL, sides=4),
            box((0.7, 0.26, 0.12), (1.95, 0, 7.75), POLE, Material.METAL),
            box((0.5, 0.2, 0.03), (1.95, 0, 7.68), (0.8, 0.8, 0.75), Material.GLOW),
        ]
    )


@lru_cache(maxsize=2)
def traffic_light(lamp: str) -> Mesh:
    """A signal that faces +x; `lamp` is "red" or "green"."""
    colours = [
        RED_LAMP if lamp == "red" else DARK_LAMP,
        DARK_LAMP,
        GREEN_LAMP if lamp == "green" else DARK_LAMP,
    ]
    lamps = [
        rod((0.13, 0, 3.35 - 0.3 * n), (0.17, 0, 3.35 - 0.3 * n), 0.11, colour, Material.GLOW, sides=7)
        for n, colour in enumerate(colours)
    ]
    post = rod((0, 0, 0), (0, 0, 3.0), 0.06, POLE, Material.METAL, sides=6)
    return join([post, box((0.26, 0.34, 1.0), (0, 0, 3.05), (0.015, 0.015, 0.015)), *lamps])


@lru_cache(maxsize=1)
def traffic_cone() -> Mesh:
    """An orange cone with a white band, 0.7 m high."""
    rings = [(0.16, 0.04), (0.115, 0.26), (0.085, 0.42), (0.03, 0.7)]
    colours: list[Colour] = [(0.75, 0.13, 0.01), (0.8, 0.8, 0.78), (0.75, 0.13, 0.01)]
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    parts = [box((0.42, 0.42, 0.04), (0, 0, 0.02), (0.05, 0.05, 0.05))]
    for (low_r, low), (high_r, high), colour in zip(rings[:-1], rings[1:], colours, strict=True):
        sections = [
            np.stack([r * np.cos(turn), r * np.sin(turn), np.full(12, z)], 1)
            for r, z in ((low_r, low), (high_r, high))
        ]
        parts.append(loft(sections, colour, Material.MATTE, crease_deg=60.0))
    return join(parts)


@lru_cache(maxsize=1)
def barrier() -> Mesh:
    """A striped road-work barrier, 2 m long across y."""
    parts = [rod((0, y, 0), (0, y, 1.0), 0.04, POLE, sides=6) for y in (-0.8, 0.8)]
    parts += [box((0.6, 0.08, 0.06), (0, y, 0.03), POLE) for y in (-0.8, 0.8)]
    for n in range(8):
        colour: Colour = (0.75, 0.10, 0.03) if n % 2 else (0.8, 0.8, 0.78)
        parts.append(box((0.05, 0.25, 0.3), (0, -0.875 + 0.25 * n, 0.85), colour))
    return join(parts)
