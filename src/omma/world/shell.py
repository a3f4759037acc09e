"""The bare room: floor, ceiling, walls with a door and windows, skirting, curtains, radiator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omma.world.assets import furniture
from omma.world.finishes import Pattern, patterned
from omma.world.mesh import Colour, Material, Mesh, box, join, place, quad, rod

_PAINTS: tuple[Colour, ...] = (
    *((0.68, 0.66, 0.60), (0.60, 0.54, 0.42), (0.44, 0.53, 0.55), (0.50, 0.55, 0.42), (0.66, 0.52, 0.44)),
    *((0.72, 0.71, 0.69), (0.36, 0.16, 0.13), (0.62, 0.57, 0.36)),
)
_FLOORS: tuple[tuple[Pattern, Colour], ...] = (
    (Pattern.PLANKS, (0.36, 0.20, 0.10)),
    (Pattern.PLANKS, (0.50, 0.34, 0.19)),
    (Pattern.PLANKS, (0.20, 0.11, 0.06)),
    (Pattern.TILES, (0.45, 0.42, 0.38)),
    (Pattern.CLOTH, (0.34, 0.30, 0.25)),
    (Pattern.CLOTH, (0.20, 0.22, 0.26)),
)
_TRIM: Colour = (0.70, 0.69, 0.66)
_WALL_M = 0.16
_Hole = tuple[float, float, float, float]  # from, to along the wall; bottom, top


@dataclass(frozen=True)
class Shell:
    """An empty room.

    Args:
        size: (x, y, z) metres.
        solid: floor, ceiling, walls and what belongs to them.
        panes: window glass.
        windows: (n, 4, 3) corners of the openings, counter-clockwise seen from inside.
        window_walls: number of each window's wall.
        doorway: (x0, y0, x1, y1) to be kept free.
        window_fronts: floor before the windows, where nothing tall stands.
    """

    size: tuple[float, float, float]
    solid: Mesh
    panes: list[Mesh]
    windows: NDArray[np.float64]
    window_walls: tuple[int, ...]
    doorway: NDArray[np.float64]
    window_fronts: list[NDArray[np.float64]] = field(default_factory=list)

    def at_wall(self, wall: int, along_m: float, off_m: float) -> NDArray[np.float64]:
        """(4, 4) pose at a wall that looks into the room."""
        return wall_pose(self.size, wall, along_m, off_m)

    def inward(self, wall: int) -> NDArray[np.float64]:
        """(2,) unit vector from a wall into the room."""
        return wall_pose(self.size, wall, 0, 0)[:2, 0]


def wall_pose(
    size: tuple[float, float, float], wall: int, along_m: float, off_m: float
) -> NDArray[np.float64]:
    """(4, 4) pose at a wall: x points into the room, `along_m` runs with growing y or x."""
    x, y, _ = size
    spots = ((off_m, along_m), (along_m, off_m), (x - off_m, along_m), (along_m, y - off_m))
    return place(*spots[wall], 0.0, (0.0, np.pi / 2, np.pi, -np.pi / 2)[wall])


def build_shell(rng: np.random.Generator) -> Shell:
    """A room of random size and finish."""
    size = (float(rng.uniform(3.6, 6.2)), float(rng.uniform(3.2, 5.4)), float(rng.uniform(2.4, 2.9)))
    first = int(rng.integers(4))
    window_walls = (first,) if rng.random() < 0.55 else tuple(sorted((first, (first + 1) % 4)))
    door_wall = (first + 2 + int(rng.integers(2)) * (len(window_walls) == 1)) % 4
    holes = {wall: _opening(rng, size, wall) for wall in window_walls}
    paint = furniture.pick(rng, _PAINTS)
    accent = furniture.pick(rng, _PAINTS) if rng.random() < 0.3 else paint
    striped = rng.random() < 0.2
    parts = [_floor(rng, size), _ceiling(size)]
    panes, corners = [], []
    for wall in range(4):
        colour = accent if wall == (first + 1) % 4 else paint
        pattern = Pattern.STRIPES if striped and wall == (first + 1) % 4 else Pattern.PLASTER
        parts += _wall(size, wall, holes.get(wall), (colour, pattern))
        if wall in holes:
            parts += _window(rng, size, wall, holes[wall])
            opening = _rectangle(size, wall, holes[wall], -_WALL_M)
            panes.append(
                quad(opening, (0.02, 0.02, 0.02), Material.GLASS, [(0, 0, float(Pattern.OUTSIDE))] * 4)
            )
            corners.append(_rectangle(size, wall, holes[wall], -0.02))
    length = size[1 - door_wall % 2]
    at = float(rng.uniform(0.6, length - 0.6))
    parts += _door(rng, size, door_wall, at)
    fronts = [_front(size, wall, hole[:2], 0.4) for wall, hole in holes.items()]
    doorway = _front(size, door_wall, (at - 0.5, at + 0.5), 0.7)
    return Shell(size, join(parts), panes, np.array(corners), window_walls, doorway, fronts)


def _opening(rng: np.random.Generator, size: tuple[float, float, float], wall: int) -> _Hole:
    length = size[1 - wall % 2]
    wide = float(rng.uniform(1.0, min(2.2, length - 1.0)))
    middle = float(rng.uniform(wide / 2 + 0.45, length - wide / 2 - 0.45))
    bottom = float(rng.choice([0.85, 0.95, 0.15], p=[0.45, 0.4, 0.15]))
    return middle - wide / 2, middle + wide / 2, bottom, float(min(rng.uniform(2.0, 2.25), size[2] - 0.2))


def _rectangle(size: tuple[float, float, float], wall: int, hole: _Hole, off_m: float) -> NDArray[np.float64]:
    """(4, 3) corners on a wall, counter-clockwise seen from inside."""
    start, end, bottom, top = hole
    ends = [wall_pose(size, wall, along, off_m)[:2, 3] for along in (start, end)]
    # looking at the wall from inside, growing y at wall 0 and growing x at wall 3 run to the right
    left, right = ends if wall in (0, 3) else ends[::-1]
    return np.array([[*left, bottom], [*right, bottom], [*right, top], [*left, top]])


def _sheet(corners: NDArray[np.float64], colour: Colour, pattern: Pattern) -> Mesh:
    """A flat sheet whose pattern is laid out in metres of the room, upright on walls."""
    flat = np.ptp(corners[:, 2]) < 1e-6
    across = corners[:, 0] if np.ptp(corners[:, 0]) > np.ptp(corners[:, 1]) else corners[:, 1]
    first, second = (corners[:, 0], corners[:, 1]) if flat else (corners[:, 2], across)
    texture = np.stack([first, second, np.full(4, float(pattern))], 1)
    return quad(corners, colour, texture=texture)


def _floor(rng: np.random.Generator, size: tuple[float, float, float]) -> Mesh:
    pattern, colour = _FLOORS[int(rng.integers(len(_FLOORS)))]
    x, y, _ = size
    return _sheet(np.array([[0, 0, 0], [x, 0, 0], [x, y, 0], [0, y, 0.0]]), colour, pattern)


def _ceiling(size: tuple[float, float, float]) -> Mesh:
    x, y, z = size
    corners = np.array([[0, 0, z], [0, y, z], [x, y, z], [x, 0, z]])
    return _sheet(corners, (0.76, 0.76, 0.74), Pattern.PLASTER)


def _wall(
    size: tuple[float, float, float], wall: int, hole: _Hole | None, finish: tuple[Colour, Pattern]
) -> list[Mesh]:
    length, top = size[1 - wall % 2], size[2]
    skirting = box((0.015, length, 0.08), (0.0075, 0, 0.04), _TRIM)
    parts = [skirting.moved(wall_pose(size, wall, length / 2, 0))]
    pieces: list[_Hole] = [(0.0, length, 0.0, top)]
    if hole is not None:
        start, end, low, high = hole
        pieces = [(0, start, 0, top), (end, length, 0, top), (start, end, 0, low), (start, end, high, top)]
    parts += [_sheet(_rectangle(size, wall, piece, 0.0), *finish) for piece in pieces]
    return parts


def _window(rng: np.random.Generator, size: tuple[float, float, float], wall: int, hole: _Hole) -> list[Mesh]:
    """Reveal, frame, sill, radiator and curtains, built at a wall along y and then moved there."""
    start, end, low, high = hole
    wide, tall, middle = end - start, high - low, (low + high) / 2
    back = -_WALL_M
    parts = [box((_WALL_M, 0.02, tall), (back / 2, s * (wide / 2 + 0.01), middle), _TRIM) for s in (1, -1)]
    parts += [box((_WALL_M, wide, 0.02), (back / 2, 0, z), _TRIM) for z in (low - 0.01, high + 0.01)]
    bars = 1 + int(wide > 1.3)
    parts += [
        box((0.05, 0.05, tall), (back + 0.03, y, middle), _TRIM)
        for y in np.linspace(-wide / 2 + 0.025, wide / 2 - 0.025, bars + 1)
    ]
    parts += [box((0.05, wide, 0.05), (back + 0.03, 0, z), _TRIM) for z in (low + 0.025, high - 0.025)]
    parts.append(box((0.2, wide + 0.1, 0.03), (0.02, 0, low - 0.02), _TRIM))
    if low > 0.6 and rng.random() < 0.7:
        ribs = np.arange(-wide / 2 + 0.15, wide / 2 - 0.15, 0.07)
        parts += [box((0.07, 0.05, 0.5), (0.07, y, 0.42), _TRIM) for y in ribs]
    if rng.random() < 0.65:
        colour, drop = furniture.pick(rng, furniture.FABRICS), high + 0.12
        for side in (1, -1):
            sheet = furniture.curtain(0.38, drop - 0.05, colour)
            parts.append(sheet.moved(place(0.13, side * (wide / 2 + 0.05), 0.05, 0)))
        parts.append(rod((0.13, -wide / 2 - 0.3, drop), (0.13, wide / 2 + 0.3, drop), 0.014, (0.3, 0.3, 0.3)))
    pose = wall_pose(size, wall, (start + end) / 2, 0)
    return [part.moved(pose) for part in parts]


def _door(rng: np.random.Generator, size: tuple[float, float, float], wall: int, at: float) -> list[Mesh]:
    painted = rng.random() < 0.6
    colour = _TRIM if painted else furniture.pick(rng, furniture.WOODS)
    pattern = Pattern.PLAIN if painted else Pattern.WOOD
    leaf = patterned(box((0.03, 0.84, 2.02), (0.012, 0, 1.01), colour), pattern)
    fields = [
        patterned(box((0.012, 0.56, h), (0.03, 0, z), colour), pattern) for h, z in ((0.7, 0.55), (0.8, 1.45))
    ]
    frame = [box((0.05, 0.08, 2.1), (0.02, s * 0.46, 1.05), _TRIM) for s in (1, -1)]
    frame.append(box((0.05, 1.0, 0.08), (0.02, 0, 2.06), _TRIM))
    handle = rod((0.075, 0.34, 1.03), (0.075, 0.22, 1.03), 0.011, (0.5, 0.48, 0.42), Material.METAL)
    knob = rod((0.0, 0.34, 1.03), (0.08, 0.34, 1.03), 0.011, (0.5, 0.48, 0.42), Material.METAL)
    return [part.moved(wall_pose(size, wall, at, 0)) for part in (leaf, *fields, *frame, handle, knob)]


def _front(
    size: tuple[float, float, float], wall: int, ends: tuple[float, float], reach_m: float
) -> NDArray[np.float64]:
    """(x0, y0, x1, y1) of the floor before a stretch of wall."""
    corners = [wall_pose(size, wall, along, off)[:2, 3] for along in ends for off in (0.0, reach_m)]
    return np.array([*np.min(corners, 0), *np.max(corners, 0)])
