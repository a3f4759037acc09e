"""Sensors in the manner of nuScenes' vehicles on a capture: mounting, times, tokens, and boxes around actors.

Every camera fires at a time of its own before the LiDAR's, and the ego vehicle drives on in between;
everybody else stands still for these 43 ms, so that boxes fit all pictures of a sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, pose, rotation_from_quaternion, transform_points
from omma.data.formats.nuscenes import CAMERAS, LIDAR
from omma.data.formats.nuscenes_maps import LOCATIONS
from omma.world.capture import Capture
from omma.world.mesh import place
from omma.world.scene import ActorState, Scene
from omma.world.sensors import LidarModel, PinholeCamera, Sweep
from omma.world.traffic import Way
from omma.world.writers.rig import quaternion_and_position


@dataclass(frozen=True)
class Mount:
    """Where a sensor sits and when it measures.

    Args:
        xyz_m: position in the ego frame.
        wxyz: quaternion from the sensor's frame to the ego frame, of any length.
        delay_s: time of the measurement after that of the LiDAR.
        focal_px: focal length at 900 x 1600 pixels, 0 for the LiDAR.
        centre_px: principal point (u, v) at 900 x 1600 pixels.
    """

    xyz_m: tuple[float, float, float]
    wxyz: tuple[float, float, float, float]
    delay_s: float = 0.0
    focal_px: float = 0.0
    centre_px: tuple[float, float] = (0.0, 0.0)

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(4,) unit quaternion (w, x, y, z)."""
        return np.array(self.wxyz) / np.linalg.norm(self.wxyz)

    @property
    def ego_T_sensor(self) -> NDArray[np.float64]:  # noqa: N802  a pose is named to_T_from
        """(4, 4) pose."""
        return pose(rotation_from_quaternion(self.wxyz), self.xyz_m)

    def intrinsics(self, image_size: tuple[int, int]) -> NDArray[np.float64]:
        """(3, 3) for pictures of (H, W)."""
        across, down = image_size[1] / 1600, image_size[0] / 900
        u, v = self.centre_px
        return np.array(
            [[self.focal_px * across, 0, u * across], [0, self.focal_px * down, v * down], [0, 0, 1]]
        ).round(6)


MOUNTS = {
    "CAM_FRONT_LEFT": Mount((1.52, 0.49, 1.51), (0.676, -0.674, 0.212, -0.211), -0.043, 1273, (827, 480)),
    "CAM_FRONT": Mount((1.70, 0.02, 1.51), (0.500, -0.503, 0.500, -0.497), -0.035, 1266, (816, 492)),
    "CAM_FRONT_RIGHT": Mount((1.55, -0.49, 1.50), (0.206, -0.203, 0.682, -0.671), -0.027, 1261, (808, 495)),
    "CAM_BACK_LEFT": Mount((1.04, 0.48, 1.59), (0.692, -0.703, -0.116, 0.112), -0.001, 1257, (792, 493)),
    "CAM_BACK": Mount((0.03, 0.00, 1.58), (0.504, -0.497, -0.494, 0.505), -0.010, 809, (829, 482)),
    "CAM_BACK_RIGHT": Mount((1.01, -0.48, 1.56), (0.123, -0.132, -0.700, 0.690), -0.020, 1260, (807, 501)),
    LIDAR: Mount((0.94, 0.00, 1.84), (0.708, -0.006, 0.011, -0.706)),
}
# 32 beams like the real one; columns close enough that no 0.005 wide slot of x / z stays without points
LIDAR_MODEL = LidarModel(-30.67, 10.67, 32, 2048)

MIDDLE_M = (42.5, 0.0)  # of what the cameras can reach on the ego vehicle's way, scene frame
TILE_M = 330.0  # side of a square that holds it, however it is turned

REACH_M = 80.0
MARGIN_M = 0.02  # of boxes, so that noise leaves LiDAR points inside; none below
_VISIBLE_FROM = (0.4, 0.6, 0.8)  # where visibility levels 2, 3 and 4 begin
_MOVING_M_S = 0.2
_START_US = 1_577_836_800_000_000  # 2020-01-01
_SCENE_US = 3_600_000_000  # from the start of one scene to that of the next
_CATEGORIES = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}


