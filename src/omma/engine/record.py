"""What a training says: metrics.csv and its mirrors, status.json, lines and the progress bar."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omma.config.base import Log
from omma.engine.ranks import rank
from omma.engine.watch import Watch
from omma.runs.console import ProgressBar, RunLog
from omma.runs.folder import RunFolder
from omma.runs.metrics import MetricsLog, read_metrics
from omma.runs.mirrors import Mirror, open_mirrors

MEASURED = ("time_s", "step_time", "data_share", "memory")
_STATUS_EVERY_S = 10.0


def columns(train_terms: Sequence[str], metric_names: Sequence[str]) -> list[str]:
    """The columns of metrics.csv after step, epoch and phase; a name of both phases is one column.

    time_s and step_time are in seconds, data_share is the part of the step time spent waiting for data,
    memory is the peak on a GPU or the resident memory on a CPU in GiB.
    """
    train = ("time_s", "lr", "loss", *train_terms, "step_time", "data_share", "grad_norm", "memory")
    return list(dict.fromkeys([*train, *metric_names]))


class StepClock:
    """Measures how long steps take and how much of it they wait for data.

    Args:
        earlier_s: seconds that the training has run before this process.
    """

    def __init__(self, earlier_s: float) -> None:
        self._start = time.perf_counter() - earlier_s
        self._waited = 0.0
        self._steps = 0
        self._lap = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block as waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def tick(self) -> None:
        """Count one finished step."""
        self._steps += 1

    def total_s(self) -> float:
        """Seconds that the training has run, earlier processes included."""
        return time.perf_counter() - self._start

    def restart(self) -> None:
        """Begin a new lap; what came before (a validation, a save) counts for none."""
        self._lap, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def lap(self) -> dict[str, float]:
        """time_s, and step_time and data_share over the steps since the last lap; begins the next."""
        seconds = time.perf_counter() - self._lap
        values = {
            "time_s": round(self.total_s(), 3),
            "step_time": round(seconds / max(1, self._steps), 6),
            "data_share": round(self._waited / seconds, 4),
        }
        self.restart()
        return values


def memory_gib(device: torch.device) -> float | None:
    """Peak memory allocated on a GPU, resident memory of the process on a CPU (Linux only)."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    if not sys.platform.startswith("linux"):
        return None
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return round(resident_pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 3)


class Recorder:
    """Writes what a training has to say; silent in all processes but the first.

    Args:
        run: the run folder.
        log: the recipe's `log` section.
        names: columns of metrics.csv, see `columns`.
        step: optimiser steps finished; later rows of an earlier attempt are dropped.
        total: optimiser steps of the whole training.
        console: where lines go.
    """

    def __init__(
        self, run: RunFolder, log: Log, names: Sequence[str], step: int, total: int, console: RunLog
    ) -> None:
        self._active = rank() == 0
        self._run, self._console, self._total = run, console, total
        self._bar, self._shown = ProgressBar(), dict[str, str]()
        self._status_at, self._watch = 0.0, Watch()
        self._mirrors: list[Mirror] = []
        if self._active:
            self._metrics = MetricsLog(run.metrics_file, names, resume_step=step)
            self._validated = {row["step"] for row in read_metrics(run.metrics_file) if row["phase"] == "val"}
            self._mirrors = open_mirrors(run, log, step or None, console=console)

    def line(self, text: str) -> None:
        """Say one line."""
        if self._active:
            self._console.line(text)

    @contextmanager
    def opened(self, done: int) -> Iterator[None]:
        """A bar over all steps while the block runs; files are closed after it."""
        try:
            with self._console.progress(self._total, done, label="training") as bar:
                self._bar = bar
                yield
        finally:
            for output in (self._metrics, *self._mirrors) if self._active else ():
                output.close()

    def advance(self, step: int) -> None:
        """Move the bar, and now and then write a heartbeat."""
        self._bar.update(step, **self._shown)
        self.heartbeat(step)

    def heartbeat(self, step: int) -> None:
        """Say in status.json that the run lives, if that was not said lately."""
        if time.monotonic() - self._status_at > _STATUS_EVERY_S:
            self.status("running", step=step)

    def train_row(
        self, step: int, epoch: int, values: Mapping[str, float | None], terms: Sequence[str]
    ) -> None:
        """Record one step: a row, a line and the bar's text.

        Args:
            step: optimiser steps finished.
            epoch: passes finished.
            values: column -> value.
            terms: which values are losses, for the line.
        """
        if not self._active:
            return
        self._write(step, epoch, "train", values)
        shown = {name: f"{values[name]:.4g}" for name in terms}
        step_time = values["step_time"] or 0.0
        rest = {
            "lr": f"{values['lr']:.2e}",
            "data": f"{values['data_share']:.0%}",
            "ETA": _hms(step_time * (self._total - step)),
        }
        self._shown = {"loss": shown["loss"], **rest}
        self.advance(step)
        text = "  ".join(f"{name} {value}" for name, value in (shown | rest).items())
        self.line(f"step {step}/{self._total}  {text}  {step_time:.3g} s a step")
        for line in self._watch.train_row(values):
            self.line(line)

    def val_row(
        self, step: int, epoch: int, values: Mapping[str, float], best: Mapping[str, Any] | None
    ) -> None:
        """Record one validation, and "metric", "value" and "step" of the best one so far, if there is one."""
        if not self._active:
            return
        if step not in self._validated:  # a resume may repeat a validation that was recorded, not saved
            self._write(step, epoch, "val", values)
        shown = {name: value for name, value in values.items() if name not in MEASURED}
        texts = [f"{name} {'-' if math.isnan(value) else f'{value:.4g}'}" for name, value in shown.items()]
        self.line(f"step {step} validation  {'  '.join(texts)}")
        if best is not None:
            metric, value, best_step = best["metric"], best["value"], best["step"]
            self.line(f"best {metric} {value:.4g} at step {best_step}")
            for line in self._watch.val_row(values[metric], (metric, value, best_step)):
                self.line(line)
            self.status("running", step=step, best=best)

    def _write(self, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        for output in (self._metrics, *self._mirrors):
            output.write(step=step, epoch=epoch, phase=phase, values=values)

    def status(self, state: str, **fields: object) -> None:
        """Write status.json."""
        if self._active:
            self._status_at = time.monotonic()
            self._run.set_status(state, total=self._total, **fields)


def _hms(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
