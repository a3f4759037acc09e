"""Which samples each step sees: a pure function of the seed and the position in the training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from omma.errors import DataError


@dataclass(frozen=True)
class Position:
    """Where in the sequence of samples a training stands.

    Args:
        epoch: passes over the training data finished.
        offset: samples of the running pass already taken.
    """

    epoch: int = 0
    offset: int = 0

    def fitted(self, num_samples: int, global_batch: int) -> Position:
        """The same position, or the next pass where this one has no whole global batch left."""
        return self if self.offset + global_batch <= num_samples else Position(self.epoch + 1, 0)

    def after_step(self, num_samples: int, global_batch: int) -> Position:
        """The position one optimiser step later; the rest of a pass that fills no global batch is dropped."""
        return Position(self.epoch, self.offset + global_batch).fitted(num_samples, global_batch)

    def steps_to_epoch(self, epoch: int, num_samples: int, global_batch: int) -> int:
        """Optimiser steps from here to the start of pass `epoch`; 0 where that lies behind."""
        whole_epochs = (epoch - self.epoch) * (num_samples // global_batch)
        return max(0, whole_epochs - self.offset // global_batch)


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one pass: a permutation of 0 .. num_samples - 1, (num_samples,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


def steps_per_epoch(num_samples: int, global_batch: int) -> int:
    """Optimiser steps in one pass over the data.

    Args:
        num_samples: size of the training set.
        global_batch: samples an optimiser step sees: batch size x accumulate x processes.

    Raises:
        DataError: the training set is smaller than one global batch.
    """
    if num_samples < global_batch:
        raise DataError(
            f"the training set has {num_samples} samples, fewer than the {global_batch} of one step",
            hint=f"train.batch_size x train.accumulate x train.devices is {global_batch}: lower one of them",
        )
    return num_samples // global_batch


class TrainBatches(Sampler[list[tuple[int, int]]]):
    """The micro-batches of one process over a whole training, as lists of (epoch, index).

    Global batches are cut from the global order; each is cut into micro-batches over all processes, of which
    a process takes its slice. So 2 processes x batch 4 see the same global batches as 1 process x batch 8.

    Args:
        num_samples: size of the training set.
        batch_size: samples a process and micro-step.
        accumulate: micro-steps an optimiser step.
        rank: index of this process.
        world: number of processes.
        seed: of the order.
        start: where in the sequence to begin.
        num_steps: optimiser steps to yield.

    Raises:
        DataError: the training set is smaller than one global batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        start: Position = Position(),
        num_steps: int,
    ) -> None:
        self.num_samples, self.batch_size, self.accumulate = num_samples, batch_size, accumulate
        self.rank, self.world, self.seed = rank, world, seed
        self.global_batch = batch_size * accumulate * world
        steps_per_epoch(num_samples, self.global_batch)
        self.start = start.fitted(num_samples, self.global_batch)
        self.num_steps = num_steps

    def __len__(self) -> int:
        return self.num_steps * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position, order, order_epoch = self.start, np.empty(0, np.int64), -1
        for _ in range(self.num_steps):
            if position.epoch != order_epoch:
                order_epoch = position.epoch
                order = epoch_order(self.num_samples, self.seed, order_epoch)
            global_batch = order[position.offset : position.offset + self.global_batch]
            for own in global_batch.reshape(self.accumulate, self.world, self.batch_size)[:, self.rank]:
                yield [(order_epoch, index) for index in own.tolist()]
            position = position.after_step(self.num_samples, self.global_batch)


def validation_batches(
    num_samples: int, batch_size: int, *, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """One process's batches in an evaluation: all processes see each sample once; the last is short."""
    own = range(rank, num_samples, world)
    return [list(own[start : start + batch_size]) for start in range(0, len(own), batch_size)]
