"""A camera in somebody's hands in a room, and one frame of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose
from omma.world.indoors import IndoorRenderer, Shot
from omma.world.rooms import Room
from omma.world.sensors import PinholeCamera
from omma.world.structured_light import Measured, measure

FOCAL_PER_WIDTH = 0.81  # as of NYU's camera, 519 of 640 pixels
FRAMES_A_STATION = 3  # then the camera goes elsewhere in the room
_TRIES = 40
_ROOMY_M = 0.35
_PERSON_M = 1.6  # no nearer to people if it can be helped


@dataclass(frozen=True)
class RoomCapture:
    """A frame of a room; what it holds is worked out when asked for.

    Args:
        scene: the room.
        seed: of the data set.
        split: "train" or "val".
        frame: number within the room.
        time_s: seconds from the start.
        image_size: (H, W) of the pictures.
    """

    scene: Room
    seed: int
    split: str
    frame: int
    time_s: float
    image_size: tuple[int, int]

    @cached_property
    def renderer(self) -> IndoorRenderer:
        """Renders this instant."""
        return IndoorRenderer(self.scene, self.time_s)

    @cached_property
    def camera(self) -> PinholeCamera:
        """The camera at this instant."""
        intrinsics = handheld_intrinsics(self.image_size)
        return PinholeCamera(intrinsics, self.image_size, self._scene_T_cam())

    @cached_property
    def shot(self) -> Shot:
        """The picture with its true depth."""
        return self.renderer.shoot(self.camera, self._rng(1))

    def measured(self) -> Measured:
        """The picture's depth as the sensor measures it."""
        return measure(self.renderer, self.shot, self.camera, self._rng(2))

    def _scene_T_cam(self) -> NDArray[np.float64]:  # noqa: N802  a pose is named to_T_from
        station = np.random.default_rng([self.seed, self.scene.number, self.frame // FRAMES_A_STATION, 30])
        eye, target = _viewpoint(self.scene, station)
        sway = self._rng(3)
        eye = eye + sway.normal(0, (0.08, 0.08, 0.04))
        room = np.array(self.scene.size)
        eye = np.clip(eye, 0.22, room - 0.22)
        pan = np.radians((self.frame % FRAMES_A_STATION - 1) * 22 + sway.normal(0, 5))
        ahead = target - eye
        yaw = np.arctan2(ahead[1], ahead[0]) + pan
        pitch = np.arctan2(ahead[2], np.hypot(ahead[0], ahead[1])) + sway.normal(0, 0.04)
        return pose(looking(yaw, float(np.clip(pitch, -0.75, 0.2)), sway.normal(0, 0.03)), eye)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.scene.number, self.frame, 31, stream])


def handheld_intrinsics(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) for pictures of (H, W); pixel (0, 0) covers the interval from 0 to 1."""
    height, width = image_size
    focal = FOCAL_PER_WIDTH * width
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _viewpoint(room: Room, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye (3,) with some room around it, and what it looks at (3,), 1.5 to 4 m away where that can be."""
    best, most = (np.array(room.size) * 0.5, room.targets[-1]), -np.inf
    for _ in range(_TRIES):
        eye = rng.uniform((0.35, 0.35, 1.15), (room.size[0] - 0.35, room.size[1] - 0.35, 1.7))
        target = room.targets[rng.integers(len(room.targets))]
        away = float(np.linalg.norm(target[:2] - eye[:2]))
        worth = min(room.clearance_m(eye[:2]), _ROOMY_M) * 6 + min(away, 3.2) - 2 * max(0.0, away - 4.5)
        beside = [float(np.linalg.norm(who.room_T_person[:2, 3] - eye[:2])) for who in room.occupants]
        worth += rng.uniform(0, 0.6) - 2 * max(0.0, _PERSON_M - min(beside, default=_PERSON_M))
        if worth > most:
            best, most = (eye, target), worth
    return best


def looking(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """(3, 3) rotation from the camera frame (x right, y down, z ahead) to a frame with z up."""
    ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(ahead, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, ahead], 1)
