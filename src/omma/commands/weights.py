"""Weights from elsewhere: another run, a checkpoint of ours, or a file of the original project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from omma.commands.build import build_task
from omma.engine.checkpoint import find_checkpoint, load_weights
from omma.engine.task import Task
from omma.errors import CheckpointError, UsageError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.systems.recipes import Recipe


def load_initial_weights(task: Task, recipe: Recipe, source: str, console: RunLog) -> None:
    """Start a training from a RUN (its best checkpoint), RUN@WHICH, or a FILE of the original project.

    Raises:
        UsageError: if the source does not exist.
        CheckpointError: if the weights do not fit the network.
    """
    path, settings = Path(source), recipe.config.as_dict()["system"]
    if path.is_file():
        load_reference_weights(task, recipe, path)
    else:
        name, which = split_reference(source)
        run = RunFolder.open(name, runs_root(None))
        load_weights(
            task, find_checkpoint(run, which or "best"), system=recipe.system.name, settings=settings
        )
    console.line(f"weights from {source}")


def load_reference_weights(task: Task, recipe: Recipe, path: Path) -> None:
    """Load a file of the original project into a task's network.

    Raises:
        CheckpointError: naming the first tensors that do not fit.
    """
    if recipe.system.convert is None:
        raise UsageError(f"{recipe.system.name} reads no files of an original project")
    weights = recipe.system.load(recipe.system.convert).from_reference(read_torch_file(path))
    try:
        task.model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(
            f"{path}: the weights do not fit {recipe.name}: {' '.join(lines)}",
            "give the recipe and settings that the file was trained with",
        ) from None


def read_torch_file(path: Path) -> Any:
    """What a .pt or .pth file holds, tensors and plain values only.

    Raises:
        CheckpointError: if the file is missing, damaged or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch file of tensors: {type(error).__name__}"
        ) from None


def fresh_task(recipe: Recipe, path: Path) -> Task:
    """A task of a recipe with the weights of a file of the original project."""
    task = build_task(recipe, fresh=False)
    load_reference_weights(task, recipe, path)
    return task.eval()
