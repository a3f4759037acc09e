"""Randomness as a pure function of where the training stands, so that a resumed run draws the same."""

from __future__ import annotations

import numpy as np
import torch


def mix(seed: int, step: int, micro: int, rank: int) -> int:
    """One well-mixed 63-bit seed for (seed, step, micro, rank), the same on every platform."""
    return int(np.random.SeedSequence([seed, step, micro, rank]).generate_state(1, np.uint64)[0] >> 1)


def seed_step(seed: int, step: int, micro: int, rank: int) -> None:
    """Seed PyTorch's generators (CPU and GPU) for one micro-step of one process.

    Args:
        seed: the run's seed.
        step: optimiser steps finished.
        micro: micro-steps finished in this step.
        rank: index of the process.
    """
    value = mix(seed, step, micro, rank)
    torch.default_generator.manual_seed(value)  # torch.manual_seed formats three stack traces: 1 ms a call
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
