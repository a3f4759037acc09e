"""Who is in the streets and how they move: flowing and waiting traffic, parked cars, people on foot.

Traffic along u has green, traffic along v waits at its stop lines. All of a lane moves alike, so nobody runs
into anybody; everybody comes to rest within `TRAVEL_M`, so that a scene needs a bounded town however long it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from omma.world.assets.people import Look, person, random_look, riding_joints, walking_joints
from omma.world.assets.scenery import barrier, traffic_cone
from omma.world.assets.vehicles import CAR_STYLES, PAINTS, bicycle, bus, car, motorcycle, truck
from omma.world.mesh import Float, Mesh, place
from omma.world.scene import EGO_INSTANCE, Actor, Shape
from omma.world.streets import (
    CORNER_M,
    CROSSWALK_M,
    CURB_HEIGHT_M,
    Bend,
    Block,
    Plan,
    Points,
    Street,
)

TRAVEL_M = 80.0
BUSY_U_M = (-100.0, 180.0)
BUSY_V_M = (-88.0, 88.0)
_BUS_PAINTS = ((0.5, 0.06, 0.05), (0.62, 0.42, 0.03), (0.05, 0.2, 0.42), (0.1, 0.33, 0.2))
_SEATS = {
    # seat, left grip, left foot in the frame of the two-wheeler, metres
    "motorcycle": ((-0.28, 0.0, 0.88), (0.40, 0.33, 1.05), (0.02, 0.2, 0.36)),
    "bicycle": ((-0.22, 0.0, 1.04), (0.40, 0.25, 1.05), (0.0, 0.13, 0.26)),
}


@dataclass(frozen=True)
class Way:
    """A way along a street.

    Args:
        bend: map of the scene.
        street: the street.
        sign: 1 along growing s, -1 against it.
        aside_m: place across the street, to the left of growing s.
        start_m: s at time 0.
        speed: metres per second at time 0.
        reach_m: where the movement comes to rest, metres from the start.
        z_m: height of the surface.
        turn: radians added to the direction of the street.
    """

    bend: Bend
    street: Street
    sign: int
    aside_m: float
    start_m: float
    speed: float = 0.0
    reach_m: float = TRAVEL_M
    z_m: float = 0.0
    turn: float = 0.0

    @property
    def parks(self) -> bool:
        """Whether it is a place in a parking strip."""
        return self.speed == 0 and abs(self.aside_m) > self.street.half_m - self.street.parking_m

    def __call__(self, time_s: float) -> NDArray[np.float64]:
        """Pose (4, 4) in the scene frame."""
        uv = self.street.uv(
            self.start_m + self.sign * travelled(time_s, self.speed, self.reach_m), self.aside_m
        )
        yaw = self.bend.yaw(uv, self.street.along, self.sign) + self.turn
        return place(*self.bend.xy(uv), self.z_m, yaw)


def travelled(time_s: float, speed: float, reach_m: float = TRAVEL_M) -> float:
    """Metres gone after a time at an initial speed when coming to rest smoothly at `reach_m`."""
    return float(reach_m * np.tanh(speed * time_s / reach_m))


def populate(rng: np.random.Generator, plan: Plan) -> tuple[Actor, list[Actor], list[Points]]:
    """Fill the streets.

    Args:
        rng: source of the draw.
        plan: streets and blocks.

    Returns:
        The ego vehicle, everybody else, and the (4, 2) polygons of road works in the scene frame.
    """
    crowd = _Crowd()
    ego_lane = int(rng.integers(plan.main.lanes))
    ego_speed = float(rng.uniform(5, 11))
    aside = -(ego_lane + 0.5) * plan.main.lane_m
    ego = Actor(
        EGO_INSTANCE,
        "car",
        "vehicle.ego",
        _fixed(car("sedan", 0).painted(PAINTS[0])),
        Way(plan.bend, plan.main, 1, aside, 0.0, ego_speed),
        rests=False,
    )
    works, hazards = _road_works(rng, plan)
    for street in plan.streets:
        _moving_or_waiting(rng, plan, street, crowd, (ego_lane, ego_speed))
        _parked(rng, plan, street, crowd, works)
        _bicycles(rng, plan, street, crowd)
    for block in plan.blocks:
        _on_foot(rng, plan, block, crowd)
    _crossing(rng, plan, crowd)
    _cones(plan, works, crowd)
    return ego, crowd.actors, hazards


class _Crowd:
    """Collects actors and numbers them."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []

    def add(
        self,
        class_name: str,
        kind: str,
        shape: Callable[[float, int], Shape],
        path: Way,
        rests: bool | None = None,
    ) -> None:
        """Append an actor; by default it rests if its path does not move."""
        instance = EGO_INSTANCE + 1 + len(self.actors)
        still = path.speed == 0 if rests is None else rests
        self.actors.append(Actor(instance, class_name, kind, shape, path, still))


