"""Photos of people: a group in a room or a street, who of them is seen, and which of their joints.

Every photo has people, postures, camera and hindrances of its own; those of a scene share their place. Of one
person alone there are simpler photos: near, whole, and with nothing put in the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import in_image, invert_rigid, pose, project_points, transform_points
from omma.world.assets.furniture import FABRICS, WOODS, pick
from omma.world.assets.people import random_portrait
from omma.world.assets.postures import random_joints, sitting_joints
from omma.world.handheld import FOCAL_PER_WIDTH, looking
from omma.world.mesh import box, place
from omma.world.rooms import SEAT_M, Room, build_room
from omma.world.scene import Scene
from omma.world.sensors import PinholeCamera
from omma.world.stages import FIRST_GUEST, Guest, Photo, RoomStage, Somebody, Stage, StreetStage
from omma.world.town import build_scene

ABSENT, HIDDEN, SEEN = 0, 1, 2  # COCO's flags of joints
_ROOMS = 0.5  # share of the scenes
_TRIES = 200
_APART_M = 0.45  # between people
_NEAREST_M = 0.9  # to the camera
_CHEST = np.array([0, 0, 1.2])
_STOOL_M = 0.46
_SITTING = 0.12
_THINGS = 0.3  # share of the photos with something in the way
_FAR_GROUPS = 0.15  # share of the photos in streets
_SHARES = (0.28, 1.15)  # of the photo's height, a person's
_ALONE_SHARES = (0.5, 0.95)
_ALONE_TRIES = 12
# how far under the skin joints may lie, shares of the body height: nose, eyes, ears, shoulders, elbows, ...
_DEPTH = np.array([0.03, 0.03, 0.05, 0.09, 0.06, 0.05, 0.11, 0.07, 0.06])[(np.arange(17) + 1) // 2]

Points = NDArray[np.float64]


def build_place(seed: int, number: int) -> Room | Scene:
    """The place of scene `number` of the world with this seed, always the same."""
    indoors = np.random.default_rng([seed, number, 60]).random() < _ROOMS
    return build_room(seed, number) if indoors else build_scene(seed, number)


@dataclass(frozen=True)
class Portrait:
    """A person in a photo.

    Args:
        instance: number of the person.
        mask: (H, W) bool where the person is seen.
        joints: (17, 2) x, y in pixels; pixel (0, 0) covers the interval from 0 to 1.
        flags: (17,) uint8 `SEEN`, `HIDDEN` behind something or the own body, or `ABSENT`, outside the photo.
    """

    instance: int
    mask: NDArray[np.bool_]
    joints: Points
    flags: NDArray[np.uint8]


@dataclass(frozen=True)
class CrowdCapture:
    """A photo of people; what it holds is worked out when asked for.

    Args:
        scene: the place.
        seed: of the data set.
        split: "train" or "val".
        frame: number within the scene.
        time_s: seconds from the start, for the traffic.
        image_size: (H, W) of the photo.
    """

    scene: Room | Scene
    seed: int
    split: str
    frame: int
    time_s: float
    image_size: tuple[int, int]
    labelled_share: ClassVar[float] = 0.006  # people who cover less of the photo have no joints

    @cached_property
    def stage(self) -> Stage:
        """The place at this instant."""
        return RoomStage(self.scene) if isinstance(self.scene, Room) else StreetStage(self.scene, self.time_s)

    @cached_property
    def _arranged(self) -> tuple[list[Guest], PinholeCamera]:
        return arrange(self.stage, self._rng(1), self.image_size)

    @property
    def camera(self) -> PinholeCamera:
        """The camera of this photo."""
        return self._arranged[1]

    @cached_property
    def photo(self) -> Photo:
        """The photo."""
        return self.stage.take(*self._arranged, self._rng(2))

    @cached_property
    def portraits(self) -> list[Portrait]:
        """Everybody of whom a pixel is seen."""
        photo = self.photo
        seen = set(np.unique(photo.instance).tolist())
        return [_portrait(photo, self.camera, who) for who in photo.people if who.instance in seen]

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.scene.number, self.frame, 61, stream])


@dataclass(frozen=True)
class SoloCapture(CrowdCapture):
    """A photo of one person; arguments as of `CrowdCapture`. Passers-by of a street stay without joints."""

    labelled_share: ClassVar[float] = 0.03

    @cached_property
    def _arranged(self) -> tuple[list[Guest], PinholeCamera]:
        return arrange_one(self.stage, self._rng(1), self.image_size)


def _portrait(photo: Photo, camera: PinholeCamera, who: Somebody) -> Portrait:
    cam_T_scene = invert_rigid(camera.scene_T_cam)
    uv, depth_m = project_points(camera.intrinsics, transform_points(cam_T_scene, who.joints))
    flags = np.where(in_image(uv, depth_m, camera.image_size), joint_flags(photo, camera, who), ABSENT)
    return Portrait(who.instance, photo.instance == who.instance, uv, flags.astype(np.uint8))


def joint_flags(photo: Photo, camera: PinholeCamera, who: Somebody) -> NDArray[np.intp]:
    """(17,) `SEEN` where the ray to a joint first meets the own skin close to it, else `HIDDEN`."""
    eye = camera.scene_T_cam[:3, 3]
    ways = (who.joints - eye).T
    distance = np.linalg.norm(ways, axis=0)
    met, instance = photo.meet(eye, (ways / distance).astype(np.float32))
    seen = (instance == who.instance) & (met > distance - _DEPTH * who.height_m)
    return np.where(seen, SEEN, HIDDEN)


@dataclass(frozen=True)
class _View:
    """Where a camera stands and what it looks at, on the ground, and its focal length in pixels."""

    eye: Points
    centre: Points
    focal_px: float

    @property
    def ahead(self) -> Points:
        way = self.centre[:2] - self.eye[:2]
        return way / np.linalg.norm(way)


def arrange(
    stage: Stage, rng: np.random.Generator, image_size: tuple[int, int]
) -> tuple[list[Guest], PinholeCamera]:
    """People in a place, what stands in the way, and a camera that looks at them."""
    view = _look_for_room(stage, rng, image_size)
    spots = _spots(stage, view, rng)
    guests: list[Guest] = []
    for spot in spots:
        _add_person(guests, spot, view, rng)
    _seat_people(guests, stage, view, rng)
    if isinstance(stage, StreetStage) and rng.random() < _FAR_GROUPS:
        _add_far_group(guests, stage, view, rng)
    if rng.random() < _THINGS:
        _add_thing(guests, spots, view, rng)
    return guests, _aimed(view, spots, rng, image_size)


def arrange_one(
    stage: Stage, rng: np.random.Generator, image_size: tuple[int, int]
) -> tuple[list[Guest], PinholeCamera]:
    """Somebody in a place, and a camera that looks at them; they are wholly in the photo if tries allow."""
    for _ in range(_ALONE_TRIES):
        view = _look_for_room(stage, rng, image_size, shares=_ALONE_SHARES)
        guests: list[Guest] = []
        _add_person(guests, view.centre, view, rng)
        camera = _aimed(view, [view.centre], rng, image_size)
        if _is_whole(guests[-1], camera):
            break
    return guests, camera


def _is_whole(guest: Guest, camera: PinholeCamera) -> bool:
    """Whether every corner of somebody's surface is in the photo."""
    corners = transform_points(guest.scene_T_guest, guest.mesh.corners.reshape(-1, 3).astype(float))
    uv, depth_m = project_points(
        camera.intrinsics, transform_points(invert_rigid(camera.scene_T_cam), corners)
    )
    return bool(in_image(uv, depth_m, camera.image_size).all())


