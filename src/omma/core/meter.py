"""Meters: what an evaluation counts, how processes join their counts, and the numbers that follow.

Used by every system's `meters()`. A state holds sums only, so that one process and many give the same result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from omma.core.metrics import SIMBEV_THRESHOLDS, Counts, confusion_counts, threshold_counts


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


class BinaryIoUMeter(Meter):
    """Intersection over union of label maps whose classes may overlap, pooled over all cells of the set.

    `iou` is the mean over classes of the IoU at logit > 0, and 1 for a class that is nowhere and never found.
    `iou_max` takes each class's best threshold on the very set it is measured on, so it flatters.

    Args:
        class_names: names of the channels.
        thresholds: rising probabilities for `per_class` and `iou_max`; a cell at a threshold counts as found.
        rings_m: (near, far) distances in metres that `ring_index` refers to.
        ring_index: ring of every cell, -1 for none, int (X, Y); None: no metrics by distance.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        thresholds: Sequence[float] = SIMBEV_THRESHOLDS,
        rings_m: Sequence[tuple[float, float]] = ((0, 20), (20, 35), (35, 50)),
        ring_index: NDArray[np.integer] | None = None,
    ) -> None:
        self._classes, self._thresholds = tuple(class_names), tuple(thresholds)
        self._rings = tuple(f"iou/ring_{near:g}_{far:g}m" for near, far in rings_m)
        self._ring_index = ring_index
        if ring_index is None:
            self._rings = ()
        by_class = tuple(f"iou/{name}" for name in self._classes)
        self.names = ("iou", *by_class, "iou_max", "precision", "recall", *self._rings)
        self._sums = self._zeros()
        self._rows: list[dict[str, Any]] = []

    def _zeros(self) -> dict[str, NDArray[np.int64]]:
        C, R, T = len(self._classes), len(self._rings), len(self._thresholds)
        shapes = {"cells": (3, C), "rings": (3, R, C), "thresholds": (3, C, T)}
        return {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}

    def update(
        self, logits: Tensor, target: Tensor, mask: Tensor | None = None, tokens: Sequence[str] | None = None
    ) -> None:
        """Count one batch.

        Args:
            logits: (B, C, X, Y).
            target: (B, C, X, Y), anything but 0 is occupied.
            mask: cells that count, bool, (B, 1 or C, X, Y).
            tokens: sample names for `per_sample`; None: no rows.
        """
        found = logits > 0
        counts = confusion_counts(found, target, mask)
        self._sums["cells"] += _stacked(counts).sum(1)
        for ring in range(len(self._rings)):
            inside = torch.as_tensor(self._ring_index == ring, device=logits.device)
            within = inside if mask is None else mask & inside
            self._sums["rings"][:, ring] += _stacked(confusion_counts(found, target, within)).sum(1)
        probability = logits.float().sigmoid()
        levels = torch.tensor(self._thresholds, dtype=probability.dtype, device=probability.device)
        self._sums["thresholds"] += _stacked(threshold_counts(probability, target, levels, mask))
        if tokens is not None:
            self._rows += _sample_rows(tokens, counts)

    def state(self) -> dict[str, Any]:
        """Counts (tp, fp, fn first) and the rows of the samples."""
        return {**{name: counts.copy() for name, counts in self._sums.items()}, "rows": list(self._rows)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the counts by those over `states`; rows follow one another."""
        sums = self._zeros()
        for state in states:
            for name in sums:
                sums[name] += state[name]
        self._sums, self._rows = sums, [row for state in states for row in state["rows"]]

    def compute(self) -> dict[str, float]:
        """Means over the classes, and the IoU of each."""
        cells, rings = self._sums["cells"], self._sums["rings"]
        tp, fp, fn = cells
        values = [
            _iou(cells).mean(),
            *_iou(cells),
            _iou(self._sums["thresholds"]).max(-1).mean(),
            _ratio(tp, tp + fp, tp + fp + fn).mean(),
            _ratio(tp, tp + fn, tp + fp + fn).mean(),
            *_iou(rings).mean(-1),
        ]
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def per_sample(self) -> list[dict[str, Any]]:
        """token, iou (all classes pooled), tp, fp, fn of every sample that had a token."""
        return self._rows

    def per_class(self) -> list[dict[str, Any]]:
        """class, iou, precision, recall, counts, and the IoU at every threshold."""
        levels = _iou(self._sums["thresholds"])
        rows = []
        for index, name in enumerate(self._classes):
            tp, fp, fn = (int(count) for count in self._sums["cells"][:, index])
            union = tp + fp + fn
            row = {"class": name, "iou": float(_ratio(tp, union, union))}
            row["precision"] = float(_ratio(tp, tp + fp, union))
            row["recall"] = float(_ratio(tp, tp + fn, union))
            row |= {"tp": tp, "fp": fp, "fn": fn}
            best = int(levels[index].argmax())
            row |= {"iou_max": float(levels[index, best]), "iou_max_threshold": self._thresholds[best]}
            thresholds = zip(self._thresholds, levels[index], strict=True)
            rows.append(row | {f"iou@{threshold:g}": float(value) for threshold, value in thresholds})
        return rows


def _stacked(counts: Counts) -> NDArray[np.int64]:
    return torch.stack(counts).cpu().numpy()


def _sample_rows(tokens: Sequence[str], counts: Counts) -> list[dict[str, Any]]:
    """All classes pooled."""
    pooled = _stacked(counts).sum(-1)
    return [
        {
            "token": token,
            "iou": float(_iou(column)),
            "tp": int(column[0]),
            "fp": int(column[1]),
            "fn": int(column[2]),
        }
        for token, column in zip(tokens, pooled.T, strict=True)
    ]


def _iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of counts with (tp, fp, fn) along the first axis."""
    union = counts.sum(0)
    return _ratio(counts[0], union, union)


def _ratio(tp: ArrayLike, whole: ArrayLike, union: ArrayLike) -> NDArray[np.float64]:
    """The share tp / whole; where whole is 0: 1 if nothing is there and nothing found (union 0), else 0."""
    tp, whole = np.asarray(tp, np.float64), np.asarray(whole, np.float64)
    return np.where(whole > 0, tp / np.maximum(whole, 1), np.equal(union, 0))
