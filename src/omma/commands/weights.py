"""Weights from elsewhere: another run, a checkpoint of ours, or a file of the original project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omma.commands.build import build_task
from omma.engine.checkpoint import AVERAGED, WEIGHTS, find_checkpoint, load_weights, read_weights
from omma.engine.task import TakenOver, Task
from omma.errors import CheckpointError, UsageError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.systems import System
from omma.systems.recipes import Recipe

_NETWORK = "model."  # of a task's names; files of an original project have the network alone


def settings_of_file(system: System, file: str | Path, quiet: bool = False) -> list[str]:
    """Overrides that give the network of a file of the original project; says them unless there are none."""
    module = system.load(system.convert) if system.convert else None
    tell = getattr(module, "settings_of", None)
    words = tell(read_torch_file(Path(file))) if tell else []
    if words and not quiet:
        print(f"{file} is of {' '.join(words)}")  # noqa: T201
    return words


def load_initial_weights(
    task: Task,
    recipe: Recipe,
    source: str,
    console: RunLog,
    *,
    partial: bool = False,
    root: Path | None = None,
) -> None:
    """Start a training from a RUN (its best checkpoint), RUN@WHICH, or a FILE of the original project.

    Args:
        task: that is given the weights.
        recipe: the task's.
        source: RUN, RUN@WHICH or FILE.
        console: for a line.
        partial: take the tensors that fit and say how many, instead of all or none.
        root: where RUN is looked up before the runs root.

    Raises:
        UsageError: if the source does not exist.
        CheckpointError: if the weights do not fit the network.
    """
    path, settings = Path(source), recipe.config.as_dict()["system"]
    taken: list[TakenOver] = []

    def take(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        taken.append(task.take_over(state))
        return taken[-1].state

    if path.is_file() and partial:
        note = _load_what_fits(task.model, _reference_weights(recipe, path), source)
    elif path.is_file():
        note = load_reference_weights(task, recipe, path)
    else:
        folder = find_source(source, root)
        if partial:
            averaged = folder / AVERAGED
            file = averaged if averaged.is_file() else folder / WEIGHTS
            note = _load_what_fits(task, read_weights(file), source)
        else:
            load_weights(task, folder, system=recipe.system.name, settings=settings, take=take)
            note = _told(taken[-1])
    console.line(f"weights from {source}{note}")


def find_source(source: str, root: Path | None = None) -> Path:
    """The checkpoint of RUN (its best) or RUN@WHICH, or the FILE that a training starts from.

    Args:
        source: what `--init` was given.
        root: where RUN is looked up before the runs root.

    Raises:
        UsageError: there is no such run.
        CheckpointError: it has no such checkpoint.
    """
    if Path(source).is_file():
        return Path(source)
    name, which = split_reference(source)
    beside = root is not None and RunFolder(root / name).is_run()
    run = RunFolder.open(name, root if root is not None and beside else runs_root(None))
    return find_checkpoint(run, which or "best")


def _told(taken: TakenOver) -> str:
    """What was not taken over, for the line about it."""
    note = ", weights only"
    if taken.missing:
        note += f"; not in it: {', '.join(taken.missing)}, which start as the recipe says"
    return f"{note}; left out: {', '.join(taken.left)}" if taken.left else note


def _load_what_fits(module: nn.Module, state: Mapping[str, Tensor], source: str) -> str:
    """Load the tensors of the right names and shapes; how many they are, and the first of the others."""
    wanted = module.state_dict()
    fitting = {k: v for k, v in state.items() if k in wanted and wanted[k].shape == v.shape}
    if not fitting:
        raise CheckpointError(f"{source}: none of its {len(state)} tensors fits this network")
    module.load_state_dict(fitting, strict=False)
    others = [name for name in wanted if name not in fitting]
    missing = f", not {', '.join(others[:3])}{' ...' if len(others) > 3 else ''}" if others else ""
    return f": {len(fitting)} of {len(wanted)} tensors{missing}"


def _reference_weights(recipe: Recipe, path: Path) -> dict[str, Tensor]:
    """A file of the original project under our names."""
    if recipe.system.convert is None:
        raise UsageError(f"{recipe.system.name} reads no files of an original project")
    return recipe.system.load(recipe.system.convert).from_reference(read_torch_file(path))


def load_reference_weights(task: Task, recipe: Recipe, path: Path, *, whole: bool = False) -> str:
    """Load a file of the original project into a task's network.

    Args:
        task: that is given the weights.
        recipe: the task's.
        path: the file.
        whole: refuse a file that leaves parts of the network as they are.

    Returns:
        what was not taken over, in words.

    Raises:
        CheckpointError: naming the first tensors that do not fit.
    """
    found = {f"{_NETWORK}{name}": value for name, value in _reference_weights(recipe, path).items()}
    taken = task.take_over(found)
    if whole and taken.missing:
        raise CheckpointError(
            f"{path}: has no {', '.join(taken.missing)}", "give the recipe of what it was trained as"
        )
    weights = {
        name.removeprefix(_NETWORK): value for name, value in taken.state.items() if name.startswith(_NETWORK)
    }
    try:
        task.model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(
            f"{path}: the weights do not fit {recipe.name}: {' '.join(lines)}",
            "give the recipe and settings that the file was trained with; `omma train --init FILE --partial` "
            "takes what fits",
        ) from None
    return _told(taken) if taken.missing or taken.left else ""


def read_torch_file(path: Path) -> Any:
    """What a .pt, .pth, .ckpt or .safetensors file holds, tensors and plain values only.

    Raises:
        CheckpointError: if the file is missing, damaged or holds other objects.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch file of tensors: {type(error).__name__}",
            "a file that holds other objects too, such as a config, is not opened: where its program is "
            "installed, save its state dict alone in a new file",
        ) from None


def fresh_task(recipe: Recipe, path: Path) -> Task:
    """A task of a recipe with the weights of a file of the original project."""
    task = build_task(recipe, fresh=False)
    load_reference_weights(task, recipe, path, whole=True)
    return task.eval()
