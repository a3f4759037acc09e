"""What is settled before the first step: device, kernels, form of the network, data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from omma.config.base import RunConfig, Train
from omma.data.dataset import Collate, Samples
from omma.data.loader import Loader, start_method
from omma.data.sampler import Position, TrainBatches
from omma.engine.evaluate import Evaluator
from omma.engine.judge import Judge
from omma.engine.ranks import rank, world_size
from omma.engine.recompute import recompute_activations
from omma.engine.schedule import Length, warmup_steps
from omma.engine.state import Progress
from omma.engine.task import Task

Say = Callable[[str], None]


def pick_device(wanted: str, say: Say) -> torch.device:
    """The device of `train.device`; where it is not there, say so and take the CPU.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:1".
        say: takes a line.
    """
    count = torch.cuda.device_count()
    device = torch.device(("cuda" if count else "cpu") if wanted == "auto" else wanted)
    if device.type == "cuda" and (device.index or 0) >= count:
        say(f"train.device={wanted} is not there ({count} CUDA devices found); using the CPU")
        return torch.device("cpu")
    return device


@contextmanager
def deterministic_kernels(on: bool) -> Iterator[None]:
    """Inside the block, kernels that sum in a fixed order where PyTorch has them; it warns of others."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = not on
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def prepare_task(task: Task, config: Train, device: torch.device, say: Say) -> None:
    """Move the task to the device and put on memory format, recomputation and compilation as asked for."""
    if config.channels_last:
        task.model.to(memory_format=torch.channels_last)
    if config.activation_checkpointing:
        if not task.checkpoint_blocks():
            say("train.activation_checkpointing has no effect: this system names no blocks for it")
        recompute_activations(task)
    if config.compile:
        for module in task.compile_targets():
            module.compile()
    task.to(device).train()


def train_loader(
    data: Samples, collate: Collate, config: RunConfig, start: Position, num_steps: int, device: torch.device
) -> Loader:
    """Micro-batches of this process from a position on.

    Args:
        data: training set.
        collate: joins samples into a batch.
        config: the recipe.
        start: where in the sequence of samples to begin.
        num_steps: optimiser steps left.
        device: where the batches will go.
    """
    batches = TrainBatches(
        len(data),
        config.train.batch_size,
        accumulate=config.train.accumulate,
        rank=rank(),
        world=world_size(),
        seed=config.seed,
        start=start,
        num_steps=max(0, num_steps),
    )
    return Loader(
        data,
        collate,
        batches,
        workers=config.train.workers,
        device=device,
        start_method=start_method(world_size()),
    )


def evaluator(data: Samples, collate: Collate, config: RunConfig, device: torch.device) -> Evaluator:
    """The validation of a recipe."""
    return Evaluator(
        data,
        collate,
        batch_size=config.validation.batch_size or config.train.batch_size,
        workers=config.train.workers,
        device=device,
        precision=config.train.precision,
        limit=config.validation.limit,
    )


def describe(
    config: RunConfig, length: Length, progress: Progress, judge: Judge, device: torch.device, say: Say
) -> None:
    """Say what will be trained how, and what is unusual about it."""
    say(
        f"training: {length.total} steps of {progress.global_batch} samples, "
        f"{length.steps_per_epoch} steps an epoch,"
        f" on {device}, precision {config.train.precision}"
    )
    word = "highest" if judge.mode == "max" else "lowest"
    say(f"best/ keeps the {word} {judge.metric}")
    if config.train.ema:
        say(f"validation, best/ and final/ use averaged weights (train.ema={config.train.ema})")
    warmup = warmup_steps(config.schedule, length)
    if 2 * warmup > length.total > 0:
        say(f"schedule.warmup of {warmup} steps takes more than half of the {length.total} steps")
