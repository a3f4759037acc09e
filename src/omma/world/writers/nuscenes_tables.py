"""The 13 tables of nuScenes, from the records of all frames."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from omma.data.formats.nuscenes import CAMERAS, CATEGORIES, LIDAR
from omma.world.writers.files import write_json
from omma.world.writers.nuscenes_maps import write_maps
from omma.world.writers.nuscenes_rig import MOUNTS, location, token

VERSION = "v1.0-trainval"
_ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
_VISIBILITY_PERCENT = ((0, 40), (40, 60), (60, 80), (80, 100))

Record = dict[str, Any]
Frames = list[Record]


def write_tables(folder: Path, scenes: list[tuple[str, Frames]], image_size: tuple[int, int]) -> None:
    """Write tables and maps.

    Args:
        folder: of the data set.
        scenes: name and frame records of `writers.nuscenes.write_frame` of every scene, in order.
        image_size: (H, W) of the pictures.
    """
    every = [frame for _, frames in scenes for frame in frames]
    masks = write_maps(folder, {f["number"]: f["areas"] for f in every if f["areas"] is not None})
    tables: dict[str, list[Record]] = {
        **_vocabulary(),
        **_rig(image_size),
        "log": [_log(frames[0]) for _, frames in scenes],
        "map": [_map(name, mask, [frames[0] for _, frames in scenes]) for name, mask in masks.items()],
        "scene": [_scene(name, frames) for name, frames in scenes],
        "sample": list(chain.from_iterable(_samples(frames) for _, frames in scenes)),
        "ego_pose": [_ego_pose(sensor) for frame in every for sensor in frame["sensors"].values()],
        "sample_data": list(chain.from_iterable(_sample_data(frames, image_size) for _, frames in scenes)),
    }
    tracks = [_tracks(frames) for _, frames in scenes]
    tables["instance"] = [instance for instances, _ in tracks for instance in instances]
    tables["sample_annotation"] = [box for _, boxes in tracks for box in boxes]
    for name, rows in tables.items():
        write_json(folder / VERSION / f"{name}.json", rows, indent=0)


def _vocabulary() -> dict[str, list[Record]]:
    def named(table: str, names: tuple[str, ...]) -> list[Record]:
        return [{"token": token(table, name), "name": name, "description": name} for name in names]

    return {
        "category": named("category", CATEGORIES),
        "attribute": named("attribute", _ATTRIBUTES),
        "visibility": [
            {
                "token": str(number),
                "level": f"v{low}-{high}",
                "description": f"visibility of whole object is between {low} and {high}%",
            }
            for number, (low, high) in enumerate(_VISIBILITY_PERCENT, 1)
        ],
    }


def _rig(image_size: tuple[int, int]) -> dict[str, list[Record]]:
    return {
        "sensor": [
            {"token": token("sensor", c), "channel": c, "modality": "camera" if c in CAMERAS else "lidar"}
            for c in MOUNTS
        ],
        "calibrated_sensor": [
            {
                "token": token("calibrated_sensor", channel),
                "sensor_token": token("sensor", channel),
                "translation": mount.xyz_m,
                "rotation": mount.rotation,
                "camera_intrinsic": mount.intrinsics(image_size) if channel in CAMERAS else [],
            }
            for channel, mount in MOUNTS.items()
        ],
    }


def _log(first: Record) -> Record:
    return {
        "token": token("log", first["log"]),
        "logfile": first["log"],
        "vehicle": "town",
        "date_captured": "2020-01-01",
        "location": location(first["number"]),
    }


def _map(name: str, mask: str, firsts: Frames) -> Record:
    return {
        "token": mask,
        "category": "semantic_prior",
        "filename": f"maps/{mask}.png",
        "log_tokens": [token("log", first["log"]) for first in firsts if location(first["number"]) == name],
    }


def _scene(name: str, frames: Frames) -> Record:
    return {
        "token": token("scene", frames[0]["log"]),
        "log_token": token("log", frames[0]["log"]),
        "nbr_samples": len(frames),
        "first_sample_token": _sample_token(frames[0]),
        "last_sample_token": _sample_token(frames[-1]),
        "name": name,
        "description": f"Procedural town quarter {frames[0]['number']}",
    }


def _sample_token(frame: Record) -> str:
    return token("sample", frame["log"], frame["frame"])


def _samples(frames: Frames) -> list[Record]:
    return _linked(
        {
            "token": _sample_token(frame),
            "timestamp": frame["timestamp"],
            "scene_token": token("scene", frame["log"]),
        }
        for frame in frames
    )


def _ego_pose(sensor: Record) -> Record:
    return {key: sensor[key] for key in ("token", "timestamp", "rotation", "translation")}


def _sample_data(frames: Frames, image_size: tuple[int, int]) -> list[Record]:
    def row(frame: Record, channel: str) -> Record:
        sensor, is_camera = frame["sensors"][channel], channel in CAMERAS
        return {
            "token": sensor["token"],
            "sample_token": _sample_token(frame),
            "ego_pose_token": sensor["token"],
            "calibrated_sensor_token": token("calibrated_sensor", channel),
            "timestamp": sensor["timestamp"],
            "fileformat": "jpg" if is_camera else "pcd",
            "is_key_frame": True,
            "height": image_size[0] if is_camera else 0,
            "width": image_size[1] if is_camera else 0,
            "filename": sensor["filename"],
        }

    channels = (*CAMERAS, LIDAR)
    return [made for channel in channels for made in _linked(row(frame, channel) for frame in frames)]


def _tracks(frames: Frames) -> tuple[list[Record], list[Record]]:
    """Instances of a scene and their boxes, linked."""
    log = frames[0]["log"]
    boxes: dict[int, list[Record]] = {}
    categories = {}
    for frame in frames:
        for found in frame["annotations"]:
            number = found["instance"]
            categories[number] = found["category"]
            boxes.setdefault(number, []).append(_annotation(frame, found))
    instances = [
        {
            "token": token("instance", log, number),
            "category_token": token("category", categories[number]),
            "nbr_annotations": len(own),
            "first_annotation_token": own[0]["token"],
            "last_annotation_token": own[-1]["token"],
        }
        for number, own in boxes.items()
    ]
    return instances, [box for own in boxes.values() for box in _linked(own)]


def _annotation(frame: Record, found: Record) -> Record:
    log, number, attribute = frame["log"], found["instance"], found["attribute"]
    return {
        "token": token("sample_annotation", log, frame["frame"], number),
        "sample_token": _sample_token(frame),
        "instance_token": token("instance", log, number),
        "visibility_token": str(found["visibility"]),
        "attribute_tokens": [token("attribute", attribute)] if attribute else [],
        "translation": found["translation"],
        "size": found["size"],
        "rotation": found["rotation"],
        "num_lidar_pts": found["num_lidar_pts"],
        "num_radar_pts": 0,
    }


def _linked(rows: Any) -> list[Record]:
    """Rows with the token of the row before and after each, empty at the ends."""
    made = [{**row, "prev": "", "next": ""} for row in rows]
    for before, after in pairwise(made):
        before["next"], after["prev"] = after["token"], before["token"]
    return made
