"""Tiny data sets of one box ahead on the left in all layouts, written straight from their descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np

from omma.core.grid import BevGrid
from omma.core.poses import invert_rigid, pose, rotation_from_quaternion, transform_points
from omma.data.formats.simbev_layout import (
    CAMERA_TRANSLATIONS_M,
    CAMERA_YAWS_DEG,
    CAMERAS,
    camera_intrinsics,
    camera_quaternion,
    ground_truth_path,
    infos_path,
    sweep_path,
)
from omma.data.transforms import fill_boxes
from omma.systems.lss.config import LSSConfig

SIZE = (48, 96)
GRID = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))
BOX_XY = np.array([[10.0, 1.0], [14.0, 1.0], [14.0, 3.0], [10.0, 3.0]])  # ahead on the left
BOX_CELL = (124, 104)  # of (12.0, 2.0) in 200 x 200 cells of 0.5 m
GLOBAL_T_EGO = pose(rotation_from_quaternion([np.cos(0.25), 0, 0, np.sin(0.25)]), [100.0, -50.0, 0.5])


def config(root: Path, system: dict[str, Any] | None = None, **data: Any) -> LSSConfig:
    values = {"root": str(root), "source_size": list(SIZE), "image_size": [32, 64]} | data
    return LSSConfig.model_validate_json(json.dumps({"system": system or {}, "data": values}))


def ego_T_cam(name: str) -> np.ndarray:
    rotation = rotation_from_quaternion(camera_quaternion(CAMERA_YAWS_DEG[name]))
    return pose(rotation, CAMERA_TRANSLATIONS_M[name])


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def write_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo(seed, size)[..., ::-1])


def lss_label() -> np.ndarray:
    return fill_boxes(BOX_XY[None], GRID)


def simbev_mask(cells: int, cell_m: float) -> np.ndarray:
    """Cells whose centre lies in the box; rows along -x, columns along -y."""
    centre = (cells / 2 - 0.5 - np.arange(cells)) * cell_m
    x, y = centre[:, None], centre[None]
    return (x > 10) & (x < 14) & (y > 1) & (y < 3)


def class_masks(num_classes: int, car: int, cells: int, cell_m: float) -> np.ndarray:
    masks = np.zeros((num_classes, cells, cells), bool)
    masks[0] = True
    masks[car] = simbev_mask(cells, cell_m)
    return masks


def seed_sample(folder: Path, index: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    names = []
    for number, camera in enumerate(CAMERAS):
        name = f"images/{camera.removeprefix('CAM_').lower()}_{index:04d}.jpg"
        write_image(folder / name, crc32(f"{folder.parent.name} {index} {number}".encode()), size)
        names.append(name)
    (folder / "labels").mkdir(exist_ok=True)
    np.save(folder / f"labels/bev_{index:04d}.npy", lss_label())
    return {
        "token": f"{folder.parent.name}_{index:04d}",
        "images": names,
        "intrinsics": [camera_intrinsics(size).tolist()] * 6,
        "extrinsics": [invert_rigid(ego_T_cam(camera)).tolist() for camera in CAMERAS],
        "label": f"labels/bev_{index:04d}.npy",
    }


def write_seed(root: Path, *, scenes: int = 1, frames: int = 2, size: tuple[int, int] = SIZE) -> Path:
    for split, count in (("train", scenes), ("val", 1)):
        for scene in range(count):
            folder = root / split / f"{split}_{scene:04d}" / "yaw0pitch0"
            folder.mkdir(parents=True)
            write_json(folder / "meta.json", [seed_sample(folder, index, size) for index in range(frames)])
    return root


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def box_record() -> dict[str, Any]:
    """The box as SimBEV stores it: eight global corners, numbered 4 * xbit + 2 * ybit + zbit."""
    ego = np.array([[x, y, z] for x in (10, 14) for y in (1, 3) for z in (0, 1.5)])
    return {
        "id": 1,
        "type": "vehicle.test",
        "semantic_tags": [14],
        "bounding_box": transform_points(GLOBAL_T_EGO, ego),
        "num_lidar_pts": 3,
    }


def write_official(root: Path, *, frames: int = 2, cells: int = 360, classes: int = 8) -> Path:
    car = {8: 1, 11: 4, 14: 7}[classes]
    metadata: dict[str, Any] = {"camera_intrinsics": camera_intrinsics(SIZE).tolist()}
    for camera in CAMERAS:
        metadata[camera] = {
            "sensor2ego_translation": list(CAMERA_TRANSLATIONS_M[camera]),
            "sensor2ego_rotation": camera_quaternion(CAMERA_YAWS_DEG[camera]).tolist(),
        }
    yaw = [float(np.cos(0.25)), 0.0, 0.0, float(np.sin(0.25))]
    for number, split in enumerate(("train", "val")):
        records = []
        for index in range(frames):
            record = {"ego2global_translation": [100.0, -50.0, 0.5], "ego2global_rotation": yaw}
            for camera in CAMERAS:
                name = sweep_path(f"RGB-{camera}", number, index, ".jpg")
                write_image(root / "simbev" / name, number * frames + index)
                record[f"RGB-{camera}"] = f"/dataset/simbev/{name}"
            seg, det = (ground_truth_path(kind, number, index) for kind in ("GT_SEG", "GT_DET"))
            for name in (seg, det):
                (root / "simbev" / name).parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(root / "simbev" / seg, data=class_masks(classes, car, cells, 0.4))
            with (root / "simbev" / det).open("wb") as file:
                np.save(file, np.array([box_record()], object), allow_pickle=True)
            records.append(
                record | {"GT_SEG": f"D:\\dataset\\simbev\\{seg}", "GT_DET": f"/dataset/simbev/{det}"}
            )
        scene = {"scene_info": {"map": "Town03"}, "scene_data": records}
        infos = {"metadata": metadata, "data": {f"scene_{number:04d}": scene}}
        write_json(root / "simbev" / infos_path(split), infos)
    return root


def write_cvt(root: Path, *, scenes: int = 5) -> Path:
    for scene in range(scenes):
        folder = root / "SimBEV_cvt_label" / f"scene_{scene:04d}" / "yaw0pitch0"
        names = [sweep_path(f"RGB-{camera}", scene, 0, ".jpg") for camera in CAMERAS]
        for number, name in enumerate(names):
            write_image(root / name, scene * len(names) + number)
        folder.mkdir(parents=True)
        np.savez_compressed(folder / "bev_0.npz", bev=class_masks(8, 1, 200, 0.5).astype(np.uint8))
        visibility = np.where(simbev_mask(200, 0.5), 1, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "visibility_0.png"), visibility)
        sample = {
            "token": f"{scene}_0",
            "scene": f"scene_{scene:04d}",
            "images": names,
            "cam_channels": list(CAMERAS),
            "intrinsics": [camera_intrinsics(SIZE).tolist()] * 6,
            "extrinsics": [invert_rigid(ego_T_cam(camera)).tolist() for camera in CAMERAS],
            "bev": "bev_0.npz",
            "visibility": "visibility_0.png",
            "view": [[0, -2, 100], [-2, 0, 100], [0, 0, 1]],
        }
        write_json(folder / "meta.json", [sample])
    return root


def write_nuscenes(root: Path, scenes: tuple[str, ...] = ("scene-0061", "scene-0103")) -> Path:
    """One keyframe a scene with the box as a car and one pedestrian, and a sweep that is no keyframe."""
    tables: dict[str, list[dict[str, Any]]] = {
        "category": [
            {"token": "c0", "name": "vehicle.car"},
            {"token": "c1", "name": "human.pedestrian.adult"},
        ],
        "instance": [{"token": "i0", "category_token": "c0"}, {"token": "i1", "category_token": "c1"}],
        "sensor": [{"token": f"s-{name}", "channel": name} for name in (*CAMERAS, "LIDAR_TOP")],
        **{name: [] for name in ("calibrated_sensor", "ego_pose", "scene", "sample", "sample_data")},
        "sample_annotation": [],
    }
    ego = {"rotation": [float(np.cos(0.25)), 0, 0, float(np.sin(0.25))], "translation": [100.0, -50.0, 0.5]}
    for name in (*CAMERAS, "LIDAR_TOP"):
        camera = name in CAMERAS
        tables["calibrated_sensor"].append(
            {
                "token": f"k-{name}",
                "sensor_token": f"s-{name}",
                "translation": list(CAMERA_TRANSLATIONS_M[name]) if camera else [0, 0, 1.8],
                "rotation": camera_quaternion(CAMERA_YAWS_DEG[name]).tolist() if camera else [1, 0, 0, 0],
                "camera_intrinsic": camera_intrinsics(SIZE).tolist() if camera else [],
            }
        )
    for number, scene in enumerate(scenes):
        token = f"sample{number}"
        tables["scene"].append({"token": f"t{9 - number}", "name": scene})
        tables["sample"].append({"token": token, "timestamp": 5 - number, "scene_token": f"t{9 - number}"})
        for name in (*CAMERAS, "LIDAR_TOP"):
            suffix = ".jpg" if name in CAMERAS else ".pcd.bin"
            for key in (True, False):
                tables["ego_pose"].append({"token": f"{token}-{name}-{key}", **ego})
                filename = f"{'samples' if key else 'sweeps'}/{name}/{token}{suffix}"
                tables["sample_data"].append(
                    {
                        "token": f"{token}-{name}-{key}",
                        "sample_token": token,
                        "ego_pose_token": f"{token}-{name}-{key}",
                        "calibrated_sensor_token": f"k-{name}",
                        "is_key_frame": key,
                        "filename": filename,
                    }
                )
                if key and name in CAMERAS:
                    write_image(root / filename, number)
        points = np.zeros((2, 5), np.float32)
        points[0, :3] = [12, 2, -1.0]  # inside the box, which stands on the ground 1.8 m below
        (root / "samples/LIDAR_TOP").mkdir(parents=True, exist_ok=True)
        points.tofile(root / f"samples/LIDAR_TOP/{token}.pcd.bin")
        for index, (xy, size) in enumerate((((12.0, 2.0), [2.0, 4.0, 1.5]), ((-5.0, -5.0), [0.6, 0.6, 1.8]))):
            centre = transform_points(GLOBAL_T_EGO, np.array([*xy, size[2] / 2]))
            tables["sample_annotation"].append(
                {
                    "token": f"a{number}{index}",
                    "sample_token": token,
                    "instance_token": f"i{index}",
                    "translation": centre.tolist(),
                    "size": size,
                    "rotation": ego["rotation"],
                    "visibility_token": "1" if index == 0 else "",
                    "num_lidar_pts": 1 - index,
                }
            )
    for name, rows in tables.items():
        write_json(root / "v1.0-mini" / f"{name}.json", rows)
    return root
