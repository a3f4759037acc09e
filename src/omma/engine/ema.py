"""Averaged weights: an exponential moving average of the trainable parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Keeps the average beside the module; buffers (batch norm statistics) are averages already and shared.

    The decay starts low, min(decay, (1 + n) / (10 + n)) at update n, so that a short run does not evaluate
    its initial weights.

    Args:
        module: what to average; only parameters that require a gradient now.
        decay: weight of the old average, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after an optimiser step.

        Args:
            step: optimiser steps finished, this one included.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1.0 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The module holds the averaged weights inside the block and its own again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The module's state dict with the averaged weights in place of its own."""
        return {**self._module.state_dict(), **self._average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the averages from a state dict that `state_dict` made."""
        for name, average in self._average.items():
            average.copy_(state[name])
