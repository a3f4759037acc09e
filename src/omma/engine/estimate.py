"""What a training keeps in memory, from the forward passes of one and of two samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from omma.config.base import Optim, RunConfig
from omma.engine.evaluate import autocast
from omma.engine.memory import memory_limit
from omma.engine.setup import prepare_task
from omma.engine.task import StepInfo, Task

_FEW, _MORE = 1, 2  # samples of the two passes
CPU_OVERHEAD = 1.5  # what a process on a CPU takes over what PyTorch asks for, by its allocator and kernels


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that PyTorch asks for in a training step; the work space of kernels comes on top.

    Args:
        weights: parameters and buffers.
        averaged: a second set of them, where weights are averaged.
        gradients: of the trainable parameters.
        optimiser: its state.
        shared: kept for the backward pass whatever the batch, such as weights in half precision.
        per_sample: kept for the backward pass by each sample, with the sample itself.
        at_least: whether a sample keeps more than that, and so much alone is more than there is.
    """

    weights: int
    averaged: int
    gradients: int
    optimiser: int
    shared: int
    per_sample: int
    at_least: bool = False

    @property
    def fixed(self) -> int:
        """Bytes without any sample."""
        return self.weights + self.averaged + self.gradients + self.optimiser + self.shared

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint that a training can go on from."""
        return self.weights + self.averaged + self.optimiser

    @property
    def weights_file(self) -> int:
        """Bytes of best/ or final/, which hold weights alone."""
        return self.weights

    def step(self, batch_size: int) -> int:
        """Bytes with a batch."""
        return self.fixed + batch_size * self.per_sample

    def largest_batch(self, limit: int) -> int:
        """The most samples a batch that stay within so many bytes; 0 where not even one does."""
        return max(0, (limit - self.fixed) // max(1, self.per_sample))


def usable_memory(device: torch.device) -> int:
    """Bytes of what is free on a device that an estimate may reach."""
    limit = memory_limit(device)
    return int(limit / CPU_OVERHEAD) if device.type == "cpu" else limit


class _TooMuch(Exception):  # noqa: N818  a reason to leave, not an error
    """A pass keeps more than there is."""


def estimate_memory(task: Task, config: RunConfig, *, limit: int | None = None) -> MemoryEstimate:
    """Measure what the forward passes of one and of two samples keep, and extrapolate.

    Args:
        task: a fresh one, on the device to measure on; it is changed as a training changes it.
        config: precision, memory format, activation checkpointing, optimiser and averaging are taken from it.
        limit: bytes at which a pass is left, lest the system ends this process. Where one sample reaches it,
            the estimate is a lower bound; where two do, nothing is taken to be shared.
    """
    prepare_task(task, config.train.model_copy(update={"compile": False}), task.device, lambda text: None)
    own = [*task.parameters(), *task.buffers()]
    trainable = [p for group in task.param_groups(config.optim.lr, 0.0) for p in group["params"]]
    weights, gradients = _total(own), _total(trainable)
    few, left = _kept(task, config, _FEW, limit)
    per_sample = few
    if not left:
        more, stopped = _kept(task, config, _MORE, limit)
        per_sample = few if stopped else (more - few) // (_MORE - _FEW)
    return MemoryEstimate(
        weights=weights,
        averaged=weights if config.train.ema else 0,
        gradients=gradients,
        optimiser=_states(config.optim) * gradients,
        shared=max(0, few - _FEW * per_sample),
        per_sample=per_sample,
        at_least=left,
    )


def _states(optim: Optim) -> int:
    """Numbers that the optimiser keeps for each parameter."""
    if optim.name == "sgd":
        return int(optim.momentum > 0)
    return 2


def _kept(task: Task, config: RunConfig, batch_size: int, limit: int | None) -> tuple[int, bool]:
    """Bytes alive between the forward and the backward pass, apart from the task's own tensors.

    Returns:
        the bytes, and whether the pass was left when they passed the limit.
    """
    own = _storages([*task.parameters(), *task.buffers()])
    batch = task.example_batch(batch_size)
    kept = _storages(value for value in batch.values() if isinstance(value, Tensor))

    kept = {place: size for place, size in kept.items() if place not in own}
    total = sum(kept.values())

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        for place, size in _storages([tensor]).items():
            if place not in own and place not in kept:
                kept[place], total = size, total + size
        if limit is not None and total > limit:
            raise _TooMuch
        return tensor.detach()  # the graph holds it, so that no later tensor gets its address

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    try:
        with saved_tensors_hooks(pack, unpack), autocast(task.device, config.train.precision):
            result: dict[str, Any] = task.training_step(batch, StepInfo(0, 0, 0.0))
    except _TooMuch:
        return total, True
    assert result["loss"].requires_grad, "a training step has something to learn"
    return total, False


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address -> bytes of the memory behind tensors; views share theirs."""
    memories = [tensor.untyped_storage() for tensor in tensors]
    return {memory.data_ptr(): memory.nbytes() for memory in memories}


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
