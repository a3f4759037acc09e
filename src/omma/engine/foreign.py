"""What systems share that write and read another project's training files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omma.engine.task import Task
from omma.errors import CheckpointError
from omma.runs.files import temporary_path

Moments = Mapping[str, Any]
Convert = Callable[[str, Moments], dict[str, Any]]
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: no parameters


def write_file(file: Path, content: Mapping[str, Any]) -> Path:
    """Save a training file as torch does; see `write_whole`."""

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as stream:  # by its name torch would refuse one that begins with a point
            torch.save(dict(content), stream)

    return write_whole(file, write)


def write_whole(file: Path, write: Callable[[Path], object]) -> Path:
    """Have a file written under a temporary name first, so that nobody finds half of it."""
    unfinished = temporary_path(file)
    write(unfinished)
    os.replace(unfinished, file)  # noqa: PTH105  replaces on Windows too
    return file


def prune(folder: Path, pattern: str, *, keep_last: int = 0, kept: Collection[str] = ()) -> None:
    """Delete the files of a folder that match a pattern, but the newest and those named.

    Args:
        folder: where the files lie.
        pattern: of whole names; its first group is the number that says how new a file is.
        keep_last: how many of the newest stay.
        kept: names that stay besides and do not count.
    """
    found = {file: re.fullmatch(pattern, file.name) for file in folder.iterdir()}
    numbers = {file: int(match[1]) for file, match in found.items() if match and file.name not in kept}
    for file in sorted(numbers, key=lambda file: -numbers[file])[keep_last:]:
        file.unlink()


def require_entries(content: Mapping[str, Any], *names: str) -> None:
    """Make sure that a file holds what a training goes on from.

    Args:
        content: what the file holds.
        names: of its entries; a dot leads into one, as in meta.epoch.

    Raises:
        CheckpointError: some are missing.
    """
    missing = [name for name in names if not _holds(content, name)]
    if missing:
        raise cannot_go_on(", ".join(missing))


def cannot_go_on(missing: str) -> CheckpointError:
    """The error of a file that a training cannot go on from, by what it lacks."""
    return CheckpointError(
        f"the file has no {missing}, so its training cannot be continued",
        "--init FILE starts a new training from its weights",
    )


def _holds(content: Any, name: str) -> bool:
    first, _, rest = name.partition(".")
    if not isinstance(content, Mapping) or first not in content:
        return False
    return not rest or _holds(content[first], rest)


def require_all_weights(weights: Mapping[str, Tensor], task: Task) -> None:
    """Make sure that a file has every tensor of the network.

    Raises:
        CheckpointError: some are missing.
    """
    missing = [name for name in task.model.state_dict() if name not in weights]
    if missing:
        raise CheckpointError(
            f"the file has no weights for {len(missing)} tensors of this network, first {missing[0]}",
            "give the recipe that it was trained with",
        )


def trainable(task: Task) -> dict[str, Tensor]:
    """Parameters of the network under our names, in the optimiser's order."""
    return {name.removeprefix("model."): p for name, p in task.named_parameters() if p.requires_grad}


def without_buffers(names: Sequence[str], more: tuple[str, ...] = ()) -> list[str]:
    """The names of parameters among those of a state dict; `more` are endings of other buffers."""
    return [name for name in names if not name.endswith((*BUFFERS, *more))]


def _unchanged(name: str, moments: Moments) -> dict[str, Any]:
    return dict(moments)


def to_their_order(
    optimizer: Mapping[str, Any],
    indices: Sequence[int],
    number: int,
    task: Task,
    convert: Convert = _unchanged,
) -> dict[str, Any]:
    """The optimiser's state under another project's parameter numbers, in one group as there.

    Args:
        optimizer: its state dict, in our order.
        indices: for each of our trainable parameters, its number there.
        number: parameters there.
        task: whose optimiser it is.
        convert: our name and moments -> moments as they are there.
    """
    names = list(trainable(task))
    state = {indices[ours]: convert(names[ours], moments) for ours, moments in optimizer["state"].items()}
    group = {**optimizer["param_groups"][0], "params": list(range(number))}
    group.pop("initial_lr", None)
    return {"state": state, "param_groups": [group]}


def to_our_order(
    saved: Mapping[int, Moments], indices: Sequence[int], task: Task, convert: Convert = _unchanged
) -> list[dict[str, Any]]:
    """The optimiser's state for each of our parameters; empty unless it is there for all of them.

    Args:
        saved: by another project's parameter numbers.
        indices: for each of our trainable parameters, its number there.
        task: whose parameters.
        convert: our name and moments as they are there -> ours.
    """
    ours = []
    for index, (name, parameter) in zip(indices, trainable(task).items(), strict=True):
        moments = saved.get(index, {})
        if "exp_avg" not in moments or moments["exp_avg"].shape != parameter.shape:
            return []
        ours.append(convert(name, moments))
    return ours
