"""nuScenes tables: keyframes of the six cameras and LIDAR_TOP, their calibration, and boxes in the ego frame.

`ROOT/v1.0-*/` holds the tables, `ROOT/samples/` the files. Each sensor has its own time and ego pose; boxes
are brought to the ego frame at the time of LIDAR_TOP, cameras keep their mounting pose (as in the LSS paper).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, pose, rotation_from_quaternion, transform_points
from omma.data.formats.frame import Boxes, Frame, is_class
from omma.data.io import read_bytes, read_json
from omma.errors import ConfigError, DataError

CAMERAS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
LIDAR = "LIDAR_TOP"

CATEGORIES = (
    *(
        f"human.pedestrian.{kind}"
        for kind in ("adult", "child", "wheelchair", "stroller", "personal_mobility")
    ),
    *("human.pedestrian.police_officer", "human.pedestrian.construction_worker", "animal"),
    *("vehicle.car", "vehicle.motorcycle", "vehicle.bicycle", "vehicle.bus.bendy", "vehicle.bus.rigid"),
    *("vehicle.truck", "vehicle.construction", "vehicle.trailer"),
    *("vehicle.emergency.ambulance", "vehicle.emergency.police"),
    *("movable_object.barrier", "movable_object.trafficcone", "movable_object.pushable_pullable"),
    *("movable_object.debris", "static_object.bicycle_rack"),
)

# The official validation scenes as (first, last) numbers; the other scenes of the tables train.
_VAL_SCENES = (
    *((3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332), (344, 346)),
    *((519, 524), (552, 565), (625, 627), (629, 630), (632, 638), (770, 771), (775, 775), (777, 778)),
    *((780, 784), (794, 800), (802, 802), (904, 917), (919, 931), (962, 963), (966, 969), (971, 972)),
    (1059, 1073),
)
_MINI_VAL_SCENES = ((103, 103), (916, 916))

Record = Mapping[str, Any]


def is_layout(root: Path) -> bool:
    """Whether the folder holds nuScenes tables."""
    return bool(versions(root))


def versions(root: Path) -> list[str]:
    """Names of the table folders, such as v1.0-mini."""
    return sorted(file.parent.name for file in root.glob("v1.0-*/sample.json"))


def val_scenes(version: str) -> frozenset[str]:
    """Names of the official validation scenes; a mini version has its own."""
    ranges = _MINI_VAL_SCENES if version.endswith("mini") else _VAL_SCENES
    return frozenset(f"scene-{number:04d}" for first, last in ranges for number in range(first, last + 1))


class Tables:
    """The tables of one version, each read when it is first asked for.

    Args:
        root: data set folder.
        version: name of the table folder; none takes the only one.

    Raises:
        DataError: there is no such version, or several and none is named.
    """

    def __init__(self, root: Path, version: str | None = None) -> None:
        known = versions(root)
        if version is None and len(known) != 1:
            raise DataError(
                f"{root}: has {', '.join(known) or 'no nuScenes tables'}", "name one version as data.version"
            )
        if version is not None and version not in known:
            raise DataError(f"{root / version}: no such tables", f"there are {', '.join(known) or 'none'}")
        self.root, self.version = root, version or known[0]

    def rows(self, name: str) -> list[Record]:
        """All records of a table, in file order."""
        file = self.root / self.version / f"{name}.json"
        records = read_json(file)
        if not isinstance(records, list):
            raise DataError(f"{file}: holds {type(records).__name__}, expected a list of records")
        return records

    def by_token(self, name: str) -> dict[str, Record]:
        """Token -> record of a table."""
        return {record["token"]: record for record in self.rows(name)}

    @cached_property
    def scenes(self) -> dict[str, Record]:
        """Scenes by token."""
        return self.by_token("scene")

    @cached_property
    def sensors(self) -> dict[str, Record]:
        """Calibrated sensors by token, each with its `channel`."""
        channels = {record["token"]: record["channel"] for record in self.rows("sensor")}
        return {
            token: {**record, "channel": channels[record["sensor_token"]]}
            for token, record in self.by_token("calibrated_sensor").items()
        }

    @cached_property
    def keyframes(self) -> dict[str, dict[str, Record]]:
        """Sample token -> channel -> its keyframe record with `ego_pose`; other sweeps are dropped."""
        wanted = [record for record in self.rows("sample_data") if record["is_key_frame"]]
        tokens = {record["ego_pose_token"] for record in wanted}
        poses = {record["token"]: record for record in self.rows("ego_pose") if record["token"] in tokens}
        frames: dict[str, dict[str, Record]] = defaultdict(dict)
        for record in wanted:
            channel = self.sensors[record["calibrated_sensor_token"]]["channel"]
            frames[record["sample_token"]][channel] = {
                **record,
                "ego_pose": poses[record["ego_pose_token"]],
            }
        return dict(frames)

    @cached_property
    def annotations(self) -> dict[str, list[Record]]:
        """Sample token -> its annotations, each with its category as `category`."""
        category = {record["token"]: record["name"] for record in self.rows("category")}
        kinds = {record["token"]: category[record["category_token"]] for record in self.rows("instance")}
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.rows("sample_annotation"):
            found[record["sample_token"]].append({**record, "category": kinds[record["instance_token"]]})
        return dict(found)

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of all categories."""
        return tuple(record["name"] for record in self.rows("category"))

    def samples(self, split: str, scenes: Sequence[str] | None = None) -> list[Record]:
        """Samples of a split, sorted by scene token and time.

        Args:
            split: "train" or "val".
            scenes: names of the split's scenes instead of the official lists.

        Raises:
            DataError: there is no such split, or it names scenes that the tables lack.
        """
        chosen = self._split_scenes(split) if scenes is None else set(scenes)
        tokens = {token for token, scene in self.scenes.items() if scene["name"] in chosen}
        if scenes is not None and len(tokens) < len(chosen):
            missing = chosen - {scene["name"] for scene in self.scenes.values()}
            raise DataError(f"{self.root / self.version}: has no scene {min(missing)}", "mend the split file")
        samples = [record for record in self.rows("sample") if record["scene_token"] in tokens]
        return sorted(samples, key=lambda record: (record["scene_token"], record["timestamp"]))

    def _split_scenes(self, split: str) -> set[str]:
        if split not in ("train", "val"):
            raise DataError(
                f"split {split!r}: nuScenes has train and val", "data.split_file names other scenes"
            )
        held_out = val_scenes(self.version)
        names = {scene["name"] for scene in self.scenes.values()}
        return names & held_out if split == "val" else names - held_out


