"""Where joints are off: by joint, size and occlusion; sides mixed up; heights of peaks. User: sdpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omma.core.heatmaps import to_image
from omma.core.keypoints import FLIP_PAIRS, JOINTS, SIGMAS
from omma.core.meter import Meter
from omma.core.pck import distances

THRESHOLDS = (0.05, 0.1, 0.2)  # of the longer side of the box
SIZES_PX2 = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
JOINTS_SEEN = {"seen_0_5": (0, 6), "seen_6_11": (6, 12), "seen_12_17": (12, 18)}
PEAK_BINS = 50  # of heights from 0 to 1
_NEAR = 0.1
_CLEARLY = 0.5  # of the distances to the own places, that to each other's
_NAMES = (
    *(f"PCK@{threshold:g}" for threshold in THRESHOLDS),
    *(f"PCK@{_NEAR:g}/{kind}" for kind in ("seen", "hidden")),
    "error_px",
    "OKS",
    *(f"OKS/{name}" for name in (*SIZES_PX2, *JOINTS_SEEN)),
    "swap_error",
    "peak",
    "peak/absent",
)
_BY_JOINT = ("labelled", "OKS", "error_px", *(f"PCK@{threshold:g}" for threshold in THRESHOLDS))


class JointMeter(Meter):
    """Errors of joints of annotated people; NaN with a detector's boxes, which have no joints.

    `PCK@0.1` is the share of labelled joints within a tenth of the longer side of the person's box, `/hidden`
    and `/seen` that of joints labelled so; `OKS` the mean over people, also by the person's area (COCO's
    ranges) and by the number of joints seen. `swap_error` is the share of pairs of a left and a right joint
    that are clearly nearer to each other's place, and near it. `peak` is the mean height of the peaks of
    labelled joints, `peak/absent` that of joints without a label.

    Args:
        udp: whether the first and the last pixel of a crop lie on its edges.
    """

    def __init__(self, *, udp: bool = False) -> None:
        self.names, self._udp = _NAMES, udp
        self._sums = _zeros()

    def update(self, coords: Tensor, scores: Tensor, batch: Mapping[str, Any]) -> None:
        """Add one batch.

        Args:
            coords: (B, K, 2) x, y in pixels of the images.
            scores: (B, K) heights of the peaks.
            batch: joints (B, K, 2) in pixels of the crop; visible and hidden (B, K); image (B, 3, H, W);
                center, scale (B, 2); box (B, 4); area (B,).
        """
        labelled = batch["visible"] > 0
        crop = batch["image"].shape[-2:]
        true = to_image(batch["joints"], batch["center"], batch["scale"], crop, udp=self._udp)
        side = batch["box"][:, 2:].amax(-1)
        pixels = distances(coords, true, labelled)
        relative = pixels / side[:, None]
        spread = 2 * (2 * coords.new_tensor(SIGMAS)) ** 2
        alike = torch.exp(-(pixels**2) / spread / batch["area"][:, None])
        near = [torch.where(labelled, relative < threshold, torch.nan) for threshold in THRESHOLDS]
        person = alike.nanmean(1)
        seen = (labelled & ~batch["hidden"]).sum(1)
        at_tenth = near[THRESHOLDS.index(_NEAR)]
        values = {
            **{f"PCK@{threshold:g}": hits for threshold, hits in zip(THRESHOLDS, near, strict=True)},
            f"PCK@{_NEAR:g}/seen": at_tenth.masked_fill(batch["hidden"], torch.nan),
            f"PCK@{_NEAR:g}/hidden": at_tenth.masked_fill(~batch["hidden"], torch.nan),
            "error_px": pixels,
            "OKS": person,
            **_ranges(person, batch["area"], SIZES_PX2),
            **_ranges(person, seen, JOINTS_SEEN),
            "swap_error": _swaps(coords, true, labelled, side),
            "peak": scores.float().masked_fill(~labelled, torch.nan),
            "peak/absent": scores.float().masked_fill(labelled, torch.nan),
        }
        sums = torch.stack([_sum_and_count(values[name].flatten()) for name in self.names])
        for name, pair in zip(self.names, sums.cpu().numpy(), strict=True):
            self._sums[name] += pair
        by_joint = [labelled.float(), alike, pixels, *near]
        self._sums["by_joint"] += torch.stack([_sum_and_count(v) for v in by_joint]).cpu().numpy()
        self._sums["peaks"] += _histograms(scores, labelled).cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Sums and counts of each mean, by joint, and the histograms."""
        return {name: sums.copy() for name, sums in self._sums.items()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those over `states`."""
        self._sums = {name: np.sum([state[name] for state in states], axis=0) for name in self._sums}

    def compute(self) -> dict[str, float]:
        """The means; NaN where nothing counts."""
        return {name: _mean(self._sums[name]) for name in self.names}

    def per_class(self) -> list[dict[str, Any]]:
        """The joint as class, labelled (people that have it), OKS, error_px, PCKs, quantiles of its peaks."""
        sums = self._sums["by_joint"]
        rows = []
        for index, name in enumerate(JOINTS):
            row: dict[str, Any] = {"class": name, "labelled": int(sums[0, 0, index])}
            row |= {key: _mean(sums[place, :, index]) for place, key in enumerate(_BY_JOINT) if place > 0}
            quantiles = _quantiles(self._sums["peaks"][0, index], (0.05, 0.5, 0.95))
            rows.append(row | dict(zip(("peak_p05", "peak_p50", "peak_p95"), quantiles, strict=True)))
        return rows

    def peak_histogram(self) -> NDArray[np.int64]:
        """Numbers of peaks by height: of labelled and of absent joints, (2, K, PEAK_BINS)."""
        return self._sums["peaks"].astype(np.int64)


def _zeros() -> dict[str, NDArray[np.float64]]:
    K = len(JOINTS)
    sums = {name: np.zeros(2) for name in _NAMES}
    return sums | {"by_joint": np.zeros((len(_BY_JOINT), 2, K)), "peaks": np.zeros((2, K, PEAK_BINS))}


def _ranges(person: Tensor, measure: Tensor, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Tensor]:
    """OKS of people (B,) whose measure lies in each range, NaN for the others."""
    return {
        f"OKS/{name}": person.masked_fill((measure < low) | (measure >= high), torch.nan)
        for name, (low, high) in ranges.items()
    }


def _swaps(coords: Tensor, true: Tensor, labelled: Tensor, side: Tensor) -> Tensor:
    """1 where a left and a right joint took each other's place, 0 where not, NaN where one has no label."""
    left, right = (torch.tensor(own, device=coords.device) for own in zip(*FLIP_PAIRS, strict=True))
    both = labelled[:, left] & labelled[:, right]

    def apart(first: Tensor, second: Tensor) -> Tensor:
        return (coords[:, first] - true[:, second]).norm(dim=-1)

    straight = apart(left, left) + apart(right, right)
    crossed = apart(left, right) + apart(right, left)
    swapped = (crossed < _CLEARLY * straight) & (crossed < 2 * _NEAR * side[:, None])
    return torch.where(both, swapped, torch.nan)


def _sum_and_count(values: Tensor) -> Tensor:
    """Sum and number of the values along the first axis that are not NaN, (2, ...) float64."""
    return torch.stack([values.double().nansum(0), (~values.isnan()).double().sum(0)])


def _histograms(scores: Tensor, labelled: Tensor) -> Tensor:
    """Numbers of peaks (B, K) by height, of labelled and of absent joints; (2, K, PEAK_BINS) float64."""
    bins = (scores.float() * PEAK_BINS).long().clamp(0, PEAK_BINS - 1)
    found = torch.nn.functional.one_hot(bins, PEAK_BINS).double()
    return torch.stack([(found * chosen[..., None]).sum(0) for chosen in (labelled, ~labelled)])


def _mean(sums: NDArray[np.float64]) -> float:
    """Of a sum and a count."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _quantiles(histogram: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Heights below which shares of the peaks lie, to a bin's width; NaN without peaks."""
    total = histogram.sum()
    if not total:
        return [float("nan")] * len(shares)
    rising = histogram.cumsum() / total
    return [float((np.searchsorted(rising, share) + 0.5) / PEAK_BINS) for share in shares]
