"""`omma diagnose` of a Lift-Splat-Shoot run: its label grids and logits as maps."""

from __future__ import annotations

import numpy as np

from omma.data.dataset import Collate, Samples
from omma.engine.diagnosis import Diagnosis, Options
from omma.engine.distributions import Truth
from omma.engine.map_diagnosis import MapReader, diagnose_maps
from omma.engine.task import Batch
from omma.systems.lss.task import LSSTask


def run(task: LSSTask, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """See `diagnose_maps`."""
    config = task.config
    reader = MapReader(
        names=task.classes,
        truth=_truth,
        logits=lambda batch: task(batch)[0].cpu().numpy(),
        pictures=lambda prediction: {"": prediction.draw()},
        about={
            "targets": "; ".join(f"{name}: {', '.join(of)}" for name, of in config.system.targets.items()),
            "ignored cells": f"objects of visibility below {config.data.min_visibility}"
            if config.data.min_visibility
            else "none (data.min_visibility is not set)",
        },
    )
    return diagnose_maps(task, data, collate, options, reader=reader)


def _truth(batch: Batch) -> Truth | None:
    """The target, where anything but 0 is occupied; values other than 0 and 1 are foreign."""
    if "target" not in batch:
        return None
    target = batch["target"][0].cpu().numpy()
    visible = np.ones(target.shape[1:], bool)
    if "mask" in batch:
        visible = batch["mask"][0, 0].cpu().numpy()
    return Truth(target != 0, visible, int((~np.isin(target, (0, 1))).any(0).sum()))