def _fixed(mesh: Mesh) -> Callable[[float, int], Shape]:
    return partial(_always, Shape(mesh))


def _always(shape: Shape, _time_s: float, _sides: int) -> Shape:
    return shape


def _sitting(look: Look, joints: Float, _time_s: float, sides: int) -> Shape:
    return Shape(person(look, joints, sides), joints)


def _draw_car(rng: np.random.Generator) -> tuple[str, str, Mesh]:
    style = str(rng.choice(list(CAR_STYLES), p=[0.3, 0.25, 0.25, 0.1, 0.1]))
    return (
        "car",
        f"vehicle.{style}",
        car(style, int(rng.integers(3))).painted(PAINTS[rng.integers(len(PAINTS))]),
    )


def _draw_vehicle(rng: np.random.Generator) -> tuple[str, str, Mesh]:
    which = rng.random()
    if which < 0.07:
        return (
            "truck",
            "vehicle.box_truck",
            truck(int(rng.integers(8))).painted(PAINTS[rng.integers(len(PAINTS))]),
        )
    if which < 0.12:
        return "bus", "vehicle.city_bus", bus(int(rng.integers(4))).painted(_BUS_PAINTS[rng.integers(4)])
    if which < 0.18:
        return "motorcycle", "vehicle.motorcycle", motorcycle().painted(PAINTS[rng.integers(len(PAINTS))])
    return _draw_car(rng)


def _add_vehicle(rng: np.random.Generator, crowd: _Crowd, drawn: tuple[str, str, Mesh], way: Way) -> None:
    class_name, kind, mesh = drawn
    crowd.add(class_name, kind, _fixed(mesh), way)
    if class_name in _SEATS:
        look = random_look(rng, helmet=class_name == "motorcycle" or rng.random() < 0.4)
        seat, grip, foot = (np.array(p) for p in _SEATS[class_name])
        joints = riding_joints(max(look.height_m, 1.55), seat, grip, foot)
        crowd.add("rider", f"rider.{class_name}", partial(_sitting, look, joints), way)


def _moving_or_waiting(
    rng: np.random.Generator, plan: Plan, street: Street, crowd: _Crowd, ego: tuple[int, float]
) -> None:
    ego_lane, ego_speed = ego
    for sign in (-1, 1):
        for lane in range(street.lanes):
            aside = -sign * (lane + 0.5) * street.lane_m
            if street.along == 1:
                _queues(rng, plan, street, crowd, (sign, aside))
                continue
            with_ego = street is plan.main and sign == 1 and lane == ego_lane
            speed = ego_speed if with_ego else float(rng.uniform(5, 12))
            # those who come towards the ego vehicle start farther ahead, so as to meet it during the scene
            busy = (-15.0, 15.0) if sign > 0 else (-12.0, 55.0)
            gap = rng.uniform(6, 15) if street is plan.main else rng.uniform(40, 90)
            for start, drawn in _convoy(rng, busy if street is plan.main else None, float(gap)):
                if with_ego and abs(start) < 8 + np.ptp(drawn[2].bounds()[:, 0]) / 2:
                    continue
                sway = float(rng.normal(0, 0.12))
                # whoever is ahead is faster, so that distances change and only grow
                own = speed * float(np.clip(1 + 0.008 * sign * start, 0.6, 1.5))
                _add_vehicle(rng, crowd, drawn, Way(plan.bend, street, sign, aside + sway, start, own))


