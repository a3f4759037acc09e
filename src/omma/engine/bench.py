"""Where a training step's time goes: data, forward, backward, optimiser; and its memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from omma.config.base import RunConfig
from omma.engine.evaluate import autocast
from omma.engine.optim import build_optimizer
from omma.engine.recompute import recompute_activations
from omma.engine.task import Batch, StepInfo, Task

WARMUP = 2  # steps that are not measured


@dataclass
class Timing:
    """Milliseconds of each part of each measured step."""

    parts: dict[str, list[float]] = field(default_factory=dict)

    def add(self, part: str, seconds: float) -> None:
        """Add one measurement."""
        self.parts.setdefault(part, []).append(seconds * 1e3)

    def medians(self) -> dict[str, float]:
        """Part -> median milliseconds, and their sum as "step"."""
        medians = {part: statistics.median(values) for part, values in self.parts.items()}
        return medians | {"step": sum(medians.values())}


def bench_steps(
    task: Task, config: RunConfig, next_batch: Callable[[], Batch], *, steps: int
) -> dict[str, Any]:
    """Run training steps and time their parts.

    Args:
        task: on its device.
        config: precision, memory format, activation checkpointing and optimiser are taken from it.
        next_batch: gives a batch on the device; its time counts as "data".
        steps: measured steps, after WARMUP ones.

    Returns:
        milliseconds (medians) by part, samples a second, memory in MiB, load of the machine and threads.
    """
    optimizer = build_optimizer(config.optim, task.param_groups(config.optim.lr, config.optim.weight_decay))
    if config.train.channels_last:
        task.model.to(memory_format=torch.channels_last)
    if config.train.activation_checkpointing:
        recompute_activations(task)
    task.train()
    timing, samples = Timing(), 0
    for step in range(WARMUP + steps):
        kept = timing if step >= WARMUP else Timing()
        samples = _timed_step(task, config, optimizer, next_batch, kept, StepInfo(step, 0, 0.0))
    medians = timing.medians()
    return {
        "ms": medians,
        "samples_per_second": samples / medians["step"] * 1e3,
        "memory_mib": _memory_mib(task.device),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if task.device.type == "cuda" else "cpu",
    }


def _timed_step(
    task: Task,
    config: RunConfig,
    optimizer: torch.optim.Optimizer,
    next_batch: Callable[[], Batch],
    timing: Timing,
    info: StepInfo,
) -> int:
    clock = _parts(timing, task.device)
    next(clock)
    batch = next_batch()
    clock.send("data")
    optimizer.zero_grad(set_to_none=True)
    with autocast(task.device, config.train.precision):
        loss = task.training_step(batch, info)["loss"]
    clock.send("forward")
    loss.backward()
    clock.send("backward")
    if config.optim.grad_clip:
        torch.nn.utils.clip_grad_norm_(task.parameters(), config.optim.grad_clip)
    optimizer.step()
    clock.send("optimiser")
    return len(batch["token"])


def _parts(timing: Timing, device: torch.device) -> Iterator[Any]:
    """A stop watch: `send(part)` books the time since the last call."""
    last = time.perf_counter()
    while True:
        part = yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        timing.add(part, now - last)
        last = now


def _memory_mib(device: torch.device) -> float:
    """Peak memory: of the allocator on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
