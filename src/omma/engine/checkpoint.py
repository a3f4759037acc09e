"""Checkpoints: folders that are whole or absent, whatever happens while they are written.

`checkpoints/step_000500/` holds model.safetensors, model_ema.safetensors where weights are averaged,
train_state.pt and meta.json; `best/` and `final/` hold weights and meta.json. A folder is written beside
its place and renamed; `last.txt` then names it, for scripts. meta.json lists the files with their sizes.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from omma.config.base import RunConfig
from omma.config.load import hash_config
from omma.engine.ranks import world_size
from omma.errors import CheckpointError
from omma.runs.files import (
    explain_disk_full,
    recover_folder,
    remove_folder,
    replace_folder,
    temporary_path,
    write_json_atomic,
    write_text_atomic,
)
from omma.runs.folder import RunFolder
from omma.version import __version__

FORMAT_VERSION = 1
WEIGHTS, AVERAGED, TRAIN_STATE, META = (
    "model.safetensors",
    "model_ema.safetensors",
    "train_state.pt",
    "meta.json",
)


@dataclass(frozen=True)
class TrainingState:
    """What a writer of files in an original project's format gets beside the task.

    Args:
        kind: "step", "best" or "final".
        step: optimiser steps finished.
        epoch: passes over the training data finished.
        metrics: of the last validation.
        optimizer: the optimiser's state dict, its state by the numbers of the task's trainable parameters.
        steps_in_epoch: of the pass under way; 0 where the last one has just ended.
    """

    kind: str
    step: int
    epoch: int
    metrics: Mapping[str, float]
    optimizer: Mapping[str, Any]
    steps_in_epoch: int = 0


@dataclass(frozen=True)
class Snapshot:
    """What one checkpoint holds.

    Args:
        weights: the task's state dict.
        averaged: the same with averaged weights; None without them.
        train_state: tensors and plain values to continue from; None for weights only.
        meta: step, epoch, samples_seen, metrics, for meta.json.
    """

    weights: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None = None
    train_state: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def step_name(step: int) -> str:
    """Folder name of a step's checkpoint, `step_000500`."""
    return f"step_{step:06d}"


def save_checkpoint(run: RunFolder, name: str, snapshot: Snapshot, config: RunConfig) -> Path:
    """Write one checkpoint folder; an earlier one of that name is replaced at the end.

    Args:
        run: the run folder.
        name: "step_000500", "best" or "final".
        snapshot: what to write.
        config: of the run; its system section and hash go into meta.json.

    Returns:
        the folder.

    Raises:
        OmmaError: the disk is full; earlier checkpoints are as they were.
    """
    final = run.checkpoints / name
    recover_folder(final)
    with _temporary_folder(final) as folder:
        _write_weights(folder / WEIGHTS, snapshot.weights)
        if snapshot.averaged is not None:
            _write_weights(folder / AVERAGED, snapshot.averaged)
        if snapshot.train_state is not None:
            with (folder / TRAIN_STATE).open("wb") as file:
                torch.save({"format_version": FORMAT_VERSION, **snapshot.train_state}, file)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        write_json_atomic(folder / META, {**_identity(config), **snapshot.meta, "files": sizes})
        replace_folder(folder, final)
    if name.startswith("step_"):
        write_text_atomic(run.checkpoints / "last.txt", name + "\n")
    return final


def save_weights(
    run: RunFolder, name: str, task: nn.Module, *, system: str, config: RunConfig, step: int
) -> Path:
    """Write `checkpoints/<name>/` with a task's weights only; see `save_checkpoint`."""
    assert system == config.system.name, f"{system} is not the config's {config.system.name}"
    snapshot = Snapshot(task.state_dict(), meta={"step": step, "epoch": 0, "samples_seen": 0, "metrics": {}})
    return save_checkpoint(run, name, snapshot, config)


def _identity(config: RunConfig) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "omma_version": __version__,
        "system": config.system.name,
        "settings": config.as_dict()["system"],
        "config_hash": hash_config(config),
        "world_size": world_size(),
    }


