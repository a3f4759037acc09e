"""Panoramas of streets and rooms with known content: cars, people and what else stands around the camera.

Equirectangular, longitude -180 at the left edge, straight ahead in the middle. Around a street's camera every
quarter (front, right, behind, left) holds at most one vehicle, wholly inside the quarter; the town's own
traffic is out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose, transform_points
from omma.world.assets.people import random_portrait
from omma.world.assets.postures import standing_joints
from omma.world.assets.vehicles import CAR_STYLES, bus, car, motorcycle, truck
from omma.world.handheld import looking
from omma.world.mesh import Colour, Float, Mesh, place
from omma.world.rooms import Room, build_room
from omma.world.scene import Scene, Shape
from omma.world.sensors import PinholeCamera
from omma.world.stages import FIRST_GUEST, Guest, Photo, RoomStage, Stage, StreetStage
from omma.world.town import build_scene

DIRECTIONS = ("front", "right", "behind", "left")  # 0, 90, 180 and -90 degrees
COLOURS: dict[str, Colour] = {
    "red": (0.5, 0.02, 0.02),
    "green": (0.03, 0.26, 0.06),
    "blue": (0.02, 0.08, 0.42),
    "yellow": (0.65, 0.46, 0.03),
    "white": (0.75, 0.76, 0.77),
    "black": (0.015, 0.015, 0.018),
}
VEHICLES = ("car", "truck", "bus", "motorcycle")
PERSON = "person"
MOST_PEOPLE = 4
_KIND_SHARES = {
    "car": 0.58,
    "truck": 0.07,
    "bus": 0.07,
    "motorcycle": 0.1,
}  # of the quarters; others are empty
_DISTANCE_M = {"car": (5.0, 9.0), "truck": (8.0, 14.0), "bus": (9.0, 16.0), "motorcycle": (3.0, 5.5)}
_PEOPLE_M = {"street": (2.4, 6.0), "room": (1.1, 4.5)}
_QUARTER_DEG = 43.0  # a vehicle's corners, from the middle of its quarter
_PERSON_DEG = 40.0
_APART_DEG = 15.0  # between people
_BESIDE_DEG = 5.0  # half a person's width
_BODY = np.array([0.35, 0.65, 0.9])  # heights of what has to be seen of a person
_EYE_M = {"street": 1.75, "room": 1.5}
_TRIES, _ARRANGEMENTS = 24, 6
_SEEN_SHARE = 0.6  # of the points of a thing that nothing hides
_FEWEST_PX = 3
_ROOMS = 0.35  # share of the scenes

Points = NDArray[np.float64]


class PanoramaCamera(PinholeCamera):
    """A camera that sees everything around it; its `depth_m` is the distance along the ray."""

    @classmethod
    def at(cls, scene_T_cam: Points, image_size: tuple[int, int]) -> PanoramaCamera:
        """A camera with a pose (4, 4) and pictures of (H, W), where W = 2 H."""
        height, width = image_size
        per_radian = width / (2 * np.pi)
        intrinsics = np.array([[per_radian, 0, width / 2], [0, per_radian, height / 2], [0, 0, 1]])
        return cls(intrinsics, image_size, scene_T_cam)

    def rays(self, uv: Float) -> tuple[Float, Float]:
        """See PinholeCamera; (N,) is one everywhere."""
        height, width = self.image_size
        longitude = (uv[0] / width - np.float32(0.5)) * np.float32(2 * np.pi)
        latitude = (np.float32(0.5) - uv[1] / height) * np.float32(np.pi)
        level = np.cos(latitude)
        ways = np.stack([level * np.sin(longitude), -np.sin(latitude), level * np.cos(longitude)])
        return self.scene_T_cam[:3, :3].astype(np.float32) @ ways, np.ones_like(level)

    def covered(self, boxes: object, margin_px: int = 2) -> NDArray[np.bool_]:
        """See PinholeCamera; every pixel."""
        del boxes, margin_px
        return np.ones(self.image_size, bool)


@dataclass(frozen=True)
class Thing:
    """Something around the camera.

    Args:
        kind: one of `VEHICLES`, or `PERSON`.
        colour: key of `COLOURS` for a car, else None.
        direction: one of `DIRECTIONS`.
        azimuth_deg: of its middle, to the right of straight ahead, -180 to 180.
        half_deg: how far it reaches to either side of that.
        distance_m: of its middle.
        guest: its body.
    """

    kind: str
    colour: str | None
    direction: str
    azimuth_deg: float
    half_deg: float
    distance_m: float
    guest: Guest


@dataclass(frozen=True)
class PanoramaCapture:
    """A panorama; what it holds is worked out when asked for.

    Args:
        scene: the place.
        seed: of the data set.
        split: "train", "val" or "test".
        frame: number within the scene.
        time_s: seconds from the start, for the way along the street.
        image_size: (H, W) of the panorama.
    """

    scene: Room | Scene
    seed: int
    split: str
    frame: int
    time_s: float
    image_size: tuple[int, int]

    @property
    def place(self) -> str:
        """Kind of the scene: "street" or "room"."""
        return "room" if isinstance(self.scene, Room) else "street"

    @property
    def things(self) -> list[Thing]:
        """What is around the camera; all of it is seen."""
        return self._taken[0]

    @property
    def photo(self) -> Photo:
        """The panorama."""
        return self._taken[2]

    @property
    def camera(self) -> PanoramaCamera:
        """Where it was taken."""
        return self._taken[1]

    def rng(self, stream: int) -> np.random.Generator:
        """Randomness of this panorama."""
        return np.random.default_rng([self.seed, self.scene.number, self.frame, 71, stream])

    @cached_property
    def stage(self) -> Stage:
        """The place at this instant."""
        return RoomStage(self.scene) if isinstance(self.scene, Room) else StreetStage(self.scene, self.time_s)

    @cached_property
    def _taken(self) -> tuple[list[Thing], PanoramaCamera, Photo]:
        for attempt in range(_ARRANGEMENTS):
            rng = self.rng(2 * attempt)
            eye, yaw = self._viewpoint(rng)
            camera = PanoramaCamera.at(pose(looking(yaw, 0.0, 0.0), eye), self.image_size)
            # the last attempt takes nothing, so that there is nothing to hide
            things = _arrange(self.stage, self.place, eye, yaw, rng) if attempt + 1 < _ARRANGEMENTS else []
            photo = self.stage.take([thing.guest for thing in things], camera, self.rng(2 * attempt + 1))
            pixels = np.bincount(np.maximum(photo.instance.ravel() - FIRST_GUEST + 1, 0))
            if len(pixels) > len(things) and (pixels[1:] >= _FEWEST_PX).all():
                break
        return things, camera, photo

    def _viewpoint(self, rng: np.random.Generator) -> tuple[Points, float]:
        """Eye (3,) and direction in radians; in a street along it or across, more or less."""
        height = _EYE_M[self.place] + rng.uniform(-0.1, 0.1)
        if isinstance(self.scene, Room):
            spots = [self.stage.spot(rng) for _ in range(_TRIES)]
            roomy = [self.scene.clearance_m(spot) for spot in spots]
            return np.array([*spots[int(np.argmax(roomy))], height]), float(rng.uniform(-np.pi, np.pi))
        ego = self.scene.ego.path(self.time_s)
        along = np.arctan2(ego[1, 0], ego[0, 0])
        turn = np.radians(90.0 * rng.integers(4) + rng.uniform(-12, 12))
        eye = ego[:3, 3] + ego[:3, :3] @ np.array([0, rng.uniform(-0.8, 0.8), height])
        return eye, float(along + turn)


def build_place(seed: int, number: int) -> Room | Scene:
    """The place of scene `number` of the world with this seed, always the same; streets are empty."""
    if np.random.default_rng([seed, number, 70]).random() < _ROOMS:
        return build_room(seed, number)
    return replace(build_scene(seed, number), actors=())


def _arrange(stage: Stage, where: str, eye: Points, yaw: float, rng: np.random.Generator) -> list[Thing]:
    """Vehicles, at most one a quarter, and people."""
    around = _Around(stage, where, eye, yaw)
    things: list[Thing] = []
    if where == "street":
        for direction in DIRECTIONS:
            kinds, shares = zip(*_KIND_SHARES.items(), strict=True)
            kind = str(rng.choice([*kinds, ""], p=[*shares, 1 - sum(shares)]))
            things += around.vehicle(kind, direction, len(things), rng) if kind else []
    for _ in range(int(rng.integers(MOST_PEOPLE + 1))):
        things += around.person(things, rng)
    return things


@dataclass(frozen=True)
class _Around:
    """Places around a camera."""

    stage: Stage
    where: str
    eye: Points
    yaw: float

    def vehicle(self, kind: str, direction: str, number: int, rng: np.random.Generator) -> list[Thing]:
        """A vehicle in a quarter, none where there is no room."""
        colour = str(rng.choice(list(COLOURS))) if kind == "car" else None
        mesh = _vehicle_mesh(kind, colour, rng)
        for _ in range(_TRIES):
            middle = 90.0 * DIRECTIONS.index(direction) + rng.uniform(-10, 10)
            xy = self._spot(middle, rng.uniform(*_DISTANCE_M[kind]))
            heading = self.yaw + np.pi / 2 * rng.integers(4) + rng.normal(0, 0.15)
            at = self._fitted(mesh, xy, float(heading))
            if at is None:
                continue
            corners = transform_points(at, Shape(mesh).corners)
            azimuths = self._azimuths(corners)
            apart = _turn(azimuths - 90.0 * DIRECTIONS.index(direction))
            if np.abs(apart).max() < _QUARTER_DEG and self._seen(corners):
                ends = apart.min(), apart.max()
                centre = _turn(90.0 * DIRECTIONS.index(direction) + sum(ends) / 2)
                away = float(np.linalg.norm(xy - self.eye[:2]))
                guest = Guest(FIRST_GUEST + number, mesh, at)
                return [Thing(kind, colour, direction, float(centre), float(np.ptp(ends) / 2), away, guest)]
        return []

    def person(self, things: list[Thing], rng: np.random.Generator) -> list[Thing]:
        """Somebody whom nothing hides, nobody where there is no room."""
        look = random_portrait(rng)
        joints = standing_joints(rng, look.height_m, "stand")
        for _ in range(_TRIES):
            direction = DIRECTIONS[int(rng.integers(len(DIRECTIONS)))]
            azimuth = 90.0 * DIRECTIONS.index(direction) + rng.uniform(-_PERSON_DEG, _PERSON_DEG)
            away = float(rng.uniform(*_PEOPLE_M[self.where]))
            xy = self._spot(azimuth, away)
            z = self.stage.floor(xy, 0.3)
            if np.isnan(z) or not _free(things, azimuth):
                continue
            feet = np.array([*xy, z])
            body = feet + np.array([0, 0, look.height_m]) * _BODY[:, None]
            if all(self.stage.clear(self.eye, point) for point in body):
                at = place(*feet, float(rng.uniform(0, 2 * np.pi)))
                guest = Guest.person(FIRST_GUEST + len(things), look, joints, at)
                half = np.degrees(0.3 / away)
                return [Thing(PERSON, None, direction, float(_turn(azimuth)), float(half), away, guest)]
        return []

    def _spot(self, azimuth_deg: float, away: float) -> Points:
        """Place (2,) so far to the right of straight ahead."""
        angle = self.yaw - np.radians(azimuth_deg)
        return self.eye[:2] + away * np.array([np.cos(angle), np.sin(angle)])

    def _azimuths(self, points: Points) -> Points:
        """Degrees to the right of straight ahead of (n, 3) points."""
        ways = points[:, :2] - self.eye[:2]
        return _turn(np.degrees(self.yaw - np.arctan2(ways[:, 1], ways[:, 0])))

    def _fitted(self, mesh: Mesh, xy: Points, heading: float) -> Points | None:
        """Pose of a vehicle on even, free ground."""
        low, high = mesh.bounds().astype(float)
        half = (high[1] - low[1]) / 2
        along = np.linspace(low[0] + half, high[0] - half, max(2, round((high[0] - low[0]) / 1.2)))
        way = np.array([np.cos(heading), np.sin(heading)])
        heights = [self.stage.floor(xy + s * way, half + 0.15) for s in along]
        if np.isnan(heights).any() or np.ptp(heights) > 0.05:
            return None
        return place(*xy, float(np.mean(heights)), heading)

    def _seen(self, corners: Points) -> bool:
        """Whether nothing of the place hides much of a box (8, 3)."""
        shares = np.array([(a, b, c) for a in (0.2, 0.5, 0.8) for b in (0.2, 0.8) for c in (0.3, 0.8)])
        first, ahead, left, up = corners[0], corners[4], corners[2], corners[1]
        points = first + shares @ np.stack([ahead - first, left - first, up - first])
        return float(np.mean([self.stage.clear(self.eye, point) for point in points])) > _SEEN_SHARE


def _free(things: list[Thing], azimuth_deg: float) -> bool:
    """Whether somebody there hides nothing, and is not hidden."""
    for thing in things:
        reach = _APART_DEG if thing.kind == PERSON else thing.half_deg + _BESIDE_DEG
        if abs(_turn(azimuth_deg - thing.azimuth_deg)) < reach:
            return False
    return True


def _turn(degrees: Points | float) -> Points:
    """Angles as -180 to 180."""
    return (np.asarray(degrees, float) + 180) % 360 - 180


def _vehicle_mesh(kind: str, colour: str | None, rng: np.random.Generator) -> Mesh:
    if colour is not None:
        style = str(rng.choice(list(CAR_STYLES)))
        return car(style, int(rng.integers(3))).painted(COLOURS[colour])
    paint = list(COLOURS.values())[int(rng.integers(len(COLOURS)))]
    made = {"truck": lambda: truck(int(rng.integers(8))), "bus": lambda: bus(int(rng.integers(4)))}
    return made.get(kind, motorcycle)().painted(paint)
