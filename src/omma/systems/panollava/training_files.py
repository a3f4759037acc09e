"""Files that the original's training leaves behind, and its checkpoints read to go on (spec section 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from omma.core.reference_state import plain_state
from omma.engine.adopt import ForeignTraining
from omma.engine.checkpoint import TrainingState
from omma.engine.foreign import require_entries, to_our_order, trainable, without_buffers, write_whole
from omma.engine.task import Task
from omma.systems.panollava.convert import CONTAINERS, from_reference
from omma.systems.panollava.keys import our_names
from omma.systems.panollava.lora import save_adapters

FINAL = "model_final.safetensors"
ADAPTERS = "lora_weights"
_NETWORK = "model."
_FORMAT_VERSION = "1"


def write_training_file(folder: Path, task: Task, state: TrainingState) -> Path:
    """Write model_final.safetensors at the end of a training, and lora_weights/ where there are adapters.

    Tied weights stand in it once. Names are ours, for no name of the original says where a token looks;
    the header tells stage, settings, colour statistics and tokenizer. `omma export --format reference`
    writes the original's names.

    Args:
        folder: where the file goes.
        task: with the weights to write.
        state: kind of save; only "final" writes.

    Returns:
        the file.
    """
    file = folder / FINAL
    if state.kind != "final":
        return file
    weights = {
        f"{_NETWORK}{name}": value.detach().cpu().contiguous().clone()
        for name, value in task.model.state_dict().items()
    }
    write_whole(file, partial(save_file, weights, metadata=_header(task, state)))
    language = task.model.language
    if language is not None and language.adapters:
        save_adapters(language.lm, folder / ADAPTERS)
    return file


def read_training_file(content: Mapping[str, Any], task: Task) -> ForeignTraining:
    """A training of the original, to be continued; of another stage its weights only.

    Args:
        content: what its checkpoint holds.
        task: whose parameters the optimiser's state is put in the order of.

    Raises:
        CheckpointError: the file holds weights only, or of another network.
    """
    taken = task.take_over({f"{_NETWORK}{name}": v for name, v in from_reference(content).items()}).state
    weights = {name.removeprefix(_NETWORK): v for name, v in taken.items() if name.startswith(_NETWORK)}
    told = content.get("hyper_parameters", {})
    stage = told.get("stage") if isinstance(told, Mapping) else None
    if stage is not None and stage != task.stage:
        return ForeignTraining(weights, [], 0)
    require_entries(content, "optimizer_states", "global_step")
    states: Sequence[Mapping[str, Any]] = content["optimizer_states"]
    moments = to_our_order(states[0]["state"], _their_numbers(content, task), task) if states else []
    return ForeignTraining(weights, moments, int(content["global_step"]))


def _their_numbers(content: Mapping[str, Any], task: Task) -> list[int]:
    """For each of our trainable parameters, its number among the original's: file order, same parts."""
    ours = trainable(task)
    parts = tuple({f"{name.split('.')[0]}." for name in ours})
    plain: dict[str, Tensor] = plain_state(content, *CONTAINERS)
    names = [name for name in our_names(plain) if name.startswith(parts)]
    number = {name: index for index, name in enumerate(without_buffers(names))}
    return [number.get(name, -1) for name in ours]  # what the file lacks has no state: all start anew


def _header(task: Task, state: TrainingState) -> dict[str, str]:
    config = task.config.as_dict()
    tower, language = task.model.vision, config["system"]["language"]
    told = {
        "stage": task.stage,
        "step": state.step,
        "class": type(task.model).__name__,
        "system": config["system"],
        "views": config["data"]["views"],
        "mean": tower.mean.tolist(),
        "std": tower.std.tolist(),
        "tokenizer": language["tokenizer"] or language["name"],
    }
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    return {"format_version": _FORMAT_VERSION, **plain}