def _look_for_room(
    stage: Stage,
    rng: np.random.Generator,
    image_size: tuple[int, int],
    *,
    shares: tuple[float, float] = _SHARES,
) -> _View:
    """A place for the group and one for the camera, as far away as people should be small."""
    focal_px = FOCAL_PER_WIDTH * max(image_size) * float(np.exp(rng.uniform(np.log(0.8), np.log(1.7))))
    share = np.exp(rng.uniform(*np.log(shares)))  # a person's height over the photo's
    away = float(np.clip(1.7 * focal_px / (share * image_size[0]), 1.3, stage.farthest_m))
    for _ in range(_TRIES):
        spot, turn = stage.spot(rng), rng.uniform(0, 2 * np.pi)
        beside = spot + away * np.array([np.cos(turn), np.sin(turn)])
        heights = np.array([stage.floor(spot, 0.3), stage.floor(beside, 0.25)])
        centre, eye = (
            np.array([*xy, z]) for xy, z in zip((spot, beside), np.nan_to_num(heights), strict=True)
        )
        if not np.isnan(heights).any() and stage.clear(eye + _CHEST, centre + _CHEST):
            break
        away = max(0.98 * away, 1.2)
    return _View(eye, centre, focal_px)


def _spots(stage: Stage, view: _View, rng: np.random.Generator) -> list[Points]:
    """Places (3,) for people around the middle of the view, none of them where the camera is."""
    wanted = min(1 + int(rng.poisson(1.7)), 7)
    spots = [view.centre]
    for _ in range(6 * wanted):
        if len(spots) >= wanted:
            break
        reach, turn = (0.4 + 0.4 * wanted) * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        xy = view.centre[:2] + reach * np.array([np.cos(turn), np.sin(turn)])
        apart = min(np.linalg.norm(xy - other[:2]) for other in spots)
        z = stage.floor(xy, 0.26)
        if apart > _APART_M and np.linalg.norm(xy - view.eye[:2]) > _NEAREST_M and not np.isnan(z):
            spots.append(np.array([*xy, z]))
    return spots