def _convoy(
    rng: np.random.Generator, busy: tuple[float, float] | None, mean_gap_m: float
) -> Iterator[tuple[float, tuple[str, str, Mesh]]]:
    """Vehicles along a lane with their places; gaps are wider outside the busy part, if there is one."""
    span = BUSY_U_M[0] - TRAVEL_M, BUSY_U_M[1] + TRAVEL_M
    position = span[0] + rng.uniform(0, 20)
    while True:
        drawn = _draw_vehicle(rng)
        length = float(np.ptp(drawn[2].bounds()[:, 0]))
        position += length / 2
        if position > span[1]:
            return
        yield position, drawn
        aside = max(busy[0] - position, position - busy[1], 0.0) if busy else 0.0
        position += length / 2 + 3.5 + rng.exponential(mean_gap_m * min(1 + aside / 4, 5))


def _queues(
    rng: np.random.Generator, plan: Plan, street: Street, crowd: _Crowd, lane: tuple[int, float]
) -> None:
    sign, aside = lane
    for start, end in plan.stretches(street):
        front, back = (end, start) if sign > 0 else (start, end)
        position = front - sign * rng.uniform(0.6, 1.5)
        for _ in range(int(rng.integers(0, 3))):
            drawn = _draw_vehicle(rng)
            length = float(np.ptp(drawn[2].bounds()[:, 0]))
            if sign * (position - back) < length + 2 or abs(position) > BUSY_V_M[1]:
                break
            middle = position - sign * length / 2
            _add_vehicle(rng, crowd, drawn, Way(plan.bend, street, sign, aside, middle))
            position -= sign * (length + rng.uniform(1.2, 3.0))


def _parked(rng: np.random.Generator, plan: Plan, street: Street, crowd: _Crowd, works: list[_Works]) -> None:
    if street.parking_m == 0:
        return
    busy = rng.uniform(0.15, 0.45) if street is plan.main else rng.uniform(0.05, 0.25)
    for sign in (-1, 1):
        aside = -sign * (street.half_m - street.parking_m / 2 - 0.05)
        closed = [w for w in works if w.street is street and w.sign == sign]
        for start, end in plan.stretches(street):
            for slot in np.arange(start + 4, end - 4, 6.3):
                chance = busy if street is not plan.main or -20 < slot < 65 else 0.3 * busy
                if rng.random() > chance or any(w.start - 4 < slot < w.end + 4 for w in closed):
                    continue
                uv = street.uv(slot, aside)
                if (uv < (BUSY_U_M[0], BUSY_V_M[0])).any() or (uv > (BUSY_U_M[1], BUSY_V_M[1])).any():
                    continue
                turn, sway = float(rng.normal(0, 0.025)), float(rng.normal(0, 0.06))
                way = Way(plan.bend, street, sign, aside + sway, float(slot + rng.normal(0, 0.25)), turn=turn)
                _add_vehicle(rng, crowd, _draw_car(rng), way)


def _bicycles(rng: np.random.Generator, plan: Plan, street: Street, crowd: _Crowd) -> None:
    for sign in (-1, 1):
        aside = -sign * (street.lanes * street.lane_m + street.shoulder_m / 2)
        drawn = "bicycle", "vehicle.bicycle", bicycle()
        if street.along == 0:
            speed = float(rng.uniform(3, 6))
            mean = 70 if street is plan.main else 160
            position = BUSY_U_M[0] + rng.exponential(mean)
            while position < BUSY_U_M[1]:
                painted = (*drawn[:2], drawn[2].painted(PAINTS[rng.integers(len(PAINTS))]))
                _add_vehicle(rng, crowd, painted, Way(plan.bend, street, sign, aside, float(position), speed))
                position += 4 + rng.exponential(mean)