def read_frames(
    root: Path,
    split: str,
    *,
    version: str | None = None,
    scenes: Sequence[str] | None = None,
    frame_stride: int = 1,
) -> list[Frame]:
    """The keyframes of a split with their boxes.

    Args:
        root: data set folder.
        split: "train" or "val".
        version: name of the table folder; none takes the only one.
        scenes: names of the split's scenes instead of the official lists.
        frame_stride: take every n-th keyframe.

    Raises:
        DataError: tables, scenes or sensors are missing.
    """
    tables = Tables(root, version)
    return [_frame(tables, sample) for sample in tables.samples(split, scenes)[::frame_stride]]


def _frame(tables: Tables, sample: Record) -> Frame:
    where = f"{tables.root / tables.version}, sample {sample['token']}"
    sweeps = tables.keyframes.get(sample["token"], {})
    missing = [name for name in (*CAMERAS, LIDAR) if name not in sweeps]
    if missing:
        raise DataError(f"{where}: has no keyframe of {', '.join(missing)}")
    rig = [tables.sensors[sweeps[name]["calibrated_sensor_token"]] for name in CAMERAS]
    global_T_ego = _pose(sweeps[LIDAR]["ego_pose"])
    return Frame(
        token=sample["token"],
        scene=tables.scenes[sample["scene_token"]]["name"],
        where=where,
        folder=tables.root,
        cameras=CAMERAS,
        images=tuple(sweeps[name]["filename"] for name in CAMERAS),
        intrinsics=np.array([record["camera_intrinsic"] for record in rig], np.float64),
        ego_T_cam=np.stack([_pose(record) for record in rig]),
        boxes=boxes_in_ego(tables.annotations.get(sample["token"], []), global_T_ego),
        global_T_ego=global_T_ego,
        lidar=sweeps[LIDAR]["filename"],
        ego_T_lidar=_pose(tables.sensors[sweeps[LIDAR]["calibrated_sensor_token"]]),
    )


