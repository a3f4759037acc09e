"""Meters of depth maps: scores with both ways of averaging, and the paper's. User: g2_monodepth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
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
    relative_metrics,
)
from omma.core.meter import Meter

POOLED, IMAGES, WITHOUT_DEPTH = "pooled/", "images", "images_without_depth"


class DepthMeter(Meter):
    """Scores in metres.

    `rmse`, ... is the mean over images of each image's score, `pooled/rmse` the score over all pixels of the
    set; neither depends on batches or processes. Images without known depth are left out of both and counted
    as `images_without_depth`; `images` counts the others. `negative_share` is that of predictions below 0.

    Args:
        more: the companions too (logarithmic, inverse and tight delta scores).
        smallest: predictions are raised to this depth in metres before they are scored.
        prefix: before every name in `compute()`, where several of these score parts of a set; such a part
            has the means over images alone, and no rows, as the meter of the whole set has the rest.
    """

    def __init__(
        self,
        *,
        more: bool = False,
        smallest: float = SMALLEST_DEPTH_M,
        prefix: str = "",
    ) -> None:
        self._scores = (*SEVEN, *MORE) if more else SEVEN
        self._smallest = smallest
        pooled = tuple(f"{POOLED}{name}" for name in self._scores)
        counts = ("negative_share", IMAGES, WITHOUT_DEPTH)
        rest = () if prefix else (*pooled, *counts)
        self._prefix, self.names = prefix, tuple(f"{prefix}{name}" for name in (*self._scores, *rest))
        self._sums: list[dict[str, NDArray[np.float64]]] = []
        self._tokens: list[str] = []

    def update(self, pred: Tensor, gt: Tensor, tokens: Sequence[str]) -> None:
        """Count one batch.

        Args:
            pred: (B, 1, H, W) metres.
            gt: (B, 1, H, W) metres, 0 where unknown.
            tokens: names of the samples.
        """
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
            counts = {IMAGES: 0.0, WITHOUT_DEPTH: float(len(self._tokens))}
            return dict.fromkeys(self.names, float("nan")) | ({} if self._prefix else counts)
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
        return {name: float(value) for name, value in zip(self.names, values, strict=not self._prefix)}

    def per_sample(self) -> list[dict[str, Any]]:
        """token, pixels, the scores of every image; scores are empty where no depth is known."""
        joined = self._joined()
        if not joined or self._prefix:
            return []
        scores = metrics_of_sums(joined)
        return [
            {"token": token, "pixels": int(joined["count"][index])}
            | {name: _empty_if_nan(scores[name][index]) for name in self._scores}
            for index, token in enumerate(self._tokens)
        ]


class DistanceMeter(Meter):
    """Mean absolute error in metres by the distance to the nearest given depth, over all pixels of the set.

    `mae/0_1px` is the error at the given pixels themselves, `mae/64px_on` that at 64 pixels and farther; NaN
    where there are none. Images without any given depth are left out.

    Args:
        bounds_px: rising distances in pixels where the next range begins.
    """

    def __init__(self, bounds_px: Sequence[int] = (1, 4, 16, 64)) -> None:
        self._bounds = (0, *bounds_px)
        inner = zip(self._bounds, bounds_px, strict=False)
        ranges = [*(f"{low}_{high}px" for low, high in inner), f"{self._bounds[-1]}px_on"]
        self.names = tuple(f"mae/{name}" for name in ranges)
        self._sums = np.zeros((2, len(ranges)))

    def update(self, pred: Tensor, gt: Tensor, raw: Tensor) -> None:
        """Count one batch, all (B, 1, H, W) in metres; 0 is unknown in `gt` and `raw`."""
        maps = (tensor[:, 0].double().cpu().numpy() for tensor in (pred, gt, raw))
        for predicted, true, given in zip(*maps, strict=True):
            known = true > 0
            if not given.any() or not known.any():
                continue
            distance = distance_transform_edt(given == 0)[known]
            ranges = np.searchsorted(self._bounds, distance, side="right") - 1
            errors = np.abs(predicted - true)[known]
            for row, weights in enumerate((errors, None)):
                self._sums[row] += np.bincount(ranges, weights, minlength=len(self._bounds))

    def state(self) -> dict[str, Any]:
        """Sums of errors and numbers of pixels in each range."""
        return {"sums": self._sums.copy()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those over `states`."""
        self._sums = np.sum([state["sums"] for state in states], axis=0)

    def compute(self) -> dict[str, float]:
        """The mean error of each range."""
        errors, pixels = self._sums
        means = np.where(pixels > 0, errors / np.maximum(pixels, 1), np.nan)
        return {name: float(value) for name, value in zip(self.names, means, strict=True)}


class PaperMeter(Meter):
    """The scores of the reference's test program, each the mean over images.

    Without input depth an image counts for `srmse` and `oe` of its stretched prediction; with input depth for
    `rmse_official` (steps of 1/256 of the full scale, not metres) and `abs_rel_official`. Images without
    known depth are left out.
    """

    names = ("srmse", "oe", "rmse_official", "abs_rel_official")

    def __init__(self) -> None:
        self._rows: list[dict[str, float | None]] = []

    def update(self, pred: Tensor, gt: Tensor, raw: Tensor) -> None:
        """Count one batch of normalised depths, 1 is max_depth.

        Args:
            pred: (B, 1, H, W).
            gt: (B, 1, H, W), 0 where unknown.
            raw: (B, 1, H, W) input depth, 0 where unknown.
        """
        maps = (tensor[:, 0].float().cpu().numpy() for tensor in (pred, gt, raw))
        for predicted, true, given in zip(*maps, strict=True):
            relative = not given.any()
            stored = export_16_bit(predicted, relative=relative)
            true16 = np.rint(np.clip(true, 0, 1) * FULL_SCALE).astype(np.uint16)
            scores = (relative_metrics if relative else official_metrics)(stored, true16)
            found = {name: _empty_if_nan(value) for name, value in scores.items()}
            self._rows.append({name: found.get(name) for name in self.names})

    def state(self) -> dict[str, Any]:
        """The rows of the images."""
        return {"rows": list(self._rows)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the rows by those of `states`, one after another."""
        self._rows = [row for state in states for row in state["rows"]]

    def compute(self) -> dict[str, float]:
        """Means over the images that a score is for; NaN where there is none."""
        values = {name: [row[name] for row in self._rows] for name in self.names}
        return {
            name: _mean([value for value in found if value is not None]) for name, found in values.items()
        }


def _empty_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float]) -> float:
    return float(np.sort(values).mean()) if values else float("nan")
