"""One frame of a scene as a data set sees it: instant, cameras, pictures and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, transform_points
from omma.world.render import Renderer
from omma.world.scene import ActorState, Scene, Snapshot
from omma.world.sensors import (
    LidarModel,
    Picture,
    PinholeCamera,
    Sweep,
    sweep_lidar,
    take_picture,
    visible_shares,
)

_LIDAR_STREAM = 999


@dataclass(frozen=True)
class Capture:
    """A frame of a scene; what it holds is worked out when asked for.

    Args:
        scene: what it is of.
        seed: of the data set.
        split: "train", "val" or "test".
        frame: number within the scene.
        time_s: seconds from the scene's start.
        image_size: (H, W) of the pictures.
    """

    scene: Scene
    seed: int
    split: str
    frame: int
    time_s: float
    image_size: tuple[int, int]

    @cached_property
    def snapshot(self) -> Snapshot:
        """The scene at this instant."""
        return self.scene.at(self.time_s)

    @cached_property
    def renderer(self) -> Renderer:
        """Renders rays at this instant."""
        return Renderer(self.snapshot)

    @property
    def global_T_ego(self) -> NDArray[np.float64]:  # noqa: N802  a pose is named to_T_from
        """(4, 4) pose of the ego vehicle."""
        return self.scene.global_T_scene @ self.snapshot.ego.scene_T_actor

    def scene_T_ego(self, delay_s: float) -> NDArray[np.float64]:  # noqa: N802
        """(4, 4) pose of the ego vehicle so much later."""
        return self.scene.ego.path(self.time_s + delay_s)

    def camera(
        self, ego_T_cam: NDArray[np.float64], intrinsics: NDArray[np.float64], delay_s: float = 0.0
    ) -> PinholeCamera:
        """A camera mounted on the ego vehicle, where that is so much later; all else stands still."""
        return PinholeCamera(intrinsics, self.image_size, self.scene_T_ego(delay_s) @ ego_T_cam)

    def picture(self, camera: PinholeCamera, number: int) -> Picture:
        """What the camera sees; `number` tells the noise of the rig's cameras apart."""
        return take_picture(self.renderer, camera, self._rng(number))

    def lidar(
        self,
        ego_T_lidar: NDArray[np.float64],
        model: LidarModel = LidarModel(),  # noqa: B008  frozen
    ) -> Sweep:
        """What a LiDAR on the ego vehicle measures."""
        scene_T_lidar = self.snapshot.ego.scene_T_actor @ ego_T_lidar
        return sweep_lidar(self.snapshot, scene_T_lidar, self._rng(_LIDAR_STREAM), model)

    def actors_within(self, reach_m: float) -> list[ActorState]:
        """Actors whose middle is at most `reach_m` ahead, behind or aside of the ego vehicle."""
        ego_T_scene = invert_rigid(self.snapshot.ego.scene_T_actor)
        middles = [transform_points(ego_T_scene, a.corners.mean(0)) for a in self.snapshot.actors]
        return [
            a
            for a, xyz in zip(self.snapshot.actors, middles, strict=True)
            if np.abs(xyz[:2]).max() <= reach_m
        ]

    def corners_ego(self, actor: ActorState) -> NDArray[np.float64]:
        """(8, 3) box corners in the ego frame."""
        return transform_points(invert_rigid(self.snapshot.ego.scene_T_actor), actor.corners)

    def visible_shares(self, cameras: list[PinholeCamera]) -> dict[int, float]:
        """Share of each actor that the cameras see, by instance."""
        return visible_shares(self.snapshot, cameras)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.scene.number, self.frame, 7, stream])
