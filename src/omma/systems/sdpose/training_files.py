"""Training files under the original's names: epoch_N.pth, latest.pth, best_AP_epoch_N.pth (section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from omma.systems.sdpose.convert import CONTAINERS, from_reference, to_reference
from omma.systems.sdpose.keys import is_hrnet, our_name

LATEST = "latest.pth"
_BEST_METRIC = "AP"
_INNER = "inner_iter"  # steps of the epoch under way, in a file that was not written at an epoch's end


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write what the original program would have written at this save.

    A save at the end of epoch N gives epoch_N.pth, one inside an epoch iter_N.pth, and each the same again as
    latest.pth: a copy, not a link, of the last save, where the original's stays at the last periodic one. Of
    both kinds as many stay as the recipe keeps. The best gives best_AP_epoch_N.pth and deletes the one
    before; the end gives nothing new, as the last step is saved anyway.

    Args:
        folder: where the files go.
        task: with the weights to write.
        state: kind of save, step, epoch, last metrics and the optimiser's state.

    Returns:
        the file.
    """
    if state.kind == "final":
        return folder / LATEST
    metric = task.config.save.best or _BEST_METRIC
    number = f"iter_{state.step}" if state.steps_in_epoch else f"epoch_{state.epoch}"
    name = f"best_{metric.removeprefix('val/')}_{number}.pth" if state.kind == "best" else f"{number}.pth"
    weights = to_reference(task.model)
    parameters = without_buffers(list(weights))
    indices = _their_indices(parameters, task)
    content = {
        "meta": _meta(task, state),
        "state_dict": weights,
        "optimizer": to_their_order(state.optimizer, indices, len(parameters), task),
    }
    file = write_file(folder / name, content)
    if state.kind == "best":
        prune(folder, r"best_.+_(?:epoch|iter)_(\d+)\.pth", kept=[name])
        return file
    write_file(folder / LATEST, content)
    for kind in ("epoch", "iter"):
        prune(folder, rf"{kind}_(\d+)\.pth", keep_last=task.config.save.keep_last)
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original program, to be continued after its last finished epoch.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    require_entries(content, "state_dict", "optimizer", "meta.epoch", "meta.iter")
    weights = from_reference(content)
    require_all_weights(weights, task)
    indices = _their_indices(without_buffers(list(plain_state(content, *CONTAINERS))), task)
    moments = to_our_order(content["optimizer"]["state"], indices, task)
    meta = content["meta"]
    whole = not meta.get(_INNER)  # the original saves at the end of epochs alone
    return ForeignTraining(weights, moments, int(meta["iter"]), int(meta["epoch"]) if whole else None)


def _meta(task: Task, state: TrainingState) -> dict[str, Any]:
    """Epochs and steps finished, the seed and the numbers of the last validation."""
    meta = {
        "epoch": state.epoch,
        "iter": state.step,
        "seed": task.config.seed,
        "metrics": {name: float(value) for name, value in state.metrics.items()},
    }
    return meta | ({_INNER: state.steps_in_epoch} if state.steps_in_epoch else {})


def _their_indices(names: list[str], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    hrnet = is_hrnet(names)
    number = {our_name(name, hrnet=hrnet): index for index, name in enumerate(names)}
    return [number[name] for name in trainable(task)]
