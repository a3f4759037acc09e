"""Meters of depth maps: scores with both ways of averaging, and the paper's. User: g2_monodepth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omma.core.depth_metrics import (
    FULL_SCALE,
    MORE,
    SEVEN,
    SMALLEST_DEPTH_M,
    export_16_bit,
    metrics_of_sums,
    official_metrics,
    pixel_sums,
)
from omma.core.meter import Meter

POOLED = "/pooled"


class DepthMeter(Meter):
    """Scores in metres.

    `rmse`, ... is the mean over images of each image's score, `rmse/pooled` the score over all pixels of the
    set; neither depends on batches or processes. Images without known depth are left out of both and counted
    as `images_without_depth`; `images` counts the others. `negative_share` is that of predictions below 0.

    Args:
        more: the companions too (logarithmic, inverse and tight delta scores).
        smallest: predictions are raised to this depth in metres before they are scored.
        largest: ground truth beyond this depth in metres does not count; none counts all.
    """

    def __init__(
        self, *, more: bool = False, smallest: float = SMALLEST_DEPTH_M, largest: float | None = None
    ) -> None:
        self._scores = (*SEVEN, *MORE) if more else SEVEN
        self._smallest, self._largest = smallest, largest
        pooled = tuple(f"{name}{POOLED}" for name in self._scores)
        self.names = (*self._scores, *pooled, "negative_share", "images", "images_without_depth")
        self._sums: list[dict[str, NDArray[np.float64]]] = []
        self._tokens: list[str] = []

    def update(self, pred: Tensor, gt: Tensor, tokens: Sequence[str]) -> None:
        """Count one batch.

        Args:
            pred: (B, 1, H, W) metres.
            gt: (B, 1, H, W) metres, 0 where unknown.
            tokens: names of the samples.
        """
        if self._largest is not None:
            gt = torch.where(gt <= self._largest, gt, 0.0)
        sums = pixel_sums(pred, gt, smallest=self._smallest)
        sums["negative"] = ((pred < 0) & (gt > 0)).flatten(1).sum(1).double()
        self._sums.append({name: values.cpu().numpy() for name, values in sums.items()})
        self._tokens += list(tokens)

    def state(self) -> dict[str, Any]:
        """The sums of each image."""
        return {"sums": self._joined(), "tokens": list(self._tokens)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those over `states`; images follow one another."""
        self._sums = [state["sums"] for state in states if state["tokens"]]
        self._tokens = [token for state in states for token in state["tokens"]]

    def _joined(self) -> dict[str, NDArray[np.float64]]:
        """Name -> (images,); one piece from now on."""
        if not self._sums:
            return {}
        joined = {name: np.concatenate([part[name] for part in self._sums]) for name in self._sums[0]}
        self._sums = [joined]
        return joined

    def compute(self) -> dict[str, float]:
        """Both averages of each score; NaN where no pixel of the set is known."""
        # sorted, so that the last digit does not tell in what order processes saw the images
        sums = {name: np.sort(values) for name, values in self._joined().items()}
        if not sums or not sums["count"].any():
            counts = {"images": 0.0, "images_without_depth": float(len(self._tokens))}
            return dict.fromkeys(self.names, float("nan")) | counts
        by_image = metrics_of_sums(self._joined())
        totals = {name: values.sum() for name, values in sums.items()}
        pooled = metrics_of_sums(totals)
        known = self._joined()["count"] > 0
        values = [
            *(np.sort(by_image[name][known]).mean() for name in self._scores),
            *(pooled[name] for name in self._scores),
            totals["negative"] / totals["count"],
            known.sum(),
            (~known).sum(),
        ]
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def per_sample(self) -> list[dict[str, Any]]:
        """token, pixels, the scores of every image; scores are empty where no depth is known."""
        joined = self._joined()
        if not joined:
            return []
        scores = metrics_of_sums(joined)
        return [
            {"token": token, "pixels": int(joined["count"][index])}
            | {name: _empty_if_nan(scores[name][index]) for name in self._scores}
            for index, token in enumerate(self._tokens)
        ]


class PaperMeter(Meter):
    """The scores of the reference's test program, each the mean over images.

    Without input depth an image counts for `srmse` and `oe` of its stretched prediction; with input depth for
    `rmse_official` (steps of 1/256 of the full scale, not metres) and `abs_rel_official`. Images without
    known depth are left out.
    """

    names = ("srmse", "oe", "rmse_official", "abs_rel_official")

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def update(self, pred: Tensor, gt: Tensor, raw: Tensor, tokens: Sequence[str]) -> None:
        """Count one batch of normalised depths, 1 is max_depth.

        Args:
            pred: (B, 1, H, W).
            gt: (B, 1, H, W), 0 where unknown.
            raw: (B, 1, H, W) input depth, 0 where unknown.
            tokens: names of the samples.
        """
        maps = (tensor[:, 0].float().cpu().numpy() for tensor in (pred, gt, raw))
        for predicted, true, given, token in zip(*maps, tokens, strict=True):
            relative = not given.any()
            stored = export_16_bit(predicted, relative=relative)
            scores = official_metrics(stored, np.rint(np.clip(true, 0, 1) * FULL_SCALE).astype(np.uint16))
            wanted = self.names[:2] if relative else self.names[2:]
            row = {name: _empty_if_nan(scores[name]) if name in wanted else None for name in self.names}
            self._rows.append({"token": token, **row})

    def state(self) -> dict[str, Any]:
        """The rows of the images."""
        return {"rows": list(self._rows)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the rows by those of `states`, one after another."""
        self._rows = [row for state in states for row in state["rows"]]

    def compute(self) -> dict[str, float]:
        """Means over the images that a score is for; NaN where there is none."""
        return {
            name: _mean([row[name] for row in self._rows if row[name] is not None]) for name in self.names
        }

    def per_sample(self) -> list[dict[str, Any]]:
        """A token and the scores of every image; those that it does not count for are empty."""
        return self._rows


def _empty_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float]) -> float:
    return float(np.sort(values).mean()) if values else float("nan")
