"""Take up a training that another program began: what it has becomes our first checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.amp import GradScaler

from omma.config.base import RunConfig
from omma.data.sampler import Position, steps_per_epoch
from omma.engine.checkpoint import save_checkpoint, step_name
from omma.engine.optim import build_optimizer, places_of
from omma.engine.state import Progress, TrainState
from omma.engine.task import Task
from omma.errors import CheckpointError, ConfigError
from omma.runs.folder import RunFolder


@dataclass(frozen=True)
class ForeignTraining:
    """A training of the original project, read from its file.

    Args:
        weights: state dict of `Task.model`.
        moments: for each trainable parameter of the task, in order, its optimiser state; empty if unknown.
        step: optimiser steps finished.
        epoch: passes over the data finished, where the file is of the end of one; the training then goes on
            with the next pass, whatever number of steps a pass has here. None: the steps say where it is.
    """

    weights: Mapping[str, Tensor]
    moments: list[dict[str, Tensor]]
    step: int
    epoch: int | None = None


def take_weights(task: Task, foreign: ForeignTraining, file: Path) -> None:
    """Give a task the weights of a training that is to be continued.

    Args:
        task: of the same network.
        foreign: what the file holds.
        file: for the message.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        task.model.load_state_dict(dict(foreign.weights))
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise CheckpointError(
            f"{file}: its weights do not fit: {lines}",
            "give the recipe and settings that it was trained with",
        ) from None


def adopt(task: Task, foreign: ForeignTraining, config: RunConfig, run: RunFolder, num_samples: int) -> Path:
    """Write the checkpoint from which a run goes on where the other program stopped.

    Args:
        task: of the run, with the weights; see `take_weights`.
        foreign: what the file holds.
        config: the run's recipe; its global batch says where in the epoch the step lies.
        run: an existing run folder without checkpoints.
        num_samples: size of the training set.

    Returns:
        the checkpoint's folder.
    """
    train, optim = config.train, config.optim
    if not isinstance(train.batch_size, int):
        raise ConfigError("train.batch_size=auto cannot continue another training", "give a number")
    optimizer = build_optimizer(optim, task.param_groups(optim.lr, optim.weight_decay))
    if foreign.moments:
        state = dict(zip(places_of(optimizer, task), foreign.moments, strict=True))
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    global_batch = train.batch_size * train.accumulate * train.devices
    in_pass = steps_per_epoch(num_samples, global_batch)
    step = foreign.step if foreign.epoch is None else foreign.epoch * in_pass
    epoch, step_in_epoch = divmod(step, in_pass)
    progress = Progress(
        step=step,
        position=Position(epoch, step_in_epoch * global_batch),
        samples_seen=step * global_batch,
        global_batch=global_batch,
    )
    snapshot = TrainState(task, optimizer, None, GradScaler(enabled=False), progress).snapshot(
        with_optimizer=True
    )
    return save_checkpoint(run, step_name(step), snapshot, config)
