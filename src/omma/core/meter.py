"""Meters: what an evaluation counts, how processes join their counts, and the numbers that follow.

Used by every system's `meters()`. A state holds sums only, so that one process and many give the same result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class Meter(ABC):
    """Counts over an evaluation set; `compute` turns them into named numbers.

    Attributes:
        names: the keys of `compute()`, known before the first update.
    """

    names: tuple[str, ...]

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add one batch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The sums so far, as NumPy arrays and plain Python values that pickle."""

    @abstractmethod
    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the own sums by the sum over `states` (one for each process, the own one included)."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics, one value for each of `names`."""

    def per_sample(self) -> list[dict[str, Any]]:
        """One row for each sample, for `per_sample.csv`; empty where a metric has no value per sample."""
        return []

    def per_class(self) -> list[dict[str, Any]]:
        """One row for each class, for `per_class.csv`; empty where there are no classes."""
        return []


class MeanMeter(Meter):
    """A weighted mean, summed in float64.

    Args:
        name: key of the mean in `compute()`.
    """

    def __init__(self, name: str) -> None:
        self.names = (name,)
        self._sum = 0.0
        self._weight = 0.0

    def update(self, value: float, weight: float = 1.0) -> None:
        """Add `value` with `weight` (e.g. a batch's mean loss and its number of samples)."""
        self._sum += float(value) * float(weight)
        self._weight += float(weight)

    def state(self) -> dict[str, Any]:
        """The weighted sum and the sum of the weights."""
        return {"sum": self._sum, "weight": self._weight}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those over `states`."""
        self._sum = sum(float(s["sum"]) for s in states)
        self._weight = sum(float(s["weight"]) for s in states)

    def compute(self) -> dict[str, float]:
        """The mean; not a number before the first update."""
        return {self.names[0]: self._sum / self._weight if self._weight else float("nan")}