@contextmanager
def _temporary_folder(final: Path) -> Iterator[Path]:
    """A folder beside `final` that is gone afterwards, and a full disk said in one line."""
    folder = temporary_path(final)
    try:
        with explain_disk_full(final), _writers_name_full_disk():
            folder.mkdir(parents=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writers_name_full_disk() -> Iterator[None]:
    """torch.save and safetensors report a full disk in errors of their own; say it as the system does."""
    try:
        yield
    except (RuntimeError, safetensors.SafetensorError) as error:
        causes = (error, error.__cause__, error.__context__)
        if any(
            getattr(cause, "errno", None) == errno.ENOSPC or "os error 28" in str(cause) for cause in causes
        ):
            raise OSError(errno.ENOSPC, "no space left on device") from error
        raise


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors; names that share one tensor (tied weights) are kept in the header as "aliases"."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        memory = (tensor.device, tensor.dtype, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        same = first.setdefault(memory, name) if tensor.numel() else name
        if same != name:
            aliases[name] = same
            continue
        plain = tensor.detach().cpu().contiguous()
        is_view = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        kept[name] = plain.clone() if is_view else plain
    header = {"format_version": str(FORMAT_VERSION), "aliases": json.dumps(aliases)}
    safetensors.torch.save_file(kept, path, metadata=header)


def prune(run: RunFolder, keep_last: int) -> None:
    """Delete all but the newest `keep_last` step checkpoints, incomplete ones first of all."""
    folders = _step_folders(run)
    complete = [folder for folder in folders if is_complete(folder)]
    kept = {*complete[:keep_last]}
    for folder in folders:
        if folder not in kept:
            remove_folder(folder)


def _step_folders(run: RunFolder) -> list[Path]:
    """Folders of step checkpoints, newest first."""
    folders = [path for path in run.checkpoints.glob("step_*") if path.name[5:].isdigit()]
    return sorted(folders, key=lambda path: int(path.name[5:]), reverse=True)


def is_complete(folder: Path) -> bool:
    """Whether meta.json can be read and every file it lists has the size it should."""
    try:
        _check_files(folder, read_meta(folder))
    except CheckpointError:
        return False
    return True


def find_last(run: RunFolder) -> Path | None:
    """The newest complete step checkpoint; None without any."""
    _recover(run)
    return next((folder for folder in _step_folders(run) if is_complete(folder)), None)


def _recover(run: RunFolder) -> None:
    """Finish exchanges of folders that a crash cut short; those of a live run are its own business."""
    if run.is_live():
        return
    for leftover in run.checkpoints.glob(".old-*"):
        recover_folder(leftover.with_name(leftover.name.removeprefix(".old-")))


def find_checkpoint(run: RunFolder, which: str) -> Path:
    """The folder of a run's checkpoint.

    Args:
        run: the run folder.
        which: "best", "final", "last" or "step_N".

    Raises:
        CheckpointError: there is none of that name; the message lists those there are.
    """
    if which == "last":
        found = find_last(run)
    else:
        number = which.removeprefix("step_")
        found = run.checkpoints / (step_name(int(number)) if number.isdigit() else which)
        _recover(run)
    if found is not None and (found / META).is_file():
        return found
    there = sorted(path.parent.name for path in run.checkpoints.glob(f"[!.]*/{META}"))
    raise CheckpointError(
        f"{run.path}: no checkpoint {which}",
        f"there are {', '.join(there)}" if there else "the run has not saved any yet",
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """What meta.json says.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    file = folder / META
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no checkpoint here", "it would hold a meta.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    if meta.get("format_version", 0) > FORMAT_VERSION:
        raise CheckpointError(f"{file}: written by a newer omma ({meta.get('omma_version')})", "update omma")
    return dict(meta)


def _check_files(folder: Path, meta: Mapping[str, Any]) -> None:
    for name, size in meta.get("files", {}).items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing", _OTHER_CHECKPOINT)
        if file.stat().st_size != size:
            raise CheckpointError(
                f"{file}: truncated, {file.stat().st_size} of {size} bytes", _OTHER_CHECKPOINT
            )


_OTHER_CHECKPOINT = "take another checkpoint of the run: RUN@best, RUN@final or RUN@step_N"


def load_weights(
    task: nn.Module,
    folder: Path,
    *,
    system: str,
    settings: Mapping[str, Any] | None = None,
    averaged: bool = True,
    take: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> dict[str, Any]:
    """Load a checkpoint's weights into a task.

    Args:
        task: of the same system and settings.
        folder: the checkpoint.
        system: the task's system.
        settings: the task's `system` section as plain values, to name the setting that differs.
        averaged: take the averaged weights where there are any.
        take: the checkpoint's tensors -> those to load; default all.

    Returns:
        meta.json.

    Raises:
        CheckpointError: missing, truncated, of another system or of other shapes.
    """
    meta = read_meta(folder)
    if meta["system"] != system:
        raise CheckpointError(f"{folder}: a checkpoint of {meta['system']}, not of {system}")
    _check_files(folder, meta)
    file = folder / (AVERAGED if averaged and (folder / AVERAGED).is_file() else WEIGHTS)
    state = take(read_weights(file))
    _check_fit(file, state, task.state_dict(), _differing(meta["settings"], settings or meta["settings"]))
    task.load_state_dict(state)
    return meta


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of one of our .safetensors files, on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        state = safetensors.torch.load_file(file)
        with safetensors.safe_open(file, "pt") as header:
            aliases = json.loads((header.metadata() or {}).get("aliases", "{}"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing", _OTHER_CHECKPOINT) from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: damaged: {error}", _OTHER_CHECKPOINT) from error
    return state | {name: state[same] for name, same in aliases.items()}


def _check_fit(
    file: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], differing: list[str]
) -> None:
    """Compare names and shapes, and name the first problem of each kind."""
    missing = [name for name in wanted if name not in state]
    extra = sorted(name for name in state if name not in wanted)
    other = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if not (missing or extra or other):
        return
    parts = []
    if other:
        found, expected = list(state[other[0]].shape), list(wanted[other[0]].shape)
        parts.append(f"{len(other)} of another shape, first `{other[0]}` {found}, here {expected}")
    if missing:
        parts.append(f"{len(missing)} missing, first `{missing[0]}` {list(wanted[missing[0]].shape)}")
    if extra:
        parts.append(
            f"{len(extra)} unknown to this network, first `{extra[0]}` {list(state[extra[0]].shape)}"
        )
    hint = "\n  ".join(differing) or "give the recipe and settings that it was trained with"
    raise CheckpointError(f"{file}: the weights do not fit: {'; '.join(parts)}", hint)


def _differing(made_with: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "system") -> list[str]:
    """One line for each setting that a checkpoint was made with and that is another one here."""
    lines = []
    for key, value in made_with.items():
        name, other = f"{prefix}.{key}", here.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            lines += _differing(value, other, name)
        elif value != other:
            lines.append(f"made with {name}={value}, here it is {other}")
    return lines


def load_train_state(folder: Path) -> dict[str, Any]:
    """What a run continues from: tensors and plain values, on the CPU.

    Raises:
        CheckpointError: missing or damaged, or the checkpoint holds weights only.
    """
    file = folder / TRAIN_STATE
    _check_files(folder, read_meta(folder))
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: holds weights only", "continue from RUN@last") from None
    except Exception as error:
        raise CheckpointError(f"{file}: damaged: {error}", _OTHER_CHECKPOINT) from error
