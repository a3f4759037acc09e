"""Furnished rooms: walls with a window and a door, furniture along them and in the middle, people, light.

A room is a pure function of (seed, scene number). Its frame has z up, the floor at z = 0 and corners at the
origin and at `size`. Walls are numbered 0 to 3: at x = 0, at y = 0, at the far x and at the far y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.world.assets import furniture
from omma.world.assets.people import Look, person, random_look, riding_joints, walking_joints
from omma.world.cast import accelerate
from omma.world.finishes import Pattern, patterned
from omma.world.mesh import Colour, Mesh, box, join, place, quad
from omma.world.shell import Shell, build_shell

SEAT_M = 0.5


@dataclass(frozen=True)
class Lamp:
    """A lamp: middle of its shade and brightness, linear RGB at one metre."""

    xyz: tuple[float, float, float]
    power: tuple[float, float, float]


@dataclass(frozen=True)
class Occupant:
    """A person in the room.

    Args:
        look: colours and height.
        room_T_person: (4, 4) pose of the place where the person is.
        sits: whether on a seat.
        phase: of the walk at time 0, radians.
        stride: 0 stands, 1 walks briskly to and fro.
    """

    look: Look
    room_T_person: NDArray[np.float64]  # noqa: N815  a pose is named to_T_from
    sits: bool
    phase: float
    stride: float

    def mesh(self, time_s: float) -> Mesh:
        """The body in the room frame."""
        height = self.look.height_m
        if self.sits:
            joints = riding_joints(
                height, np.array([0.0, 0, SEAT_M]), np.array([0.33, 0.14, 0.66]), np.array([0.4, 0.12, 0.08])
            )
            return person(self.look, joints).moved(self.room_T_person)
        joints = walking_joints(height, self.phase + 5.5 * self.stride * time_s, self.stride)
        along = 0.25 * self.stride * np.sin(0.9 * time_s + self.phase)
        return person(self.look, joints).moved(self.room_T_person @ place(along, 0, 0, 0))


@dataclass(frozen=True)
class Room:
    """A furnished room.

    Args:
        number: scene number.
        size: (x, y, z) metres.
        solid: what stops light.
        clear: window panes and lamp shades: seen, but no obstacle to light.
        windows: (n, 4, 3) corners of the openings, counter-clockwise seen from inside.
        lamps: those that are lit.
        sky: radiance of the sky behind the windows, 0 at night.
        sun: (3,) unit vector towards the sun, room frame, and its radiance; 0 where it does not shine in.
        occupants: the people.
        footprints: (n, 4) x and y ranges (x0, y0, x1, y1) of the furniture.
        heights: (n,) of the furniture.
        targets: (n, 3) places worth looking at.
        seats: (n, 4, 4) poses of what one can sit on, on the floor below it.
    """

    number: int
    size: tuple[float, float, float]
    solid: Mesh
    clear: Mesh
    windows: NDArray[np.float64]
    lamps: tuple[Lamp, ...]
    sky: float
    sun: tuple[NDArray[np.float64], float]
    occupants: tuple[Occupant, ...]
    footprints: NDArray[np.float64]
    heights: NDArray[np.float64]
    targets: NDArray[np.float64]
    seats: NDArray[np.float64]

    @cached_property
    def accelerated(self) -> tuple[Any, Any]:
        """Embree scenes of all that is seen, and of what stops light."""
        return accelerate(join([self.solid, self.clear]).corners), accelerate(self.solid.corners)

    def clearance_m(self, xy: NDArray[np.float64]) -> float:
        """Metres from a place (2,) to the nearest piece of furniture or wall, below 0 inside of one."""
        x, y, _ = self.size
        walls = float(min(xy[0], xy[1], x - xy[0], y - xy[1]))
        if not len(self.footprints):
            return walls
        gap = np.maximum(self.footprints[:, :2] - xy, xy - self.footprints[:, 2:])
        outside = np.linalg.norm(np.maximum(gap, 0), axis=1) + np.minimum(gap.max(1), 0)
        return min(walls, float(outside.min()))

    def people_at(self, time_s: float) -> Mesh:
        """The people at an instant, room frame."""
        return join([self.solid.none(), *[who.mesh(time_s) for who in self.occupants]])


def build_room(seed: int, number: int) -> Room:
    """Room `number` of the world with this seed, always the same."""
    shell = build_shell(np.random.default_rng([seed, number, 20]))
    rng = np.random.default_rng([seed, number, 21])
    fitter = _Fitter(rng, shell)
    list(_FURNISH.values())[int(rng.integers(len(_FURNISH)))](fitter, rng)
    _add_oddments(fitter, rng)
    _hang_pictures(fitter, rng)
    lamps, shades = _light(fitter, np.random.default_rng([seed, number, 22]))
    people = _people(fitter, np.random.default_rng([seed, number, 23]))
    sky, sun = _weather(np.random.default_rng([seed, number, 24]), shell)
    x, y, z = shell.size
    return Room(
        number=number,
        size=shell.size,
        solid=join([shell.solid, *fitter.meshes]),
        clear=join([*shell.panes, *shades]),
        windows=shell.windows,
        lamps=tuple(lamps),
        sky=sky,
        sun=sun,
        occupants=tuple(people),
        footprints=np.array(fitter.footprints).reshape(-1, 4),
        heights=np.array(fitter.heights),
        targets=np.array([*fitter.targets, (x / 2, y / 2, 0.4 * z)]),
        seats=np.array(fitter.seats).reshape(-1, 4, 4),
    )


class _Fitter:
    """Places furniture where there is room for it."""

    def __init__(self, rng: np.random.Generator, shell: Shell) -> None:
        self._rng, self.shell = rng, shell
        self.meshes: list[Mesh] = []
        self.footprints: list[NDArray[np.float64]] = []
        self.heights: list[float] = []
        self.targets: list[tuple[float, float, float]] = []
        self.tops: list[tuple[NDArray[np.float64], tuple[float, float], float]] = []  # pose, half size, z
        self.seats: list[NDArray[np.float64]] = []

    def stand(self, mesh: Mesh, pose: NDArray[np.float64], *, margin_m: float = 0.03) -> bool:
        """Put a thing at a pose unless it meets something else; tells whether it did."""
        moved = mesh.moved(pose)
        low, high = moved.bounds().astype(np.float64)
        x, y, z = self.shell.size
        if low[0] < 0 or low[1] < 0 or high[0] > x or high[1] > y or high[2] > z:
            return False
        own = np.array([*(low[:2] - margin_m), *(high[:2] + margin_m)])
        if any(_overlap(own, other) for other in [*self.footprints, self.shell.doorway]):
            return False
        if high[2] > 0.95 and any(_overlap(own, other) for other in self.shell.window_fronts):
            return False
        self.meshes.append(moved)
        self.footprints.append(np.array([*low[:2], *high[:2]]))
        self.heights.append(float(high[2]))
        self.targets.append(tuple(((low + high) / 2).tolist()))
        return True

    def lay(self, rug: Mesh, pose: NDArray[np.float64]) -> None:
        """Put a rug under what stands there, unless it reaches through a wall."""
        moved = rug.moved(pose)
        low, high = moved.bounds()
        if (low[:2] > 0).all() and (high[:2] < self.shell.size[:2]).all():
            self.meshes.append(moved)

    def at_wall(self, mesh: Mesh, *, gap_m: float = 0.02) -> NDArray[np.float64] | None:
        """Put a thing with its back to some wall; returns its pose, or none where there was no room."""
        low, high = mesh.bounds()
        for _ in range(24):
            wall = int(self._rng.integers(4))
            length = self.shell.size[1 - wall % 2]
            half = float(high[1] - low[1]) / 2 + 0.03
            if 2 * half > length:
                continue
            along = self._rng.uniform(half, length - half)
            corner = self._rng.random()  # things like corners
            along = half if corner < 0.25 else length - half if corner < 0.5 else along
            pose = self.shell.at_wall(wall, along, gap_m - float(low[0]))
            if self.stand(mesh, pose):
                return pose
        return None

    def in_the_open(self, mesh: Mesh, *, margin_m: float = 0.35) -> NDArray[np.float64] | None:
        """Put a thing somewhere in the middle; returns its pose, or none."""
        x, y, _ = self.shell.size
        for _ in range(24):
            yaw = float(self._rng.integers(4)) * np.pi / 2
            middle = self._rng.uniform((0.3 * x, 0.3 * y), (0.7 * x, 0.7 * y))
            pose = place(*middle, 0.0, yaw)
            if self.stand(mesh, pose, margin_m=margin_m):
                return pose
        return None


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


def _living(fitter: _Fitter, rng: np.random.Generator) -> None:
    couch = fitter.at_wall(furniture.sofa(rng, int(rng.integers(2, 4))))
    if couch is not None:
        ahead = couch @ place(1.25, 0, 0, 0)
        size = (0.6, float(rng.uniform(0.9, 1.2)), 0.42)
        if fitter.stand(furniture.table(rng, size), ahead):
            fitter.tops.append((ahead, (size[0] / 2, size[1] / 2), size[2]))
        fitter.lay(_rug(rng, (1.7, 2.4)), couch @ place(1.2, 0, 0, 0))
        fitter.seats.append(couch @ place(0.12, 0.1, 0, 0))
    stand = fitter.at_wall(furniture.cupboard(rng, (0.42, 1.5, 0.5)))
    if stand is not None:
        fitter.meshes.append(furniture.screen(1.1).moved(stand @ place(0, 0, 0.5, 0)))
    fitter.at_wall(furniture.shelf(rng, float(rng.uniform(0.8, 1.4)), float(rng.uniform(1.6, 2.1))))
    fitter.at_wall(furniture.sofa(rng, 1))
    fitter.at_wall(furniture.plant(rng), gap_m=0.05)


def _bedroom(fitter: _Fitter, rng: np.random.Generator) -> None:
    width = float(rng.choice([1.0, 1.5, 1.7]))
    bed = fitter.at_wall(furniture.bed(rng, width))
    if bed is not None:
        for side in (1, -1):
            pose = bed @ place(-0.83, side * (width / 2 + 0.33), 0, 0)
            if fitter.stand(furniture.cupboard(rng, (0.38, 0.42, 0.5), rows=2), pose):
                fitter.tops.append((pose, (0.15, 0.15), 0.5))
        fitter.lay(_rug(rng, (1.4, width + 1.2)), bed @ place(0.5, 0, 0, 0))
    fitter.at_wall(furniture.cupboard(rng, (0.6, float(rng.uniform(1.0, 1.8)), 2.0)))
    chest = fitter.at_wall(furniture.cupboard(rng, (0.45, 1.0, 0.85), rows=3))
    if chest is not None:
        fitter.tops.append((chest, (0.15, 0.4), 0.85))
    fitter.at_wall(furniture.sofa(rng, 1))
    fitter.at_wall(furniture.plant(rng), gap_m=0.05)


def _dining(fitter: _Fitter, rng: np.random.Generator) -> None:
    fitter.at_wall(furniture.kitchen(rng, float(rng.uniform(1.8, 3.0))), gap_m=0.0)
    fitter.at_wall(furniture.fridge(rng))
    length = float(rng.uniform(1.2, 1.9))
    pose = fitter.in_the_open(furniture.table(rng, (0.85, length, 0.75)), margin_m=0.5)
    if pose is not None:
        fitter.tops.append((pose, (0.35, length / 2 - 0.1), 0.75))
        taken = fitter.footprints.pop(), fitter.heights.pop()  # chairs reach under the table
        _seat_around(fitter, rng, pose, length)
        fitter.footprints.append(taken[0])
        fitter.heights.append(taken[1])
    fitter.at_wall(furniture.cupboard(rng, (0.45, 1.3, 0.9), rows=2))
    fitter.at_wall(furniture.plant(rng), gap_m=0.05)


def _seat_around(
    fitter: _Fitter, rng: np.random.Generator, table: NDArray[np.float64], length_m: float
) -> None:
    """Chairs of one make on both long sides of a table."""
    make = int(rng.integers(1 << 30))
    for side in (1, -1):
        for y in np.arange(-length_m / 2 + 0.35, length_m / 2 - 0.2, 0.55):
            turn = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.12)
            at = table @ place(side * rng.uniform(0.5, 0.7), float(y), 0, turn)
            chair = furniture.chair(np.random.default_rng(make))
            if rng.random() < 0.85 and fitter.stand(chair, at, margin_m=-0.03):
                fitter.seats.append(at)


def _office(fitter: _Fitter, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 3))):
        pose = fitter.at_wall(furniture.desk(rng))
        if pose is not None:
            at = pose @ place(0.75, rng.uniform(-0.2, 0.2), 0, np.pi + rng.normal(0, 0.4))
            if fitter.stand(furniture.office_chair(rng), at, margin_m=-0.1):
                fitter.seats.append(at)
            fitter.tops.append((pose, (0.25, 0.65), 0.73))
    for _ in range(2):
        fitter.at_wall(furniture.shelf(rng, float(rng.uniform(0.8, 1.2)), float(rng.uniform(1.2, 2.1))))
    chest = fitter.at_wall(furniture.cupboard(rng, (0.45, 0.9, 1.1), rows=4))
    if chest is not None:
        fitter.tops.append((chest, (0.15, 0.35), 1.1))
    pose = fitter.in_the_open(furniture.round_table(rng, 0.45, 0.74))
    if pose is not None:
        fitter.tops.append((pose, (0.25, 0.25), 0.74))
    fitter.at_wall(furniture.plant(rng), gap_m=0.05)


_FURNISH: dict[str, Callable[[_Fitter, np.random.Generator], None]] = {
    "living": _living,
    "bedroom": _bedroom,
    "dining": _dining,
    "office": _office,
}


def _rug(rng: np.random.Generator, size: tuple[float, float]) -> Mesh:
    x, y = size[0] / 2, size[1] / 2
    around = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [(a * x, b * y, 0.008) for a, b in around]
    return quad(
        corners,
        furniture.pick(rng, furniture.FABRICS),
        texture=[(a, b, float(Pattern.RUG)) for a, b in around],
    )


def _add_oddments(fitter: _Fitter, rng: np.random.Generator) -> None:
    """Small things on table tops and boxes on the floor."""
    for pose, (half_x, half_y), z in fitter.tops:
        for _ in range(int(rng.integers(1, 6))):
            at = place(rng.uniform(-half_x, half_x), rng.uniform(-half_y, half_y), z, rng.uniform(0, 6))
            fitter.meshes.append(furniture.oddment(rng).moved(pose @ at))
    for _ in range(int(rng.integers(0, 3))):
        colour: Colour = (0.38, 0.26, 0.15) if rng.random() < 0.5 else furniture.pick(rng, furniture.FABRICS)
        size = rng.uniform((0.25, 0.25, 0.15), (0.45, 0.55, 0.4))
        carton = patterned(box(size, (0, 0, size[2] / 2), colour, yaw=rng.uniform(-0.2, 0.2)), Pattern.CLOTH)
        fitter.at_wall(carton, gap_m=0.05)


def _hang_pictures(fitter: _Fitter, rng: np.random.Generator) -> None:
    """Pictures where nothing tall stands before the wall."""
    tall = [f for f, h in zip(fitter.footprints, fitter.heights, strict=True) if h > 1.0]
    taken = [*tall, *fitter.shell.window_fronts, fitter.shell.doorway]
    for _ in range(int(rng.integers(2, 6))):
        wide, high = float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.3, 0.7))
        wall = int(rng.integers(4))
        length = fitter.shell.size[1 - wall % 2]
        along = float(rng.uniform(wide / 2 + 0.2, length - wide / 2 - 0.2))
        pose = fitter.shell.at_wall(wall, along, 0.004) @ place(0, 0, rng.uniform(1.45, 1.65), 0)
        ends = (pose @ np.array([[0, 0.3], [-wide / 2, wide / 2], [0, 0], [1, 1]]))[:2].T
        own = np.array([*(ends.min(0) - 0.05), *(ends.max(0) + 0.05)])
        if not any(_overlap(own, other) for other in taken):
            fitter.meshes.append(furniture.picture(rng, wide, high).moved(pose))
            taken.append(own)


def _light(fitter: _Fitter, rng: np.random.Generator) -> tuple[list[Lamp], list[Mesh]]:
    """Lit lamps and their shining shades."""
    x, y, z = fitter.shell.size
    warm = np.array([1.0, rng.uniform(0.68, 0.92), 0])
    warm[2] = warm[1] ** 2.3
    lamps, shades = [], []
    for at in [(x / 2, y / 2)] if max(x, y) < 5 else [(x * 0.3, y / 2), (x * 0.7, y / 2)]:
        drop = float(rng.choice([0.12, 0.45]))
        radius = 0.2 if drop < 0.2 else 0.24
        middle = (at[0], at[1], z - drop)
        lamps.append(Lamp(middle, tuple((warm * rng.uniform(1.6, 2.6)).tolist())))
        shades.append(furniture.lampshade(radius, 0.14, tuple(warm.tolist())).moved(place(*middle, 0)))
    tall = furniture.floor_lamp(1.45)
    if rng.random() < 0.5 and (pose := fitter.at_wall(tall, gap_m=0.12)) is not None:
        glow = pose @ place(0, 0, 1.55, 0)
        lamps.append(Lamp(tuple(glow[:3, 3].tolist()), tuple((warm * 0.8).tolist())))
        shades.append(furniture.lampshade(0.2, 0.28, tuple((0.9 * warm).tolist())).moved(glow))
    return lamps, shades


def _weather(rng: np.random.Generator, shell: Shell) -> tuple[float, tuple[NDArray[np.float64], float]]:
    """Radiance of the sky, and where the sun shines in from and how strongly."""
    inward = shell.inward(shell.window_walls[0])
    turn, rise = rng.uniform(-0.7, 0.7), np.radians(rng.uniform(22, 50))
    level = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ -inward
    sun = np.array([*(level * np.cos(rise)), np.sin(rise)])
    mood = rng.random()
    if mood < 0.2:
        return 0.02, (sun, 0.0)
    return float(rng.uniform(2.5, 6.0)), (sun, float(rng.uniform(6, 11)) if mood < 0.55 else 0.0)


def _people(fitter: _Fitter, rng: np.random.Generator) -> list[Occupant]:
    """Nobody to two people, seated or on their feet."""
    found: list[Occupant] = []
    seats, (x, y, _) = list(fitter.seats), fitter.shell.size
    for _ in range(int(rng.integers(0, 3))):
        look = random_look(rng)
        if seats and rng.random() < 0.5:
            found.append(Occupant(look, seats.pop(int(rng.integers(len(seats)))), True, 0.0, 0.0))
            continue
        for _ in range(12):
            spot = rng.uniform((0.6, 0.6), (x - 0.6, y - 0.6))
            own = np.array([*(spot - 0.42), *(spot + 0.42)])
            if not any(_overlap(own, f) for f in fitter.footprints):
                pose = place(*spot, 0.0, rng.uniform(0, 2 * np.pi))
                found.append(Occupant(look, pose, False, rng.uniform(0, 6), float(rng.choice([0.15, 0.7]))))
                fitter.footprints.append(own)
                fitter.heights.append(look.height_m)
                break
    return found
