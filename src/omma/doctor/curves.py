"""A run's curves as its checks see them, and what several checks compute from them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.runs.metrics import KEYS, series

Values = NDArray[np.float64]

NOT_TERMS = {*KEYS, "time_s", "lr", "loss", "step_time", "data_share", "grad_norm", "memory"}
FEW_POINTS, MANY_POINTS = 3, 20  # logged steps from which a rule about an end, or a trend, speaks


@dataclass(frozen=True)
class Curves:
    """A run as the rules see it.

    Args:
        rows: of metrics.csv.
        status: of status.json.
        config: of config.yaml.
        best: the system's metric without its phase, and its direction.
        run: what commands call the run.
    """

    rows: Sequence[Mapping[str, Any]]
    status: Mapping[str, Any]
    config: Mapping[str, Any]
    best: tuple[str, str]
    run: str

    def values(self, column: str, phase: str = "train") -> Values:
        """All values of one column."""
        return np.asarray(series(self.rows, phase, column)[1], np.float64)

    @property
    def lr(self) -> float:
        """The recipe's learning rate."""
        return float(self.config["optim"]["lr"])

    def train(self, settings: str) -> str:
        """The command that trains the same with other settings."""
        return f"`omma train {self.run} {settings}`"


def run_reference(run: str) -> str:
    """A run's name or path as a word of a command."""
    return shlex.quote(run)


def columns(curves: Curves) -> list[str]:
    """Recorded terms and metrics in their order."""
    return [
        name for name in dict.fromkeys(key for row in curves.rows for key in row) if name not in NOT_TERMS
    ]


def finite(values: Values) -> Values:
    """The values that are neither NaN nor infinite."""
    return values[np.isfinite(values)]


def tail(values: Values) -> Values:
    """The last tenth, three values at least."""
    return values[-max(3, len(values) // 10) :]


def end(values: Values) -> float:
    """Median of the tail."""
    return float(np.median(tail(values)))


def start(values: Values) -> float:
    """Median of the first tenth, of one value at least."""
    return float(np.median(values[: max(1, len(values) // 10)]))


def lowest(values: Values) -> float:
    """The lowest median of so many neighbours as the end has."""
    width = len(tail(values))
    return min(float(np.median(values[i : i + width])) for i in range(len(values) - width + 1))