def _add_person(guests: list[Guest], spot: Points, view: _View, rng: np.random.Generator) -> None:
    """Somebody who mostly faces the camera more or less; some sit on a stool."""
    to_eye = view.eye[:2] - spot[:2]
    yaw = np.arctan2(to_eye[1], to_eye[0]) + rng.normal(0, 0.7)
    if rng.random() < 0.45:
        yaw = rng.uniform(0, 2 * np.pi)
    look, at = random_portrait(rng), place(*spot, float(yaw))
    if rng.random() < _SITTING:
        joints = sitting_joints(rng, look.height_m, _STOOL_M)
        size = (0.38, 0.4, _STOOL_M)
        stool = box(size, (-0.02, 0, _STOOL_M / 2), pick(rng, WOODS))
        guests.append(Guest(FIRST_GUEST + len(guests), stool, at))
    else:
        joints = random_joints(rng, look.height_m)
    guests.append(Guest.person(FIRST_GUEST + len(guests), look, joints, at))


def _seat_people(guests: list[Guest], stage: Stage, view: _View, rng: np.random.Generator) -> None:
    """People on some of the seats before the camera."""
    for seat in stage.seats:
        ahead = (seat[:2, 3] - view.eye[:2]) @ view.ahead
        if ahead > 0.8 and rng.random() < 0.5:
            look = random_portrait(rng)
            joints = sitting_joints(rng, look.height_m, SEAT_M)
            guests.append(Guest.person(FIRST_GUEST + len(guests), look, joints, seat))


def _add_far_group(guests: list[Guest], stage: Stage, view: _View, rng: np.random.Generator) -> None:
    """A crowd in the background, too small to tell its people apart."""
    aside = np.array([-view.ahead[1], view.ahead[0]])
    middle = view.centre[:2] + rng.uniform(10, 18) * view.ahead + rng.normal(0, 1.5) * aside
    for _ in range(int(rng.integers(8, 14))):
        xy = middle + rng.normal(0, 1.1, 2)
        z = stage.floor(xy, 0.2)
        if not np.isnan(z):
            look = random_portrait(rng)
            at = place(*xy, z, rng.uniform(0, 2 * np.pi))
            joints = random_joints(rng, look.height_m)
            guests.append(Guest.person(FIRST_GUEST + len(guests), look, joints, at))


def _add_thing(guests: list[Guest], spots: list[Points], view: _View, rng: np.random.Generator) -> None:
    """A crate, wall or board between the camera and somebody, unless people stand there."""
    goal = spots[int(rng.integers(len(spots)))]
    xy = view.eye[:2] + rng.uniform(0.4, 0.8) * (goal[:2] - view.eye[:2]) + rng.normal(0, 0.25, 2)
    size = rng.uniform((0.2, 0.3, 0.45), (0.5, 1.3, 1.25))
    beside = min(float(np.linalg.norm(xy - spot[:2])) for spot in spots)
    reach = float(np.hypot(*size[:2])) / 2
    if min(beside - 0.3, float(np.linalg.norm(xy - view.eye[:2])) - 0.5) < reach:
        return
    colour = pick(rng, WOODS if rng.random() < 0.5 else FABRICS)
    yaw = np.arctan2(view.ahead[1], view.ahead[0]) + rng.normal(0, 0.5)
    thing = box(size, (0, 0, size[2] / 2), colour)
    guests.append(Guest(FIRST_GUEST + len(guests), thing, place(*xy, view.centre[2], float(yaw))))


def _aimed(
    view: _View, spots: list[Points], rng: np.random.Generator, image_size: tuple[int, int]
) -> PinholeCamera:
    """A camera at the view's eye that looks at the group or at one of it."""
    height, width = image_size
    goal = np.mean(spots, axis=0) if rng.random() < 0.6 else spots[int(rng.integers(len(spots)))]
    up = rng.uniform(0.8, 1.8) if rng.random() < 0.85 else rng.uniform(1.8, 2.3)
    eye = view.eye + np.array([0, 0, up])
    way = goal + np.array([0, 0, rng.uniform(0.7, 1.2)]) - eye
    sway = rng.normal(0, (0.12, 0.06, 0.04)) * (max(image_size) / view.focal_px)
    yaw, pitch = np.arctan2(way[1], way[0]), np.arctan2(way[2], np.hypot(way[0], way[1]))
    intrinsics = np.array([[view.focal_px, 0, width / 2], [0, view.focal_px, height / 2], [0, 0, 1]])
    rotation = looking(float(yaw + sway[0]), float(pitch + sway[1]), float(sway[2]))
    return PinholeCamera(intrinsics, image_size, pose(rotation, eye))
