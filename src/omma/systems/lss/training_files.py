"""Training files of the original script: model_000500.pt, model_best.pt, model_final.pt (spec section 8)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.task import Task
from omma.errors import CheckpointError
from omma.systems.lss.convert import COMPUTED, from_reference, our_name, to_reference

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write what the original script would have written at this save.

    Args:
        folder: where the file goes.
        task: with the weights to write.
        state: kind of save, step, epoch, last metrics and the optimiser's state.

    Returns:
        the file: model_<step>.pt, model_best.pt or model_final.pt.
    """
    stem = f"{state.step:06d}" if state.kind == "step" else state.kind
    weights = to_reference(task.model)
    content = {
        "model_state_dict": weights,
        "optimizer_state_dict": _to_their_order(state.optimizer, weights, task),
        "counter": state.step,
        "epoch": state.epoch,
        "val_iou": state.metrics.get("iou", 0.0),
    }
    file, unfinished = folder / f"model_{stem}.pt", folder / f".model_{stem}.pt.tmp"
    torch.save(content, unfinished)
    os.replace(unfinished, file)  # noqa: PTH105  replaces on Windows too
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original script, to be continued.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only.
    """
    missing = [key for key in ("model_state_dict", "optimizer_state_dict", "counter") if key not in content]
    if missing:
        raise CheckpointError(
            f"the file has no {', '.join(missing)}, so its training cannot be continued",
            "--init FILE starts a new training from its weights",
        )
    saved = content["optimizer_state_dict"]["state"]
    indices = _their_indices(content["model_state_dict"], task)
    moments = [saved[index] for index in indices] if all(index in saved for index in indices) else []
    return ForeignTraining(
        weights=from_reference(content),
        moments=moments,
        step=int(content["counter"]),
    )


def _their_indices(weights: Mapping[str, Tensor], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    names = [name.removeprefix("module.") for name in weights if not name.endswith(_BUFFERS)]
    number = {name if name in COMPUTED else our_name_or_head(name): i for i, name in enumerate(names)}
    return [number[name.removeprefix("model.")] for name, p in task.named_parameters() if p.requires_grad]


def our_name_or_head(name: str) -> str:
    """Our name of a parameter; the unused classifier, which we do not have, keeps its own."""
    unused = ("camencode.trunk._conv_head", "camencode.trunk._bn1.", "camencode.trunk._fc")
    return name if name.startswith(unused) else our_name(name)


def _to_their_order(
    optimizer: Mapping[str, Any], weights: Mapping[str, Tensor], task: Task
) -> dict[str, Any]:
    """The optimiser's state under the original network's parameter numbers, in one group as there."""
    indices = _their_indices(weights, task)
    number = sum(not name.endswith(_BUFFERS) for name in weights)
    state = {indices[ours]: moments for ours, moments in optimizer["state"].items()}
    group = {**optimizer["param_groups"][0], "params": list(range(number))}
    group.pop("initial_lr", None)
    return {"state": state, "param_groups": [group]}
