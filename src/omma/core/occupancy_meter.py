"""Scores of multi-label occupancy maps on visible cells (PON, arXiv 2003.13402; HFT). User: diffbev."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omma.core.meter import Meter
from omma.core.metrics import confusion_counts, threshold_counts

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
_COUNTS = ("tp", "fp", "fn")


class OccupancyMeter(Meter):
    """Intersection over union of classes that may overlap; counts only, so its memory hardly grows.

    A cell is found where its logit is above 0 (probability above one half). With tp, fp, fn summed over the
    whole set, IoU = tp / (tp + fp + fn); mIoU is the mean over the classes that have ground truth, and
    `classes` is their number. mIoUv1 is, by class, the mean over images that show it, then the mean over
    classes; mIoUv2 sums the classes of an image first and is the mean over images.

    Args:
        class_names: names of the channels.
        rings_m: (near, far) distances in metres that `ring_index` refers to.
        ring_index: ring of every cell, -1 for none, int (Z, X).
    """

    def __init__(
        self,
        class_names: Sequence[str],
        rings_m: Sequence[tuple[float, float]] = (),
        ring_index: NDArray[np.integer] | None = None,
    ) -> None:
        self._classes, self._ring_index = tuple(class_names), ring_index
        self._rings = tuple(f"mIoU/ring_{near:g}_{far:g}m" for near, far in rings_m)
        by_class = tuple(f"IoU_{name}" for name in self._classes)
        self.names = ("mIoU", *by_class, "mIoUv1", "mIoUv2", "classes", *self._rings)
        self._sums = self._zeros()
        self._images = array("i")  # grows in one piece: many small arrays would scatter over the heap
        self._tokens: list[str] = []

    def _zeros(self) -> dict[str, NDArray[np.int64]]:
        C, R, T = len(self._classes), len(self._rings), len(THRESHOLDS)
        return {"cells": np.zeros((3, C), np.int64), "rings": np.zeros((3, R, C), np.int64)} | {
            "thresholds": np.zeros((3, C, T), np.int64)
        }

    def update(self, logits: Tensor, target: Tensor, visible: Tensor, tokens: Sequence[str]) -> None:
        """Count one batch.

        Args:
            logits: (B, C, Z, X).
            target: bool (B, C, Z, X).
            visible: cells that count, bool (B, 1, Z, X).
            tokens: names of the samples.
        """
        found = logits > 0
        counts = _stacked(confusion_counts(found, target, visible))
        self._sums["cells"] += counts.sum(1)
        for ring in range(len(self._rings)):
            inside = torch.as_tensor(self._ring_index == ring, device=logits.device)
            self._sums["rings"][:, ring] += _stacked(confusion_counts(found, target, visible & inside)).sum(1)
        probability = logits.float().sigmoid()
        levels = torch.tensor(THRESHOLDS, dtype=probability.dtype, device=probability.device)
        self._sums["thresholds"] += _stacked(threshold_counts(probability, target, levels, visible))
        self._images.frombytes(np.ascontiguousarray(counts.transpose(1, 0, 2), np.intc).tobytes())
        self._tokens += list(tokens)

    def state(self) -> dict[str, Any]:
        """Counts over the set, and those of each image."""
        counts = {name: array.copy() for name, array in self._sums.items()}
        return {**counts, "images": self._by_image(), "tokens": list(self._tokens)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the counts by those over `states`; images follow one another."""
        sums = self._zeros()
        for state in states:
            for name in sums:
                sums[name] += state[name]
        self._sums = sums
        self._images = array("i", b"".join(state["images"].tobytes() for state in states))
        self._tokens = [token for state in states for token in state["tokens"]]

    def compute(self) -> dict[str, float]:
        """Means over classes and the IoU of each; NaN for a class neither there nor found."""
        cells, rings = self._sums["cells"], self._sums["rings"]
        present = _present(cells)
        values = [
            _mean(_iou(cells)[present]),
            *_iou(cells),
            *self._by_image_means(),
            float(present.sum()),
            *(_mean(_iou(ring)[_present(ring)]) for ring in rings.swapaxes(0, 1)),
        ]
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def per_sample(self) -> list[dict[str, Any]]:
        """token, iou (all classes pooled), tp, fp, fn of every image, and its counts by class (`tp/car`)."""
        images = self._by_image()
        pooled = images.sum(-1, dtype=np.int64)
        by_class = [f"{count}/{name}" for count in _COUNTS for name in self._classes]
        return [
            {"token": token, "iou": float(_iou(counts)), **dict(zip(_COUNTS, counts.tolist(), strict=True))}
            | dict(zip(by_class, image.ravel().tolist(), strict=True))
            for token, counts, image in zip(self._tokens, pooled, images, strict=True)
        ]

    def per_class(self) -> list[dict[str, Any]]:
        """class, iou, precision, recall, counts, images that show it, and the best threshold on this set."""
        cells, levels = self._sums["cells"], _iou(self._sums["thresholds"])
        shown = (_present(self._by_image().swapaxes(0, 1))).sum(0)
        rows = []
        for index, name in enumerate(self._classes):
            tp, fp, fn = (int(count) for count in cells[:, index])
            known = not np.isnan(levels[index]).all()
            best = int(np.nanargmax(levels[index])) if known else 0
            rows.append(
                {
                    "class": name,
                    "iou": float(_iou(cells[:, index])),
                    "precision": _share(tp, tp + fp),
                    "recall": _share(tp, tp + fn),
                    **{"tp": tp, "fp": fp, "fn": fn, "images": int(shown[index])},
                    "iou_max": float(levels[index, best]),
                    "iou_max_threshold": THRESHOLDS[best] if known else float("nan"),
                }
            )
        return rows

    def _by_image(self) -> NDArray[np.intc]:
        """tp, fp, fn of every image and class, (images, 3, C)."""
        return np.frombuffer(self._images, np.intc).reshape(-1, 3, len(self._classes)).copy()

    def _by_image_means(self) -> tuple[float, float]:
        """mIoUv1 and mIoUv2."""
        counts = self._by_image().swapaxes(0, 1).astype(np.int64)
        iou, present = _iou(counts), _present(counts)
        shown = present.sum(0)
        by_class = np.where(present, iou, 0.0).sum(0)[shown > 0] / shown[shown > 0]
        pooled = _iou(counts.sum(-1))
        return _mean(by_class), _mean(pooled[~np.isnan(pooled)])


def _stacked(counts: Sequence[Tensor]) -> NDArray[np.int64]:
    return torch.stack(tuple(counts)).cpu().numpy()


def _present(counts: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where there is ground truth, from counts with (tp, fp, fn) along the first axis."""
    return counts[0] + counts[2] > 0


def _iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """IoU of counts with (tp, fp, fn) along the first axis; NaN where nothing is there nor found."""
    union = counts.sum(0)
    return np.divide(counts[0], union, out=np.full(union.shape, np.nan), where=union > 0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
