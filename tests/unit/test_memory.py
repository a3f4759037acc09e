from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omma.engine.memory import _peak_of_steps, _search, find_batch_size, memory_limit
from omma.engine.task import Batch, StepInfo
from omma.errors import OmmaError, OutOfMemoryError
from toy import ToyTask, toy_config


class FakeProbe:
    """Fits up to `capacity` samples; remembers what was tried."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.tried = capacity, list[int]()

    def fits(self, size: int) -> bool:
        self.tried.append(size)
        return size <= self.capacity


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 9, 20, 100, 255, 256, 1000])
def test_search_is_within_an_eighth_and_never_above(capacity):
    probe = FakeProbe(capacity)
    found = _search(probe, 256)
    best = min(capacity, 256)
    assert found <= best
    assert best - found <= best / 8
    assert len(probe.tried) == len(set(probe.tried)) <= 12


def test_nothing_fits():
    with pytest.raises(OutOfMemoryError, match="not even a batch of one"):
        _search(FakeProbe(0), 256)


class Mortal(ToyTask):
    """The system ends its process above 3 samples."""

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        if batch_size > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().example_batch(batch_size)


class Hungry(ToyTask):
    """Keeps 40 MiB a sample for the backward pass."""

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        terms = super().training_step(batch, info)
        large = torch.ones(len(batch["token"]), 10 * 2**20)
        return {**terms, "loss": terms["loss"] * large.sum() / large.numel()}


linux_only = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@linux_only
def test_a_process_that_dies_counts_as_too_large():
    config = toy_config()
    assert find_batch_size(functools.partial(Mortal, config), config, largest=8) == 3


class Faulty(ToyTask):
    def example_batch(self, batch_size: int) -> dict[str, Any]:
        raise KeyError("labels")


def test_a_fault_in_the_task_is_not_taken_for_a_lack_of_memory(capfd):
    config = toy_config()
    with pytest.raises(OmmaError, match=r"train\.batch_size=1 failed"):
        find_batch_size(functools.partial(Faulty, config), config)
    assert "KeyError: 'labels'" in capfd.readouterr().err


@linux_only
def test_peak_memory_is_that_of_the_batch():
    config = toy_config()
    task = Hungry(config)
    small = _peak_of_steps(task, config, torch.device("cpu"), 1)
    large = _peak_of_steps(task, config, torch.device("cpu"), 6)
    again = _peak_of_steps(task, config, torch.device("cpu"), 1)
    assert 150 * 2**20 < large - small < 300 * 2**20
    assert abs(again - small) < 60 * 2**20, "the peak was not reset"


def test_running_out_of_memory_is_an_answer():
    class Huge(ToyTask):
        def example_batch(self, batch_size: int) -> dict[str, Any]:
            return {"image": torch.empty(2**50)}

    config = toy_config()
    assert _peak_of_steps(Huge(config), config, torch.device("cpu"), 1) is None


def test_the_largest_size_is_an_upper_bound():
    config = toy_config()
    assert find_batch_size(functools.partial(ToyTask, config), config, largest=5) == 5


def test_limit_of_a_cpu_is_below_what_is_free():
    assert 2**28 < memory_limit(torch.device("cpu")) < 2**50
