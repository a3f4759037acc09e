"""Training files under the original's names: iter_N.pth, latest.pth, best_mIoU.pth (spec section 8)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omma.core.reference_state import plain_state
from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.task import Task
from omma.errors import CheckpointError
from omma.systems.diffbev.convert import from_reference, reference_state
from omma.systems.diffbev.keys import convert_merging, our_name

LATEST, BEST = "latest.pth", "best_mIoU.pth"
_BUFFERS = (
    *("running_mean", "running_var", "num_batches_tracked"),
    *("relative_position_index", "betas", "alphas_cumprod"),
)


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
        return _write(folder / BEST, content)
    content["optimizer"] = _to_their_order(state.optimizer, weights, task)
    file = _write(folder / f"iter_{state.step}.pth", content)
    _write(folder / LATEST, content)
    _prune(folder, task.config.save.keep_last)
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original program, to be continued.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    step = content.get("iter", content.get("meta", {}).get("iter"))
    if "state_dict" not in content or "optimizer" not in content or step is None:
        raise CheckpointError(
            "the file has no state_dict, optimizer and iter, so its training cannot be continued",
            "--init FILE starts a new training from its weights",
        )
    weights = from_reference(content)
    missing = [name for name in task.model.state_dict() if name not in weights]
    if missing:
        raise CheckpointError(
            f"the file has no weights for {len(missing)} tensors of this network, first {missing[0]}",
            "give the recipe that it was trained with",
        )
    return ForeignTraining(weights, _moments(content, task), int(step))


def _write(file: Path, content: Mapping[str, Any]) -> Path:
    unfinished = file.with_name(f".{file.name}.tmp")
    torch.save(dict(content), unfinished)
    os.replace(unfinished, file)  # noqa: PTH105  replaces on Windows too
    return file


def _prune(folder: Path, keep_last: int) -> None:
    files = [file for file in folder.glob("iter_*.pth") if file.stem[5:].isdigit()]
    for file in sorted(files, key=lambda file: int(file.stem[5:]))[:-keep_last]:
        file.unlink()


def _trainable(task: Task) -> dict[str, Tensor]:
    """Parameters of the network under our names, in the optimiser's order."""
    return {name.removeprefix("model."): p for name, p in task.named_parameters() if p.requires_grad}


def _their_indices(weights: Mapping[str, Any], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    names = [name for name in weights if not name.endswith(_BUFFERS)]
    number = {our_name(name): index for index, name in enumerate(names)}
    return [number[name] for name in _trainable(task)]


def _to_their_order(
    optimizer: Mapping[str, Any], weights: Mapping[str, Tensor], task: Task
) -> dict[str, Any]:
    """The optimiser's state under the original network's parameter numbers, in one group as there."""
    indices, names = _their_indices(weights, task), list(_trainable(task))
    number = sum(not name.endswith(_BUFFERS) for name in weights)
    state = {
        indices[ours]: _converted(names[ours], moments, to_reference=True)
        for ours, moments in optimizer["state"].items()
    }
    group = {**optimizer["param_groups"][0], "params": list(range(number))}
    group.pop("initial_lr", None)
    return {"state": state, "param_groups": [group]}


def _moments(content: Mapping[str, Any], task: Task) -> list[dict[str, Tensor]]:
    """The optimiser's state for each of our parameters; empty unless it is there for all of them."""
    saved = content["optimizer"]["state"]
    indices = _their_indices(plain_state(content["state_dict"]), task)
    moments = []
    for index, (name, parameter) in zip(indices, _trainable(task).items(), strict=True):
        of_parameter = saved.get(index, {})
        if "exp_avg" not in of_parameter or of_parameter["exp_avg"].shape != parameter.shape:
            return []
        moments.append(_converted(name, of_parameter))
    return moments


def _converted(name: str, moments: Mapping[str, Any], *, to_reference: bool = False) -> dict[str, Any]:
    """Moments with the channels of merging layers in the other order."""
    return {
        key: convert_merging(name, value, to_reference=to_reference)
        if isinstance(value, Tensor) and value.dim()
        else value
        for key, value in moments.items()
    }
