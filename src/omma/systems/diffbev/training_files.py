"""Training files under the original's names: iter_N.pth, latest.pth, best_mIoU.pth (spec section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from omma.core.reference_state import plain_state
from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.foreign import (
    prune,
    require_all_weights,
    require_entries,
    to_our_order,
    to_their_order,
    trainable,
    without_buffers,
    write_file,
)
from omma.engine.task import Task
from omma.systems.diffbev.convert import from_reference, reference_state
from omma.systems.diffbev.keys import convert_merging, our_name

LATEST, BEST = "latest.pth", "best_mIoU.pth"
_BUFFERS = ("relative_position_index", "betas", "alphas_cumprod")


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write what the original program would have written at this save.

    A step gives iter_N.pth and the same as latest.pth, with the optimiser's state, and older iter files than
    the recipe keeps are deleted; the best gives best_mIoU.pth, weights only; the end gives nothing new.

    Args:
        folder: where the files go.
        task: with the weights to write.
        state: kind of save, step, epoch, last metrics and the optimiser's state.

    Returns:
        the file.
    """
    if state.kind == "final":
        return folder / LATEST
    weights = reference_state(task.model)
    meta = {"iter": state.step, "epoch": state.epoch, "CLASSES": list(task.classes)}
    if "mIoU" in state.metrics:
        meta["mIoU"] = float(state.metrics["mIoU"])
    content = {"meta": meta, "iter": state.step, "state_dict": weights}
    if state.kind == "best":
        return write_file(folder / BEST, content)
    number = len(without_buffers(list(weights), _BUFFERS))
    back = partial(_converted, to_reference=True)
    content["optimizer"] = to_their_order(state.optimizer, _their_indices(weights, task), number, task, back)
    file = write_file(folder / f"iter_{state.step}.pth", content)
    write_file(folder / LATEST, content)
    prune(folder, r"iter_(\d+)\.pth", keep_last=task.config.save.keep_last)
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original program, to be continued.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    steps = "iter" if "iter" in content else "meta.iter"
    require_entries(content, "state_dict", "optimizer", steps)
    weights = from_reference(content)
    require_all_weights(weights, task)
    indices = _their_indices(plain_state(content["state_dict"]), task)
    moments = to_our_order(content["optimizer"]["state"], indices, task, _converted)
    step = content["iter"] if steps in content else content["meta"]["iter"]
    return ForeignTraining(weights, moments, int(step))


def _their_indices(weights: Mapping[str, Any], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    number = {our_name(name): index for index, name in enumerate(without_buffers(list(weights), _BUFFERS))}
    return [number[name] for name in trainable(task)]


def _converted(name: str, moments: Mapping[str, Any], *, to_reference: bool = False) -> dict[str, Any]:
    """Moments with the channels of merging layers in the other order."""
    return {
        key: convert_merging(name, value, to_reference=to_reference)
        if isinstance(value, Tensor) and value.dim()
        else value
        for key, value in moments.items()
    }
