"""The run folder: where everything about one training lies, and its status."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PureWindowsPath
from typing import Any

from omma.config.explain import suggest
from omma.config.yaml import dump_yaml, read_yaml
from omma.errors import DataError, UsageError
from omma.runs.files import process_alive, write_json_atomic, write_text_atomic
from omma.runs.names import check_name, default_name, runs_root, split_reference, timestamp

__all__ = ["FORMAT_VERSION", "RunFolder", "default_name", "list_runs", "runs_root", "split_reference"]

FORMAT_VERSION = 1
STATES = ("created", "running", "finished", "preempted", "failed")
STOPPED = "stopped (no heartbeat)"
_SILENCE = timedelta(seconds=60)


def config_text(config: dict[str, Any]) -> str:
    """The content of config.yaml, which is a recipe."""
    return "# yaml: omma run config\n" + dump_yaml(config)


def _command_text(command: Sequence[str]) -> str:
    line = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    return f"{line}\n# working directory: {Path.cwd()}\n"


def _is_log(path: Path) -> bool:
    """What may lie in a folder before a run is made there: `... | tee RUN/out.log`, or a .gitignore."""
    return path.is_file() and (path.suffix == ".log" or path.name == ".gitignore")


def _now() -> datetime:
    return datetime.now(UTC)


def _silent(status: dict[str, Any]) -> bool:
    return _now() - datetime.fromisoformat(status["heartbeat"]) > _SILENCE


@dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Args:
        path: the folder itself; `create` and `open` make objects of folders that exist.
    """

    path: Path

    @classmethod
    def create(
        cls,
        root: Path,
        name: str,
        *,
        config: dict[str, Any],
        command: Sequence[str],
        overwrite: bool = False,
        continues: Path | None = None,
    ) -> RunFolder:
        """Make `root/name` with config.yaml, command.txt and status.json.

        Args:
            root: the folder that holds the runs; made if missing.
            name: the run's name, legal on Windows.
            config: the resolved config; config.yaml is a recipe that trains the same again.
            command: the command line as typed, word by word.
            overwrite: move an earlier run of this name to `<name>.old-<timestamp>`; nothing is deleted.
            continues: training file of another program; if it lies in the folder, that becomes the run's.

        Raises:
            UsageError: for an illegal name, a used folder without `overwrite`, or a run that is training now.
        """
        check_name(name)
        run = cls(root / name)
        try:
            used = run.path.exists() and (not run.path.is_dir() or not all(map(_is_log, run.path.iterdir())))
            if used and (run.is_run() or not run._holds(continues)):
                run._make_way(overwrite=overwrite)
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
                raise
            raise UsageError(
                f"{run.path}: the run folder cannot be made ({error.strerror})",
                "give another --name or --runs-dir",
            ) from error
        write_text_atomic(run.path / "config.yaml", config_text(config))
        write_text_atomic(run.path / "command.txt", _command_text(command))
        run.set_status("created", created=_now().isoformat(timespec="seconds"))
        return run

    def _holds(self, file: Path | None) -> bool:
        return file is not None and file.resolve().parent == self.path.resolve()

    def _make_way(self, *, overwrite: bool) -> None:
        if not overwrite:
            raise UsageError(
                f"{self.path}: this folder is in use by an earlier run",
                f'go on with it: `omma resume "{self.name}"`; start anew: --overwrite (the earlier run '
                f"stays as {self.name}.old-<time>); or give another --name",
            )
        if self.is_live():
            raise UsageError(
                f"{self.path}: process {self.status().get('pid')} is training this run right now",
                "stop it first, or give another --name",
            )
        self.path.rename(self.path.with_name(f"{self.name}.old-{timestamp()}"))

    @classmethod
    def open(cls, run: str | Path, root: Path) -> RunFolder:
        """The run of that path, or of that name under `root`.

        Raises:
            UsageError: if there is none (with the nearest names), or if the folder is no run.
        """
        candidates = [root / run, Path(run)]
        for path in candidates:
            if cls(path).is_run():
                return cls(path)
        folder = next((path for path in candidates if path.is_dir()), None)
        if folder:
            raise UsageError(
                f"{folder}: this folder is no run (it has no status.json)", "`omma runs` lists the runs"
            )
        names = [other.name for other in list_runs(root)]
        raise UsageError(
            f"{run}: no such run under {root}{suggest(Path(run).name, names)}",
            "`omma runs` lists the runs; --runs-dir or OMMA_RUNS says where they are",
        )

    def is_run(self) -> bool:
        """Whether the folder was made by `create`."""
        return (self.path / "status.json").is_file()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.resolve().name

    def config(self) -> dict[str, Any]:
        """The resolved config as plain values.

        Raises:
            ConfigError: if config.yaml is missing or no YAML mapping.
        """
        return read_yaml(self.path / "config.yaml")

    def set_status(self, state: str, **fields: Any) -> None:
        """Write status.json with a fresh heartbeat; fields of earlier calls stay unless given again.

        Args:
            state: "created", "running", "finished", "preempted" or "failed".
            fields: plain values such as step, epoch, best, error.
        """
        assert state in STATES, state
        earlier = self._read_status() if self.is_run() else {"format_version": FORMAT_VERSION}
        heartbeat = _now().isoformat(timespec="seconds")
        write_json_atomic(
            self.path / "status.json",
            earlier | fields | {"state": state, "heartbeat": heartbeat, "pid": os.getpid()},
        )

    def _read_status(self) -> dict[str, Any]:
        file = self.path / "status.json"
        try:
            status = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read: {error}") from error
        if status.get("format_version", 0) > FORMAT_VERSION:
            raise DataError(f"{file}: written by a newer omma (format_version {status['format_version']})")
        return dict(status)

    def status(self) -> dict[str, Any]:
        """The status with its fields; a run that died reads as "stopped (no heartbeat)".

        Raises:
            DataError: if status.json is damaged or of a newer omma.
        """
        status = self._read_status()
        if status["state"] == "running" and _silent(status) and not process_alive(status["pid"]):
            return status | {"state": STOPPED}
        return status

    def is_live(self) -> bool:
        """Whether another process of this machine is training the run."""
        if not self.is_run():
            return False
        status = self._read_status()
        other = status["pid"] != os.getpid() and process_alive(status["pid"])
        return bool(status["state"] == "running" and other and not _silent(status))

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def log_file(self) -> Path:
        """What the console said."""
        return self.path / "log.txt"

    @property
    def metrics_file(self) -> Path:
        """Losses and metrics by step."""
        return self.path / "metrics.csv"

    @property
    def events(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.path / "events"

    def eval_dir(self, split: str) -> Path:
        """Folder of one split's evaluation; a split that is the path of a table gives its name alone."""
        return self.path / "eval" / (PureWindowsPath(split).stem if {"/", "\\"} & set(split) else split)

    @property
    def vis(self) -> Path:
        """Folder of sample pictures."""
        return self.path / "vis"

    @property
    def diagnose(self) -> Path:
        """Folder of the diagnosis."""
        return self.path / "diagnose"

    @property
    def export(self) -> Path:
        """Folder of exported models."""
        return self.path / "export"


def _run_folders(root: Path) -> Iterator[RunFolder]:
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if RunFolder(path).is_run():
            yield RunFolder(path)


def list_runs(root: Path) -> list[RunFolder]:
    """The runs right under `root`, by name; none if the folder is missing."""
    return list(_run_folders(root))
