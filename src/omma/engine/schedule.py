"""The learning rate's factor: a pure function of the step, and the one that reacts to a metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omma.config.base import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    PlateauSchedule,
    PolySchedule,
    Schedule,
    Share,
    StepSchedule,
)


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Args:
        total: optimiser steps.
        steps_per_epoch: optimiser steps of one pass over the data.
    """

    total: int
    steps_per_epoch: int


def lr_factor(schedule: Schedule, step: int, length: Length) -> float:
    """Factor of the learning rate for one optimiser step.

    Args:
        schedule: the recipe's `schedule` section.
        step: optimiser steps finished before this one.
        length: of the training.

    Returns:
        warm-up factor x schedule factor. Step and poly count from the first step, as mmcv does; cosine and
        linear start after the warm-up. The plateau schedule's own factor is in `Plateau`.
    """
    return _warmup(schedule, step, length) * _after_warmup(schedule, step, length)


def warmup_steps(schedule: Schedule, length: Length) -> int:
    """Optimiser steps of the warm-up."""
    warmup = schedule.warmup
    return warmup.steps(length.total if isinstance(warmup, Share) else length.steps_per_epoch)


def _warmup(schedule: Schedule, step: int, length: Length) -> float:
    steps = warmup_steps(schedule, length)
    return 1.0 if step >= steps else 1.0 - (1.0 - step / steps) * (1.0 - schedule.warmup_factor)


def _after_warmup(schedule: Schedule, step: int, length: Length) -> float:
    if isinstance(schedule, ConstantSchedule | PlateauSchedule):
        return 1.0
    if isinstance(schedule, StepSchedule):
        return schedule.gamma ** _drops(schedule, step, length)
    if isinstance(schedule, LinearSchedule):
        return _faded(schedule, 1.0 - _progress_after_warmup(schedule, step, length))
    if isinstance(schedule, PolySchedule):
        return max(schedule.final_factor, (1.0 - min(1.0, step / length.total)) ** schedule.power)
    return _faded(schedule, 0.5 * (1.0 + math.cos(math.pi * _progress_after_warmup(schedule, step, length))))


def _drops(schedule: StepSchedule, step: int, length: Length) -> int:
    if schedule.at is not None:
        return sum(step >= period.steps(length.steps_per_epoch) for period in schedule.at)
    every = schedule.every.steps(length.steps_per_epoch)
    return step // every if every else 0


def _progress_after_warmup(schedule: Schedule, step: int, length: Length) -> float:
    warmup = warmup_steps(schedule, length)
    return min(1.0, max(0, step - warmup) / max(1, length.total - warmup))


def _faded(schedule: CosineSchedule | LinearSchedule, factor: float) -> float:
    return schedule.final_factor + (1.0 - schedule.final_factor) * factor


def improved(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `min_delta`; NaN never does, a first number always."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if mode == "max" else value < best - min_delta


@dataclass
class Patience:
    """Counts validations without a better value.

    Args:
        best: best value so far; None before the first validation.
        bad: validations since then.
    """

    best: float | None = None
    bad: int = 0

    def count(self, value: float, mode: str, min_delta: float = 0.0) -> None:
        """Count one validation; `mode` ("max" or "min") says which value is better."""
        if improved(value, self.best, mode, min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1


@dataclass
class Plateau:
    """The factor of a PlateauSchedule: times gamma after `patience` validations without a better value.

    Args:
        factor: the factor now.
        waiting: since when; starts anew after a drop.
    """

    factor: float = 1.0
    waiting: Patience = field(default_factory=Patience)

    def update(self, schedule: PlateauSchedule, value: float, mode: str) -> None:
        """Count one validation of the best metric."""
        self.waiting.count(value, mode)
        if self.waiting.bad >= schedule.patience:
            self.factor = max(schedule.min_factor, self.factor * schedule.gamma)
            self.waiting.bad = 0
