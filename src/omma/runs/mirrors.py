"""Mirrors of metrics.csv: TensorBoard event files and Weights & Biases. metrics.csv stays the record."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from omma.config.base import Log, Wandb
from omma.runs.console import RunLog
from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder


class Mirror(Protocol):
    """Takes the rows that metrics.csv takes."""

    def write(self, *, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        """Pass one row on; the tag of a value is `<phase>/<column>`."""

    def close(self) -> None:
        """Bring everything out."""


def _tagged(phase: str, values: Mapping[str, float | None]) -> dict[str, float]:
    return {f"{phase}/{column}": float(value) for column, value in values.items() if value is not None}


class TensorBoardMirror:
    """Event files in the run's `events` folder.

    Args:
        run: the run.
        resume_step: later points of earlier files are hidden, so that no curve runs back; None hides all.
    """

    def __init__(self, run: RunFolder, resume_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.events), purge_step=(resume_step or 0) + 1, flush_secs=30)

    def write(self, *, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        """See Mirror."""
        for tag, value in _tagged(phase, values).items():
            self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """See Mirror."""
        self._writer.close()


def _wandb_id(run: RunFolder) -> str:
    """The id kept in the folder, so that a resume continues the same W&B run."""
    file = run.path / "wandb.json"
    if not file.exists():
        write_json_atomic(file, {"format_version": 1, "id": uuid.uuid4().hex[:12]})
    return str(json.loads(file.read_text(encoding="utf-8"))["id"])


class WandbMirror:
    """A W&B run of the same name.

    W&B drops points of steps that it has, so a resumed run leaves no doubled points. Whatever goes wrong on
    its side is one line: the training goes on, and metrics.csv has every row.

    Args:
        run: the run.
        settings: project, name, entity and mode.
        mode: "online" or "offline".
        wandb: the package.
        console: told when the run goes offline, or the mirror ends.
    """

    def __init__(self, run: RunFolder, settings: Wandb, mode: str, wandb: Any, console: RunLog) -> None:
        self._folder, self._console = run.path / "wandb", console
        options: dict[str, Any] = {
            "project": settings.project,
            "entity": settings.entity,
            "name": settings.name or run.name,
            "id": _wandb_id(run),
            "resume": "allow",
            "dir": str(run.path),
            "config": run.config(),
            "settings": wandb.Settings(init_timeout=20, symlink=False),
        }
        try:
            self._run: Any = wandb.init(mode=mode, **options)
        except Exception as error:  # wandb's own, or whatever its service and the network raise
            console.line(
                f"wandb: not reachable ({_reason(error)}); going on offline, send it later with `wandb sync`"
            )
            wandb.teardown()  # the failed attempt still holds the run id
            self._run = wandb.init(mode="offline", **options)

    def write(self, *, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        """See Mirror."""
        with self._never_fatal():
            if self._run is not None:
                self._run.log({**_tagged(phase, values), "epoch": epoch}, step=step)

    def close(self) -> None:
        """See Mirror."""
        with self._never_fatal():
            if self._run is not None:
                self._run.finish()
        for path in self._folder.rglob("*"):
            if path.is_symlink():  # its own log; run folders stay free of links so that they copy to any disk
                path.unlink()

    @contextmanager
    def _never_fatal(self) -> Iterator[None]:
        """The first failure ends the mirror, not the training."""
        try:
            yield
        except Exception as error:  # a mirror may fail in ways that only wandb's service knows
            self._run = None
            self._console.line(f"wandb: stopped ({_reason(error)}); going on without it, metrics.csv has all")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _open_wandb(run: RunFolder, settings: Wandb, console: RunLog) -> WandbMirror | None:
    """The mirror, or None and a line that says why there is none."""
    mode = {"dryrun": "offline"}.get(asked := os.environ.get("WANDB_MODE", "").lower(), asked)
    if mode == "disabled":
        console.line("wandb: WANDB_MODE=disabled; going on without it")
        return None
    if mode == "offline" and settings.mode == "online":
        console.line("wandb: WANDB_MODE=offline; send it later with `wandb sync`")
    try:
        import wandb
    except ImportError:
        console.line(
            "wandb: not installed; going on without it (`pip install omma[wandb]`, or log.wandb=null)"
        )
        return None
    return WandbMirror(run, settings, "offline" if mode == "offline" else settings.mode, wandb, console)


def open_mirrors(run: RunFolder, log: Log, resume_step: int | None, *, console: RunLog) -> list[Mirror]:
    """The mirrors that the recipe's `log` section asks for.

    Args:
        run: the run folder.
        log: the section; its `tensorboard` and `wandb` keys.
        resume_step: the step that the run continues from; None for a new run.
        console: told where W&B is not installed, switched off or not reachable; the training goes on.
    """
    mirrors: list[Mirror] = []
    if log.tensorboard:
        mirrors.append(TensorBoardMirror(run, resume_step))
    if log.wandb is not None:
        mirrors += filter(None, [_open_wandb(run, log.wandb, console)])
    return mirrors
