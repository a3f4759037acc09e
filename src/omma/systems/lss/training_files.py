"""Training files of the original script: model_000500.pt, model_best.pt, model_final.pt (spec section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omma.core.reference_state import plain_state
from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.foreign import (
    require_all_weights,
    require_entries,
    to_our_order,
    to_their_order,
    trainable,
    without_buffers,
    write_file,
)
from omma.engine.task import Task
from omma.systems.lss.convert import COMPUTED, CONTAINERS, from_reference, our_name, to_reference

_CLASSIFIER = ("camencode.trunk._conv_head", "camencode.trunk._bn1.", "camencode.trunk._fc")


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write what the original script would have written at this save.

    Args:
        folder: where the file goes.
        task: with the weights to write.
        state: kind of save, step, epoch, last metrics and the optimiser's state.

    Returns:
        the file: model_<step>.pt, model_best.pt or model_final.pt.
    """
    weights = to_reference(task.model)
    names = without_buffers(list(weights))
    content = {
        "model_state_dict": weights,
        "optimizer_state_dict": to_their_order(
            state.optimizer, _their_indices(names, task), len(names), task
        ),
        "counter": state.step,
        "epoch": state.epoch,
        "val_iou": state.metrics.get("iou", 0.0),
    }
    stem = f"{state.step:06d}" if state.kind == "step" else state.kind
    return write_file(folder / f"model_{stem}.pt", content)


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original script, to be continued.

    Args:
        content: what the file holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    require_entries(content, "model_state_dict", "optimizer_state_dict", "counter")
    weights = from_reference(content)
    require_all_weights(weights, task)
    indices = _their_indices(without_buffers(list(plain_state(content, *CONTAINERS))), task)
    moments = to_our_order(content["optimizer_state_dict"]["state"], indices, task)
    return ForeignTraining(weights, moments, int(content["counter"]))


def _their_indices(names: list[str], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original network's parameters."""
    number = {_our_name(name): index for index, name in enumerate(names)}
    return [number[name] for name in trainable(task)]


def _our_name(name: str) -> str:
    """Our name of a parameter; what we have no parameter for keeps its own."""
    return name if name in COMPUTED or name.startswith(_CLASSIFIER) else our_name(name)