def _on_foot(rng: np.random.Generator, plan: Plan, block: Block, crowd: _Crowd) -> None:
    low = np.maximum(block.low, (BUSY_U_M[0], BUSY_V_M[0])) + CORNER_M
    high = np.minimum(block.high, (BUSY_U_M[1], BUSY_V_M[1])) - CORNER_M
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1)):
        border = (block.low if sign < 0 else block.high)[1 - axis]
        length = high[axis] - low[axis]
        if abs(border) > 130 + 115 * axis or length < 10:
            continue
        lively = 18 if axis == 0 and abs(border) < plan.main.half_m + 1 else 110
        for _ in range(rng.poisson(length / lively)):
            inset = rng.uniform(1.7, block.sidewalk_m - 0.4)
            start, direction = rng.uniform(low[axis], high[axis]), int(rng.choice([-1, 1]))
            room = (high[axis] - start) if direction > 0 else (start - low[axis])
            walks = rng.random() < 0.8 and room > 3
            # a line beside the border serves as the walker's own street
            line = Street(axis, border - sign * inset, 0, 0.0, 0.0, 0.0)
            speed = float(rng.uniform(0.9, 1.6)) if walks else 0.0
            turn = 0.0 if walks else float(rng.uniform(0, 6.28))
            way = Way(plan.bend, line, direction, 0.0, float(start), speed, float(room), CURB_HEIGHT_M, turn)
            _add_walker(rng, crowd, way)


def _add_walker(rng: np.random.Generator, crowd: _Crowd, way: Way) -> None:
    look, phase = random_look(rng), float(rng.uniform(0, 6.28))
    crowd.add("pedestrian", "walker.pedestrian", partial(_walking, look, phase, way.speed, way.reach_m), way)


def _walking(look: Look, phase: float, speed: float, reach_m: float, time_s: float, sides: int) -> Shape:
    turn = 2 * np.pi * travelled(time_s, speed, reach_m) / (0.83 * look.height_m)
    joints = walking_joints(look.height_m, phase + turn, stride=0.85 if speed else 0.08)
    return Shape(person(look, joints, sides), joints)


def _crossing(rng: np.random.Generator, plan: Plan, crowd: _Crowd) -> None:
    """People who cross the waiting streets beside the ego's street."""
    for street in plan.crossings(plan.main):
        for side in (-1, 1):
            near = side * (plan.main.half_m + CORNER_M + CROSSWALK_M / 2)
            for _ in range(rng.poisson(0.9)):
                direction = int(rng.choice([-1, 1]))
                line = Street(0, near + rng.uniform(-1.1, 1.1), 0, 0.0, 0.0, 0.0)
                offset = rng.uniform(-0.9, 0.6) * street.half_m
                room = float(street.half_m - offset - 0.3)
                way = Way(
                    plan.bend, line, direction, 0.0, float(street.offset_m + direction * offset), 1.3, room
                )
                _add_walker(rng, crowd, way)


@dataclass(frozen=True)
class _Works:
    """Road works in a parking strip: street, its side, from and to along it."""

    street: Street
    sign: int
    start: float
    end: float


def _road_works(rng: np.random.Generator, plan: Plan) -> tuple[list[_Works], list[Points]]:
    works: list[_Works] = []
    for start, end in plan.stretches(plan.main):
        if plan.main.parking_m and end - start > 40 and rng.random() < 0.3:
            begin = rng.uniform(start + 5, end - 25)
            works.append(_Works(plan.main, int(rng.choice([-1, 1])), begin, begin + rng.uniform(10, 18)))
    hazards = []
    for w in works:
        strip = (w.street.half_m - w.street.parking_m, w.street.half_m)
        aside = (-strip[1], -strip[0]) if w.sign > 0 else strip
        hazards += list(plan.bend.xy(w.street.quads((w.start, w.end), aside)))
    return works, hazards


def _cones(plan: Plan, works: list[_Works], crowd: _Crowd) -> None:
    for w in works:
        inner, middle = w.street.half_m - w.street.parking_m + 0.3, w.street.half_m - w.street.parking_m / 2
        for s in np.arange(w.start, w.end + 0.1, 2.5):
            way = Way(plan.bend, w.street, w.sign, -w.sign * inner, float(s))
            crowd.add("traffic_cone", "static.prop.traffic_cone", _fixed(traffic_cone()), way)
        for s in (w.start + 0.8, w.end - 0.8):
            way = Way(plan.bend, w.street, w.sign, -w.sign * middle, float(s))
            crowd.add("barrier", "static.prop.barrier", _fixed(barrier()), way)
