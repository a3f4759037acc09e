"""Robustness curves: one camera less, and calibration that is off (paper section 5.3)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from omma.data.dataset import Collate, Sample, Samples
from omma.engine.evaluate import evaluate
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.task import GEOMETRY, LSSTask

ROTATION_DEG = (0.5, 1.0, 2.0, 4.0)
TRANSLATION_M = (0.1, 0.25, 0.5, 1.0)


class Console(Protocol):
    """Where lines go."""

    def line(self, text: str) -> None:
        """Write one line."""
        ...


@dataclass(frozen=True)
class WithoutCamera:
    """Collates samples and leaves one camera out."""

    collate: Collate
    camera: int

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """See the class."""
        batch = self.collate(samples)
        kept = [index for index in range(batch["images"].shape[1]) if index != self.camera]
        return batch | {key: batch[key][:, kept] for key in ("images", *GEOMETRY)}


@dataclass(frozen=True)
class WithNoise:
    """Collates samples and disturbs each camera's extrinsics; a sample's noise is always the same.

    Args:
        collate: of the data set.
        rotation_deg: standard deviation about each camera axis.
        translation_m: standard deviation along each ego axis.
    """

    collate: Collate
    rotation_deg: float = 0.0
    translation_m: float = 0.0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """See the class."""
        batch = self.collate(samples)
        shape = batch["rots"].shape[:2]
        noise = [np.random.default_rng(zlib.crc32(name.encode())) for name in batch["token"]]
        angles = np.stack([rng.normal(size=(shape[1], 3)) for rng in noise]) * self.rotation_deg
        offsets = np.stack([rng.normal(size=(shape[1], 3)) for rng in noise]) * self.translation_m
        turns = (
            Rotation.from_euler("xyz", angles.reshape(-1, 3), degrees=True).as_matrix().reshape(*shape, 3, 3)
        )
        rots = batch["rots"] @ _like(turns, batch["rots"])
        return batch | {"rots": rots, "trans": batch["trans"] + _like(offsets, batch["trans"])}


def robustness(
    task: LSSTask, config: LSSConfig, data: Samples, collate: Collate, console: Console
) -> dict[str, dict[str, Any]]:
    """IoU without each camera in turn, and against rotation and translation noise of the extrinsics.

    Returns:
        study name -> curve: title, x_label, y_label, x and series, as the report draws it.
    """

    def iou(changed: Collate) -> float:
        size = config.validation.batch_size or config.train.batch_size
        result = evaluate(
            task,
            data,
            changed,
            batch_size=size if isinstance(size, int) else 1,
            workers=config.train.workers,
            device=task.device,
            console=console,
        )
        return result.metrics["iou"]

    undisturbed = iou(collate)

    def curve(title: str, x_label: str, x: list[Any], changed: Sequence[Collate]) -> dict[str, Any]:
        """The first value of `x` is the undisturbed one."""
        values = [undisturbed, *(iou(disturbed) for disturbed in changed)]
        return {"title": title, "x_label": x_label, "y_label": "IoU", "x": x, "series": {"iou": values}}

    cameras = camera_names(config, data)
    curves = {
        "drop_camera": curve(
            "One camera missing",
            "camera left out",
            ["none", *cameras],
            [WithoutCamera(collate, index) for index in range(len(cameras))],
        ),
        "rotation_noise": curve(
            "Rotated extrinsics",
            "rotation noise, degrees",
            [0.0, *ROTATION_DEG],
            [WithNoise(collate, rotation_deg=level) for level in ROTATION_DEG],
        ),
        "translation_noise": curve(
            "Moved extrinsics",
            "translation noise, m",
            [0.0, *TRANSLATION_M],
            [WithNoise(collate, translation_m=level) for level in TRANSLATION_M],
        ),
    }
    for found in curves.values():
        pairs = zip(found["x"], found["series"]["iou"], strict=True)
        console.line(f"{found['title']}: " + ", ".join(f"{x} {y:.3f}" for x, y in pairs))
    return curves


def camera_names(config: LSSConfig, data: Samples) -> list[str]:
    """The cameras of a sample, in the order of its images."""
    number = data[0]["images"].shape[0]
    return list(
        config.data.cameras or getattr(data, "cameras", None) or [f"camera {i}" for i in range(number)]
    )


def _like(array: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.dtype)
