"""A tiny nuScenes with map expansion, written from the synthetic sample of the parity case."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omma.data.formats.nuscenes_bev import encode_png
from omma.systems.diffbev.config import DiffBEVConfig

CASE = Path(__file__).parents[1] / "parity" / "diffbev" / "nuscenes_bev_label.npz"
REAL = Path(__file__).parents[3] / "shared" / "realdata" / "nuscenes"
SIZE = (90, 160)  # a tenth of the sample's 900 x 1600
IMAGE_SIZE = (60, 80)
VERSION = "v1.0-trainval"
# by PON's lists and by the official ones: two train, one validates
SCENES = ("scene-0002", "scene-0004", "scene-0038")
CAMERAS = ("CAM_FRONT", "CAM_BACK")


def case() -> dict[str, np.ndarray]:
    return dict(np.load(CASE))


def config(root: Path | None, system: dict[str, Any] | None = None, **data: Any) -> DiffBEVConfig:
    values = {"root": str(root), "image_size": list(IMAGE_SIZE)} | data
    if root is None:
        del values["root"]
    return DiffBEVConfig.model_validate_json(json.dumps({"system": system or {}, "data": values}))


def copy_real(root: Path) -> Path:
    """The real keyframe in a folder of its own, as an index is written beside the tables."""
    for name in ("v1.0-mini", "samples"):
        shutil.copytree(REAL / name, root / name)
    return root


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (size[0] // 10, size[1] // 10, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def write_jpeg(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """JPEG bytes whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", photo(seed, size))[1].tobytes())


def token(scene: int, camera: str) -> str:
    return f"{scene}{camera.removeprefix('CAM_').lower()}"


def scaled_intrinsics(matrix: list[list[float]]) -> list[list[float]]:
    return (np.diag([SIZE[1] / 1600, SIZE[0] / 900, 1.0]) @ np.array(matrix)).tolist()


def write_nuscenes(root: Path, scenes: tuple[str, ...] = SCENES, *, maps: bool = True) -> Path:
    """Each scene has the sample once, seen by a front and a back camera, at a tenth of the image size."""
    given = case()
    source = json.loads(str(given["tables_json"]))
    tables = {name: [] for name in ("scene", "sample", "sample_data", "sample_annotation", "ego_pose")}
    tables |= {
        name: source[name] for name in ("category", "instance", "log", "visibility", "attribute", "map")
    }
    tables["sensor"] = [source["sensor"][0], *({"token": name, "channel": name} for name in CAMERAS)]
    lidar, camera = source["calibrated_sensor"]
    intrinsics = scaled_intrinsics(camera["camera_intrinsic"])
    # turned half around the vertical axis of the vehicle: (w, x, y, z) times (0, 0, 0, 1)
    w, x, y, z = camera["rotation"]
    turned = {"CAM_FRONT": [w, x, y, z], "CAM_BACK": [-z, -y, x, w]}
    tables["calibrated_sensor"] = [lidar] + [
        {**camera, "token": f"k{name}", "sensor_token": name, "camera_intrinsic": intrinsics, "rotation": q}
        for name, q in turned.items()
    ]
    at_lidar, at_camera = source["ego_pose"]
    for number, name in enumerate(scenes):
        sample = {"token": f"s{number}", "timestamp": number, "scene_token": f"t{number}"}
        tables["scene"].append({**source["scene"][0], "token": f"t{number}", "name": name})
        tables["sample"].append(sample)
        for record in source["sample_annotation"]:
            tables["sample_annotation"].append(
                {**record, "token": f"{number}{record['token']}", "sample_token": sample["token"]}
            )
        for channel in ("LIDAR_TOP", *CAMERAS):
            is_camera = channel in CAMERAS
            key = token(number, channel) if is_camera else f"{number}lidar"
            filename = f"samples/{channel}/{name}{'.jpg' if is_camera else '.pcd.bin'}"
            tables["ego_pose"].append({**(at_camera if is_camera else at_lidar), "token": key})
            tables["sample_data"].append(
                {
                    "token": key,
                    "sample_token": sample["token"],
                    "ego_pose_token": key,
                    "calibrated_sensor_token": f"k{channel}" if is_camera else lidar["token"],
                    "is_key_frame": True,
                    "height": SIZE[0] if is_camera else 0,
                    "width": SIZE[1] if is_camera else 0,
                    "filename": filename,
                }
            )
            if is_camera:
                write_jpeg(root / filename, 10 * number + CAMERAS.index(channel))
            else:
                write_lidar(root / filename, given["lidar_points"])
    for name, rows in tables.items():
        write_json(root / VERSION / f"{name}.json", rows)
    if maps:
        write_maps(root, json.loads(str(given["map_layers_json"])))
    return root


def write_lidar(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate([points, np.zeros((len(points), 2), np.float32)], axis=1).tofile(path)


def write_maps(root: Path, layers: dict[str, list[dict[str, Any]]], city: str = "boston-seaport") -> None:
    """The polygons in the map expansion's own form."""
    nodes: list[dict[str, Any]] = []
    polygons: list[dict[str, Any]] = []

    def add_ring(ring: list[list[float]]) -> list[str]:
        tokens = [f"n{len(nodes) + index}" for index in range(len(ring))]
        nodes.extend({"token": name, "x": x, "y": y} for name, (x, y) in zip(tokens, ring, strict=True))
        return tokens

    content: dict[str, Any] = {"node": nodes, "polygon": polygons}
    for layer, members in layers.items():
        tokens = []
        for member in members:
            tokens.append(f"p{len(polygons)}")
            holes = [{"node_tokens": add_ring(hole)} for hole in member["holes"]]
            polygons.append(
                {
                    "token": tokens[-1],
                    "exterior_node_tokens": add_ring(member["exterior"]),
                    "holes": holes,
                }
            )
        if layer == "drivable_area":
            content[layer] = [{"token": "d0", "polygon_tokens": tokens}]
        else:
            content[layer] = [{"token": f"{layer}{name}", "polygon_token": name} for name in tokens]
    write_json(root / "maps" / "expansion" / f"{city}.json", content)


def write_folders(root: Path, *, depths: bool = True, cameras: bool = False) -> Path:
    """img_dir with JPEG bytes under .png names, calib.json, labels of the parity case, depths."""
    given = case()
    intrinsics = scaled_intrinsics(
        json.loads(str(given["tables_json"]))["calibrated_sensor"][1]["camera_intrinsic"]
    )
    calibration, channels = {}, {}
    for split, names in (("train", ("b", "a", "c", "d")), ("val", ("e", "f"))):
        for number, name in enumerate(names):
            calibration[name], channels[name] = intrinsics, CAMERAS[number % 2]
            write_jpeg(root / "img_dir" / split / f"{name}.png", ord(name))
            label = root / "ann_bev_dir" / split / f"{name}.png"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(encode_png(given["label"]))
            if depths:
                write_depth(root / "ann_bev_dir" / f"{split}_depth" / f"{name}.npz")
    write_json(root / "calib.json", calibration)
    if cameras:
        write_json(root / "cameras.json", channels)
    return root


def write_depth(path: Path, scale: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.zeros(IMAGE_SIZE, np.float32)
    depth[30:40:3, 10:70:5] = np.linspace(3, 40, 12, dtype=np.float32) * scale
    np.savez_compressed(path, depth=depth, mask=(depth > 0).astype(np.uint8))