def token(*parts: object) -> str:
    """32 hexadecimal digits that stand for these parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def data_token(capture: Capture, channel: str) -> str:
    """Token of the sample_data record of a sensor."""
    return token("sample_data", capture.seed, capture.scene.number, capture.frame, channel)


def timestamp_us(capture: Capture, channel: str) -> int:
    """When a sensor measured, microseconds."""
    seconds = capture.time_s + MOUNTS[channel].delay_s
    return _START_US + capture.scene.number * _SCENE_US + round(seconds * 1e6)


def location(number: int) -> str:
    """The location of a scene."""
    return LOCATIONS[number % len(LOCATIONS)]


def tile(number: int) -> int:
    """Place of a scene in its location, from south to north, so that scenes do not overlap."""
    return number // len(LOCATIONS)


def global_T_scene(scene: Scene) -> NDArray[np.float64]:  # noqa: N802  a pose is named to_T_from
    """(4, 4) pose that brings the scene into its tile, turned as the world turns it."""
    yaw = float(np.arctan2(scene.global_T_scene[1, 0], scene.global_T_scene[0, 0]))
    x, y = MIDDLE_M
    return place(TILE_M / 2, (tile(scene.number) + 0.5) * TILE_M, 0.0, yaw) @ place(-x, -y, 0.0, 0.0)


def global_T_ego(capture: Capture, channel: str) -> NDArray[np.float64]:  # noqa: N802
    """(4, 4) pose of the ego vehicle when a sensor measured."""
    return global_T_scene(capture.scene) @ capture.scene_T_ego(MOUNTS[channel].delay_s)


def cameras(capture: Capture) -> list[PinholeCamera]:
    """The six cameras in the order of `CAMERAS`."""
    mounts = [MOUNTS[name] for name in CAMERAS]
    return [
        capture.camera(mount.ego_T_sensor, mount.intrinsics(capture.image_size), mount.delay_s)
        for mount in mounts
    ]


def annotate(capture: Capture, sweep: Sweep) -> list[dict[str, Any]]:
    """What the LiDAR or a camera meets within reach, by nuScenes' rules: a rider belongs to the vehicle.

    Returns:
        Records of sample_annotation with names in place of tokens: `instance`, `category`, `attribute` (or
        None), `visibility` level 1 to 4; lengths in metres, global frame.
    """
    riders = {a.instance - 1: a for a in capture.snapshot.actors if a.class_name == "rider"}
    points = np.bincount(sweep.instance, minlength=2 + max(a.instance for a in capture.snapshot.actors))
    shares = capture.visible_shares(cameras(capture))
    parked = {a.instance for a in capture.scene.actors if isinstance(a.path, Way) and a.path.parks}
    found = []
    for actor in capture.actors_within(REACH_M):
        if actor.class_name == "rider":
            continue
        parts = [actor, *([riders[actor.instance]] if actor.instance in riders else [])]
        count = sum(int(points[part.instance]) for part in parts)
        share = float(np.mean([shares[part.instance] for part in parts]))
        if count or share:
            found.append(
                {
                    "instance": actor.instance,
                    "category": _CATEGORIES[actor.class_name],
                    "attribute": _attribute(actor, ridden=len(parts) > 1, parked=actor.instance in parked),
                    "visibility": 1 + sum(share >= least for least in _VISIBLE_FROM),
                    **_box(parts, capture.scene),
                    "num_lidar_pts": count,
                }
            )
    return found


def _attribute(actor: ActorState, *, ridden: bool, parked: bool) -> str | None:
    moves = float(np.linalg.norm(actor.velocity)) > _MOVING_M_S
    if actor.class_name == "pedestrian":
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if actor.class_name in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if ridden else "cycle.without_rider"
    if actor.class_name in ("car", "truck", "bus"):
        return "vehicle.moving" if moves else "vehicle.parked" if parked else "vehicle.stopped"
    return None


def _box(parts: list[ActorState], scene: Scene) -> dict[str, Any]:
    """`translation`, `size` (width, length, height) and `rotation` of the box around all parts.

    Args:
        parts: the first one gives the direction.
        scene: where they are.
    """
    scene_T_actor = parts[0].scene_T_actor
    corners = transform_points(invert_rigid(scene_T_actor), np.concatenate([part.corners for part in parts]))
    low, high = corners.min(0) - (MARGIN_M, MARGIN_M, 0), corners.max(0) + MARGIN_M
    length, width, height = high - low
    global_T_actor = global_T_scene(scene) @ scene_T_actor
    rotation, _ = quaternion_and_position(global_T_actor)
    centre = transform_points(global_T_actor, (low + high) / 2)
    return {
        "translation": centre.round(4),
        "size": np.array([width, length, height]).round(4),
        "rotation": rotation.round(9),
    }
