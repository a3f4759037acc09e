"""All that a training is at one moment: what a checkpoint holds and a resume brings back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch.optim import Optimizer

from omma.config.base import Period, RunConfig
from omma.data.sampler import Position
from omma.engine.checkpoint import (
    AVERAGED,
    Snapshot,
    TrainingState,
    find_last,
    load_train_state,
    load_weights,
    read_weights,
)
from omma.engine.ema import Ema
from omma.engine.optim import places_of
from omma.engine.ranks import from_first, rank
from omma.engine.schedule import Length, Patience, Plateau
from omma.engine.sharding import cut_like, cut_optimizer_state, whole
from omma.engine.signals import StopRequested
from omma.engine.task import Task
from omma.errors import CheckpointError
from omma.runs.folder import RunFolder


@dataclass
class Progress:
    """How far a training has come; plain values only.

    Args:
        step: optimiser steps finished.
        position: where in the sequence of samples the next step starts.
        samples_seen: samples of all finished steps.
        global_batch: samples of a step.
        time_s: seconds of training so far.
        best_value: best value of the best metric; None before the first validation.
        best_step: step of that validation.
        judged_by: the metric that the best value is of, and "max" or "min"; None before a start.
        judged_since: the step from which on that metric has decided.
        metrics: of the last validation.
        early_stop: validations without improvement.
        plateau: state of the plateau schedule.
        pending_validation: the validation of `step` was left unfinished.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    samples_seen: int = 0
    global_batch: int = 0
    time_s: float = 0.0
    best_value: float | None = None
    best_step: int = 0
    judged_by: tuple[str, str] | None = None
    judged_since: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    early_stop: Patience = field(default_factory=Patience)
    plateau: Plateau = field(default_factory=Plateau)
    pending_validation: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """What `dataclasses.asdict` gave."""
        plateau = values["plateau"]
        nested = {
            "position": Position(**values["position"]),
            "early_stop": Patience(**values["early_stop"]),
            "plateau": Plateau(plateau["factor"], Patience(**plateau["waiting"])),
        }
        return cls(**{**values, **nested})

    def advance(self, num_samples: int) -> None:
        """Count one step over a training set of `num_samples`."""
        self.step += 1
        self.samples_seen += self.global_batch
        self.position = self.position.after_step(num_samples, self.global_batch)

    def length(self, period: Period, num_samples: int) -> Length:
        """The training's length; where the global batch has changed, the epochs left count in the new one."""
        total = period.count
        if period.unit == "epochs":
            total = self.step + self.position.steps_to_epoch(period.count, num_samples, self.global_batch)
        return Length(total, num_samples // self.global_batch)


class Scaler(Protocol):
    """The part of Fabric's precision that has a state: the loss scale of 16-mixed."""

    def state_dict(self) -> dict[str, Any]:
        """The state, empty without a scale."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state."""
        ...


@dataclass
class TrainState:
    """What a training is at one moment.

    Args:
        task: with its weights.
        optimizer: over the task's parameters.
        ema: averaged weights, or None.
        scaler: loss scale.
        progress: step, position, best value and so on.
    """

    task: Task
    optimizer: Optimizer
    ema: Ema | None
    scaler: Scaler
    progress: Progress

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside the block the task has the weights to evaluate: the averaged ones if there are any."""
        return self.ema.swapped_in() if self.ema else nullcontext()

    @contextmanager
    def buffers_kept_by_stop(self, *, needed: bool) -> Iterator[None]:
        """Put batch norm statistics back if the block, a step that can be left half-way, is left so."""
        kept = [buffer.clone() for buffer in self.task.buffers()] if needed else []
        try:
            yield
        except StopRequested:
            for buffer, before in zip(self.task.buffers(), kept, strict=False):
                buffer.copy_(before)
            raise

    def snapshot(self, *, with_optimizer: bool) -> Snapshot:
        """What a checkpoint holds; without the optimiser's state it cannot be continued from."""
        progress = self.progress
        train_state = {
            "progress": asdict(progress),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        meta = {
            "step": progress.step,
            "epoch": progress.position.epoch,
            "samples_seen": progress.samples_seen,
            "metrics": progress.metrics,
        }
        averaged = self.ema.state_dict() if self.ema else None
        weights = whole(self.task.state_dict())
        return Snapshot(weights, whole(averaged), whole(train_state) if with_optimizer else None, meta)

    def original_project(self, kind: str) -> TrainingState:
        """What a writer of the original project's files gets; see `TrainingState`.

        Of a sharded training every process has to call it, and the first one alone gets whole tensors.
        """
        progress, saved = self.progress, whole(self.optimizer.state_dict())
        places = enumerate(places_of(self.optimizer, self.task))
        by_parameter = {index: saved["state"][place] for index, place in places if place in saved["state"]}
        optimizer = {**saved, "state": by_parameter}
        position = progress.position
        return TrainingState(
            kind,
            progress.step,
            position.epoch,
            progress.metrics,
            optimizer,
            math.ceil(position.offset / progress.global_batch),
        )

    def resume(self, run: RunFolder, config: RunConfig, say: Callable[[str], None]) -> None:
        """Take up a run's last checkpoint, if there is one; the first process decides for all which it is.

        Args:
            run: the run folder.
            config: its recipe.
            say: takes a line.

        Raises:
            CheckpointError: damaged, or of another network or other parameter groups.
        """
        folder = from_first(find_last(run) if rank() == 0 else None)
        if folder is None:
            return
        now = self.progress.global_batch
        self._restore(folder, config)
        before, self.progress.global_batch = self.progress.global_batch, now
        say(f"goes on from checkpoints/{folder.name}")
        if before != now:
            say(
                f"trained with {before} samples a step, now {now}: the order of samples goes on; "
                f"train.batch_size x train.accumulate x train.devices = {before} keeps the step as it was"
            )

    def _restore(self, folder: Path, config: RunConfig) -> None:
        settings, take = config.as_dict()["system"], partial(cut_like, here=self.task.state_dict())
        name = config.system.name
        load_weights(self.task, folder, system=name, settings=settings, averaged=False, take=take)
        if self.ema is not None:
            self.ema.load_state_dict(take(read_weights(folder / AVERAGED)))
        saved = load_train_state(folder)
        try:
            self.optimizer.load_state_dict(cut_optimizer_state(saved["optimizer"], self.optimizer))
        except ValueError as error:
            raise CheckpointError(
                f"{folder}: the optimiser's state does not fit: {error}",
                "a run goes on with the parameter groups it started with",
            ) from error
        self.scaler.load_state_dict(saved["scaler"])
        self.progress = Progress.from_dict(saved["progress"])
