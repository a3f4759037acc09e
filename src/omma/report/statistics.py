"""What the difference between two runs is worth: seeds as mean and deviation, samples as an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 2_000_000
_COUNTS = ("tp", "fp", "fn")


def mean_deviation(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, sample standard deviation (None for a single value) and number of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan, None, 0
    return float(np.mean(finite)), float(np.std(finite, ddof=1)) if len(finite) > 1 else None, len(finite)


@dataclass(frozen=True)
class Score:
    """A number of a data set that follows from sums over its samples.

    Args:
        kind: what the number is, in words.
        summands: (samples, K) float64.
        value: (R, K) sums and the number of samples -> (R,) scores.
    """

    kind: str
    summands: Floats
    value: Callable[[Floats, int], Floats]

    def of_all(self) -> float:
        """The score of the whole set."""
        return float(self.value(self.summands.sum(0)[None], len(self.summands))[0])


def pooled_iou(counts: Floats) -> Floats:
    """(R, 3, C) summed tp, fp, fn -> (R,) mean IoU over the classes that have ground truth.

    Where no class has any, the result is NaN.
    """
    tp, fp, fn = counts[:, 0], counts[:, 1], counts[:, 2]
    there = tp + fn > 0
    iou = np.where(there, tp / np.maximum(tp + fp + fn, 1), 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(iou.sum(-1) / there.sum(-1), dtype=np.float64)


def sample_score(rows: Sequence[Mapping[str, Any]], metric: str) -> Score | None:
    """The score that rows of per_sample.csv allow, nearest to the metric.

    Counts by class (`tp/car` or `tp_car` and so on) give the mean over classes of the IoU pooled over
    samples; counts tp, fp, fn the IoU pooled over samples and classes; else the metric's own column gives its
    mean over samples. Counts are for IoU-like metrics only.

    Args:
        rows: typed rows; all have the same columns.
        metric: name of the best metric.
    """
    columns = list(rows[0]) if rows else []
    classes = _count_columns(columns) if "iou" in metric.casefold() else []
    if classes:
        counts = np.array([[row[name] or 0 for group in classes for name in group] for row in rows], float)
        several = "the mean over classes of the IoU pooled over samples"
        kind = several if classes[0][0] != "tp" else "the IoU pooled over samples and classes"
        return Score(kind, counts, lambda sums, _: pooled_iou(sums.reshape(len(sums), -1, 3).swapaxes(1, 2)))
    column = _own_column(columns, metric)
    if column is None or not all(isinstance(row[column], int | float | None) for row in rows):
        return None
    values = np.array([[math.nan if row[column] is None else row[column]] for row in rows], dtype=float)
    return Score(f"the mean of {column} over samples", values, lambda sums, number: sums[:, 0] / number)


def _count_columns(columns: Sequence[str]) -> list[tuple[str, str, str]]:
    """(tp, fp, fn) column names by class; those of all classes together if there are no others."""
    for mark in ("/", "_"):
        names = [column[3:] for column in columns if column.startswith(f"tp{mark}")]
        groups = [(f"tp{mark}{name}", f"fp{mark}{name}", f"fn{mark}{name}") for name in names]
        if groups and all(name in columns for group in groups for name in group):
            return groups
    return [("tp", "fp", "fn")] if set(_COUNTS) <= set(columns) else []


def _own_column(columns: Sequence[str], metric: str) -> str | None:
    wanted = metric.casefold()
    exact = [column for column in columns if column.casefold() == wanted]
    near = [column for column in columns if len(column) > 2 and wanted.endswith(column.casefold())]
    return next(iter([*exact, *near]), None)


@dataclass(frozen=True)
class Interval:
    """A difference of two scores over the same samples.

    Args:
        difference: second minus first, over all samples.
        low: lower end of the interval.
        high: upper end.
        samples: number of samples.
    """

    difference: float
    low: float
    high: float
    samples: int


def paired_bootstrap(
    first: Score, second: Score, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Percentile interval of the difference when the test samples are drawn anew, the same for both.

    Args:
        first: the score that is compared with.
        second: of the same samples in the same order; samples without a value in either are left out.
        resamples: number of draws with replacement.
        seed: of the draws.

    Returns:
        the interval at 95 %; None without samples.
    """
    both = np.isfinite(first.summands).all(1) & np.isfinite(second.summands).all(1)
    pair = [Score(score.kind, score.summands[both], score.value) for score in (first, second)]
    number = int(both.sum())
    if not number:
        return None
    random = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _CHUNK // number))
    found: list[Floats] = []
    for start in range(0, resamples, at_once):
        weights = _draw(random, min(at_once, resamples - start), number)
        scores = [score.value(weights @ score.summands, number) for score in pair]
        found.append(scores[1] - scores[0])
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return Interval(pair[1].of_all() - pair[0].of_all(), float(low), float(high), number)


def _draw(random: np.random.Generator, draws: int, number: int) -> Floats:
    """(draws, number) how often each sample was drawn."""
    index = random.integers(number, size=(draws, number)) + np.arange(draws)[:, None] * number
    return np.bincount(index.ravel(), minlength=draws * number).reshape(draws, number).astype(np.float64)
