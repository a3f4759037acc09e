"""Mirrors of metrics.csv: TensorBoard event files and Weights & Biases. metrics.csv stays the record."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from omma.config.base import Log, Wandb
from omma.errors import ConfigError
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

    W&B drops points of steps that it has, so a resumed run leaves no doubled points.

    Args:
        run: the run.
        settings: project, name, entity and mode.
        console: told when the run goes offline.

    Raises:
        ConfigError: if wandb is not installed.
    """

    def __init__(self, run: RunFolder, settings: Wandb, console: RunLog) -> None:
        self._folder = run.path / "wandb"
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "log.wandb: the package wandb is not installed",
                "`pip install omma[wandb]`, or log.wandb=null",
            ) from error
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
            self._run = wandb.init(mode=settings.mode, **options)
        except wandb.Error as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            console.line(
                f"wandb: not reachable ({reason}); going on offline, send it later with `wandb sync`"
            )
            wandb.teardown()  # the failed attempt still holds the run id
            self._run = wandb.init(mode="offline", **options)

    def write(self, *, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        """See Mirror."""
        self._run.log({**_tagged(phase, values), "epoch": epoch}, step=step)

    def close(self) -> None:
        """See Mirror."""
        self._run.finish()
        for path in self._folder.rglob("*"):
            if path.is_symlink():  # its own log; run folders stay free of links so that they copy to any disk
                path.unlink()


def open_mirrors(run: RunFolder, log: Log, resume_step: int | None, *, console: RunLog) -> list[Mirror]:
    """The mirrors that the recipe's `log` section asks for.

    Args:
        run: the run folder.
        log: the section; its `tensorboard` and `wandb` keys.
        resume_step: the step that the run continues from; None for a new run.
        console: told when W&B cannot be reached.

    Raises:
        ConfigError: if W&B is asked for and not installed.
    """
    mirrors: list[Mirror] = []
    if log.tensorboard:
        mirrors.append(TensorBoardMirror(run, resume_step))
    if log.wandb is not None:
        mirrors.append(WandbMirror(run, log.wandb, console))
    return mirrors
