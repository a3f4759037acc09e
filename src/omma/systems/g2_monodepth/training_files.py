"""Training files under the guide's names, checkpoint_epochNNN.pth; the official epoch_N.pth is read too.

Spec sections 2 (R19 to R21) and 8. Epochs in the guide's files count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.foreign import (
    cannot_go_on,
    prune,
    require_all_weights,
    to_our_order,
    to_their_order,
    trainable,
    without_buffers,
    write_file,
)
from omma.engine.task import Task
from omma.systems.g2_monodepth.convert import CONTAINERS, from_reference, published_name, reference_state
from omma.systems.g2_monodepth.keys import CLASSIFIER

BEST, FINAL = "checkpoint_best.pth", "checkpoint_final.pth"
_OPTIMIZERS = ("optimizer_state_dict", "optimizer", "optimizer_states")  # the guide's, official, Lightning's


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write what the guide's program would have written; delete older files than the recipe keeps.

    Args:
        folder: where the file goes.
        task: with the weights to write.
        state: kind of save, step, epoch, last metrics and the optimiser's state.

    Returns:
        the file: checkpoint_epoch<last finished epoch>.pth, checkpoint_best.pth or checkpoint_final.pth.
    """
    weights = reference_state(task.model)
    parameters = without_buffers(list(weights))
    indices = _their_indices(parameters, task)
    optimizer = to_their_order(state.optimizer, indices, len(parameters), task)
    epoch = state.epoch - 1
    rates = [float(group["lr"]) for group in optimizer["param_groups"]]
    content = {
        "epoch": epoch,
        "model_state_dict": weights,
        "optimizer_state_dict": optimizer,
        "scheduler_state_dict": {
            "last_epoch": state.epoch,
            "_step_count": state.epoch + 1,
            "_last_lr": rates,
        },
        "config": task.config.as_dict(),
        "step": state.step,
    }
    names = {"best": BEST, "final": FINAL}
    name = names.get(state.kind, f"checkpoint_epoch{max(epoch, 0):03d}.pth")
    file = write_file(folder / name, content)
    prune(folder, r"checkpoint_epoch(\d+)\.pth", keep_last=task.config.save.keep_last)
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original program, of the guide's or of Lightning, to be continued.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    key = next((key for key in _OPTIMIZERS if key in content), None)
    optimizer = content[key] if key else {}
    optimizer = optimizer[0] if isinstance(optimizer, list) and optimizer else optimizer
    step = _step(content, optimizer.get("state", {})) if isinstance(optimizer, Mapping) else None
    if step is None:
        raise cannot_go_on("optimiser's state or steps")
    weights = from_reference(content)
    require_all_weights(weights, task)
    indices = _their_indices(_parameter_names(content, task.model), task)
    return ForeignTraining(weights, to_our_order(optimizer["state"], indices, task), step)


def _step(content: Mapping[str, Any], moments: Mapping[int, Mapping[str, Any]]) -> int | None:
    """Optimiser steps finished: said by the file, else counted by Adam."""
    for key in ("step", "global_step"):
        if key in content:
            return int(content[key])
    counts = [int(of_parameter["step"]) for of_parameter in moments.values() if "step" in of_parameter]
    return max(counts, default=None)


def _their_indices(names: list[str], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    number = {name: index for index, name in enumerate(names)}
    return [number[published_name(task.model, name)] for name in trainable(task)]


def _parameter_names(content: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Published names of the file's parameters, in its order."""
    stored = next(content[key] for key in CONTAINERS if key in content)
    ours = iter(from_reference({key: value for key, value in stored.items() if CLASSIFIER not in key}))
    names = [key if CLASSIFIER in key else published_name(model, next(ours)) for key in stored]
    return without_buffers(names)
