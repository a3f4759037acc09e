"""What labels and predictions hold over some samples: shares, overlap, range, symmetry; as running sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.symmetry import AS_IT_IS, SYMMETRIES, symmetries

BACKGROUND = "background"
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The label of one sample.

    Args:
        occupied: (C, X, Y); the classes of a cell may overlap.
        visible: (X, Y); the cells that count.
        foreign: cells whose stored value means nothing.
        unseen: cells marked visible that the camera cannot see.
    """

    occupied: Bools
    visible: Bools
    foreign: int = 0
    unseen: int = 0


def label_map(scores: NDArray[Any], threshold: float = 0.0) -> NDArray[np.int64]:
    """One class a cell: the strongest of those above the threshold, C (background) where none is.

    Args:
        scores: (C, X, Y); of equal ones the first class wins, so booleans give the first class that is set.
        threshold: 0 for logits and booleans.

    Returns:
        (X, Y) int64 in 0..C.
    """
    scores = np.asarray(scores, np.float32)
    return np.where(scores.max(0) > threshold, scores.argmax(0), len(scores))


class MapCounts:
    """Running sums over samples of label maps and logits; cells that are not visible count nowhere.

    A share "by class" counts a cell once for each class; a share "of the label map" gives it one label.

    Args:
        names: of the C classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        classes, labels = len(self.names), len(self.names) + 1
        self.samples = self.predicted = 0
        self.cells = self.visible = self.foreign = self.unseen = self.several = self.agreeing = 0
        self.truth, self.found, self.shared = (np.zeros(classes, np.int64) for _ in range(3))
        self.truth_map, self.found_map = np.zeros(labels, np.int64), np.zeros(labels, np.int64)
        self.lowest, self.highest, self.not_finite = np.inf, -np.inf, 0
        self.sample_iou: dict[str, float] = {}
        self.turned: dict[str, NDArray[np.int64]] = {}
        self.wins: dict[str, int] = {}
        self.same_truth = self.same_found = True
        self._first: dict[str, NDArray[np.int64]] = {}

    def add_truth(self, truth: Truth) -> None:
        """Count one label."""
        inside = truth.occupied & truth.visible
        self.samples += 1
        self.cells += truth.visible.size
        self.visible += int(truth.visible.sum())
        self.foreign += truth.foreign
        self.unseen += truth.unseen
        self.several += int((inside.sum(0) > 1).sum())
        self.truth += inside.sum((1, 2))
        own = label_map(truth.occupied)
        self.truth_map += _histogram(own, truth.visible, len(self.truth_map))
        self.same_truth &= self._as_the_first("truth", own)

    def add_prediction(self, token: str, logits: NDArray[np.float32], truth: Truth) -> None:
        """Count one prediction, logits (C, X, Y), after its label."""
        finite = np.isfinite(logits)
        self.predicted += 1
        self.not_finite += int((~finite).sum())
        if finite.any():
            self.lowest = min(self.lowest, float(logits[finite].min()))
            self.highest = max(self.highest, float(logits[finite].max()))
        found = np.nan_to_num(logits) > 0
        inside, occupied = found & truth.visible, truth.occupied & truth.visible
        self.found += inside.sum((1, 2))
        self.shared += (inside & occupied).sum((1, 2))
        own = label_map(np.nan_to_num(logits))
        self.found_map += _histogram(own, truth.visible, len(self.found_map))
        self.agreeing += int(((own == label_map(truth.occupied)) & truth.visible).sum())
        self.same_found &= self._as_the_first("found", own)
        self._add_symmetries(token, found, truth)

    def _add_symmetries(self, token: str, found: Bools, truth: Truth) -> None:
        """Overlap of the prediction under each symmetry, and which of them suits this sample best."""
        occupied = truth.occupied & truth.visible
        overlap = {}
        for name in symmetries(found.shape[1:]):
            turned = SYMMETRIES[name](found) & truth.visible
            counts = np.stack([(turned & occupied).sum((1, 2)), (turned | occupied).sum((1, 2))])
            self.turned[name] = self.turned.get(name, 0) + counts
            shared, union = counts.sum(1)
            overlap[name] = float(shared / union) if union else 1.0
        self.sample_iou[token] = overlap[AS_IT_IS]
        for name, value in overlap.items():
            self.wins[name] = self.wins.get(name, 0) + (value > overlap[AS_IT_IS])

    def _as_the_first(self, kind: str, own: NDArray[np.int64]) -> bool:
        return bool(np.array_equal(self._first.setdefault(kind, own), own))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels of a label map."""
        return (*self.names, BACKGROUND)

    @property
    def present(self) -> Bools:
        """(C,): the classes with ground truth."""
        return self.truth > 0

    @property
    def ignored_share(self) -> float:
        """Share of the cells that count nowhere."""
        return 1 - self.visible / max(self.cells, 1)

    @property
    def accuracy(self) -> float:
        """Share of visible cells where both label maps agree."""
        return self.agreeing / max(int(self.found_map.sum()), 1)

    def class_iou(self, symmetry: str = AS_IT_IS) -> NDArray[np.float64]:
        """(C,) IoU by class with the predictions turned; NaN where a class is neither there nor found."""
        if symmetry not in self.turned:
            return np.full(len(self.names), np.nan)
        shared, union = self.turned[symmetry].astype(np.float64)
        return np.divide(shared, union, out=np.full(len(union), np.nan), where=union > 0)

    def mean_iou(self, symmetry: str = AS_IT_IS) -> float:
        """Mean over the classes with ground truth; NaN without any."""
        values = self.class_iou(symmetry)[self.present]
        return float(values.mean()) if len(values) else float("nan")


def shares(counts: NDArray[np.int64], whole: int | None = None) -> NDArray[np.float64]:
    """Counts over `whole`, by default over their sum; zeros where that is 0."""
    return counts / max(int(counts.sum()) if whole is None else whole, 1)


def _histogram(labels: NDArray[np.int64], visible: Bools, size: int) -> NDArray[np.int64]:
    return np.bincount(labels[visible], minlength=size)
