"""`omma diagnose` of a DiffBEV run: its label bits and logits as maps, and pictures of single images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.bev_labels import expand_label
from omma.core.grid import BevGrid
from omma.data.dataset import Collate, Samples
from omma.data.formats.nuscenes_bev import IGNORE_BIT
from omma.engine.diagnosis import Diagnosis, Options
from omma.engine.distributions import Truth
from omma.engine.map_diagnosis import MapReader, diagnose_maps
from omma.engine.task import Batch, Prediction
from omma.systems.diffbev.palette import COLOURS, paint
from omma.systems.diffbev.task import DiffBEVTask, label_grid
from omma.viz.camera import CameraView, draw_ground_cells
from omma.viz.image import Image, resize_map

MAP_HEIGHT = 784  # pixels of a map's picture; four a cell of the published grid
CAMERA_HEIGHT_M = 1.5  # of the nuScenes cameras; labels leave it out
CAM_T_EGO = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # x right, y down, z ahead


def run(task: DiffBEVTask, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """See `diagnose_maps`."""
    masked = task.config.data.layout != "kitti" and getattr(data, "layout", "") != "kitti"
    view = _View(label_grid(task.config.system), len(task.classes), masked)
    reader = MapReader(
        names=task.classes,
        truth=view.truth,
        logits=lambda batch: task(batch)[0].cpu().numpy(),
        pictures=view.pictures,
        about={
            "label bits": f"0 to {len(task.classes) - 1} are the classes, {IGNORE_BIT} is 'does not count'",
            "ignored cells": "left out of loss and metrics; no label value is moved (no reduce_zero_label)",
        },
        has_ignored=masked,
    )
    return diagnose_maps(task, data, collate, options, reader=reader)


@dataclass(frozen=True)
class _View:
    """How batches of one image are read.

    Args:
        grid: cells of the labels; axes x, y, z of the camera.
        num_classes: label bits that are classes.
        masked: whether labels mark what the camera does not see.
    """

    grid: BevGrid
    num_classes: int
    masked: bool

    def truth(self, batch: Batch) -> Truth | None:
        """The label; bits that are neither a class nor IGNORE_BIT are foreign."""
        if "label" not in batch:
            return None
        target, visible = expand_label(batch["label"], self.num_classes, IGNORE_BIT)
        bits = batch["label"][0].cpu().numpy().astype(np.int32)
        known = (1 << self.num_classes) - 1 | 1 << IGNORE_BIT
        seen: NDArray[np.bool_] = visible[0, 0].cpu().numpy()
        unseen = int((seen & ~self._in_view(batch)).sum()) if self.masked else 0
        return Truth(target[0].cpu().numpy(), seen, int((bits & ~known != 0).sum()), unseen)

    def _in_view(self, batch: Batch) -> NDArray[np.bool_]:
        """(Z, X): cells whose column of pixels lies in the image, give or take one cell."""
        x_m, z_m = self.grid.centres("x"), self.grid.centres("z")[:, None]
        focal, _, centre = batch["intrinsics"][0, 0].double().cpu().numpy()
        column, cell = focal * x_m / z_m + centre, focal * self.grid.dx[0] / z_m
        return (column > -cell) & (column < batch["image"].shape[-1] + cell)

    def pictures(self, prediction: Prediction) -> Mapping[str, Image]:
        """The image, both maps with the far end on top, and both laid onto the ground in the image."""
        arrays = prediction.arrays
        image = np.ascontiguousarray(arrays["image"].transpose(1, 2, 0))
        visible = arrays["visible"]
        maps = {"gt": arrays["target"], "pred": arrays["logits"] > 0}
        shown: dict[str, Image] = {"_img": image}
        for name, masks in maps.items():
            shown[f"_{name}"] = _map_picture(paint(masks, ~visible))
            shown[f"_{name}_overlay"] = self._on_ground(image, masks & visible, arrays["intrinsics"])
        return shown

    def _on_ground(self, image: Image, masks: NDArray[np.bool_], intrinsics: NDArray[Any]) -> Image:
        view = CameraView(intrinsics.astype(float), CAM_T_EGO)
        x, z = self.grid.x, self.grid.z
        for mask, colour in zip(masks, COLOURS, strict=False):
            image = draw_ground_cells(
                image,
                mask[:, ::-1],
                view,
                x_range_m=(z[0], z[1]),
                y_range_m=(-x[1], -x[0]),
                colour=colour,
                ground_z_m=-CAMERA_HEIGHT_M,
            )
        return image


def _map_picture(painted: Image) -> Image:
    """The far end on top, so many pixels a cell that it is well seen."""
    factor = max(1, round(MAP_HEIGHT / painted.shape[0]))
    return resize_map(painted[::-1], factor * painted.shape[0], factor * painted.shape[1])