def _pose(record: Record) -> NDArray[np.float64]:
    return pose(rotation_from_quaternion(record["rotation"]), record["translation"])


def boxes_in_ego(annotations: Sequence[Record], global_T_ego: NDArray[np.float64]) -> Boxes:
    """Annotations as boxes in the ego frame; their size is (width, length, height)."""
    bits = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64) - 0.5
    count = len(annotations)
    width_length_height = np.array([record["size"] for record in annotations]).reshape(count, 1, 3)
    rotation = rotation_from_quaternion([record["rotation"] for record in annotations] or np.ones((0, 4)))
    centre = np.array([record["translation"] for record in annotations]).reshape(count, 1, 3)
    corners = (bits * width_length_height[..., [1, 0, 2]]) @ np.swapaxes(rotation, -1, -2) + centre
    return Boxes(
        corners=transform_points(invert_rigid(global_T_ego), corners).astype(np.float32),
        classes=tuple(record["category"] for record in annotations),
        visibility=np.array([int(record["visibility_token"] or 0) for record in annotations], np.int64),
    )


def check_targets(targets: Mapping[str, Sequence[str]], own_categories: Sequence[str] = ()) -> None:
    """Raise ConfigError for a target class that is neither a category nor a part of one.

    Args:
        targets: output channel -> classes.
        own_categories: categories of the tables beyond the official ones.
    """
    categories = dict.fromkeys((*CATEGORIES, *own_categories))
    for target, names in targets.items():
        for name in names:
            if not any(is_class(category, name) for category in categories):
                raise ConfigError(
                    f"system.targets.{target} names {name}, which is no nuScenes category",
                    f"they are {', '.join(categories)}; a part such as `vehicle` or `car` takes all below it",
                )


def read_lidar(path: Path) -> NDArray[np.float32]:
    """A .pcd.bin sweep, (P, 5): x, y, z in the LiDAR frame, intensity, ring.

    Raises:
        DataError: the file is missing or cut short.
    """
    data = read_bytes(path)
    if len(data) % 20:
        raise DataError(f"{path}: {len(data)} bytes are no whole number of points of 20 bytes")
    return np.frombuffer(data, np.float32).reshape(-1, 5).copy()


def read_points(frame: Frame) -> NDArray[np.floating] | None:
    """LiDAR points (P, 3) in the ego frame, or None where the frame has none."""
    if frame.lidar is None or frame.ego_T_lidar is None:
        return None
    return transform_points(frame.ego_T_lidar, read_lidar(frame.folder / frame.lidar)[:, :3])


def count_points(xyz_ego: NDArray[np.floating], boxes: Boxes) -> NDArray[np.int64]:
    """Number of points (P, 3) inside each box, faces included; (M,)."""
    counts = np.zeros(len(boxes.classes), np.int64)
    for index, corners in enumerate(boxes.corners):
        edges = corners[[4, 2, 1]] - corners[0]
        along = (xyz_ego - corners[0]) @ edges.T
        counts[index] = ((along >= 0) & (along <= (edges**2).sum(-1))).all(-1).sum()
    return counts
