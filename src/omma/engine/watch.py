"""What is said while a training runs: a loss that jumps, a metric that falls, steps that wait for data."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

WINDOW, JUMP = 5, 2.0  # a logged loss above so many times the mean of so many before it has jumped
FALL = 0.05  # of a metric between 0 and 1 below its best
WAITING, ROWS = 0.3, 3  # share of a step that waits for data, in so many rows one after the other


def jumped(before: Sequence[float], value: float) -> bool:
    """Whether a logged loss is more than twice the mean of the five before it.

    Args:
        before: losses logged before, the newest last.
        value: the loss.
    """
    last = list(before)[-WINDOW:]
    mean = sum(last) / max(1, len(last))
    return len(last) == WINDOW and 0 < mean < math.inf and value > JUMP * mean


def fallen(value: float, best: float) -> bool:
    """Whether a metric between 0 and 1, of which more is better, is far below its best."""
    return 0 <= value <= best <= 1 and best - value > FALL


class Watch:
    """Looks at rows of a training as they are recorded and says what is unusual."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._quiet = 0
        self._waited: int | None = 0

    def train_row(self, values: Mapping[str, float | None]) -> list[str]:
        """Lines about a logged step with its "loss" and "data_share"; none where nothing is unusual."""
        return [*self._loss(values["loss"] or 0.0), *self._data(values["data_share"] or 0.0)]

    def val_row(self, value: float, best: tuple[str, float | None, int]) -> list[str]:
        """Lines about a validation.

        Args:
            value: of the metric that decides.
            best: its name, and value and step of the best validation so far.
        """
        name, highest, step = best
        if highest is None or not fallen(value, highest):
            return []
        return [f"warning: {name} {value:.4g} is {highest - value:.3g} below its best at step {step}"]

    def _loss(self, loss: float) -> list[str]:
        lines = []
        self._quiet = max(0, self._quiet - 1)
        if jumped(self._losses, loss) and not self._quiet:
            mean = sum(self._losses) / WINDOW
            text = f"the loss {loss:.4g} is {loss / mean:.1f} times the mean of the last {WINDOW} logged"
            lines = [f"warning: {text}; if it stays there, lower optim.lr or optim.grad_clip"]
            self._quiet = WINDOW
        if math.isfinite(loss):
            self._losses.append(loss)
        return lines

    def _data(self, share: float) -> list[str]:
        """Once, after several rows; the first of them waits for the processes to start."""
        if self._waited is None:
            return []
        self._waited = self._waited + 1 if share > WAITING else 0
        if self._waited <= ROWS:
            return []
        self._waited = None
        return [f"hint: {share:.0%} of the time waits for data; more train.workers may help"]
