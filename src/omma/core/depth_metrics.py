"""Numbers that score depth maps: the seven common ones, their companions, and G2-MonoDepth's own.

Depths are metres unless a function says otherwise. User: g2_monodepth.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SEVEN = ("rmse", "mae", "abs_rel", "sq_rel", "delta1", "delta2", "delta3")
MORE = ("rmse_log", "silog", "log10", "irmse", "imae", "delta_1.02", "delta_1.05", "delta_1.10")
SMALLEST_DEPTH_M = 1e-3
_DELTAS = {
    "delta1": 1.25,
    "delta2": 1.25**2,
    "delta3": 1.25**3,
    "delta_1.02": 1.02,
    "delta_1.05": 1.05,
    "delta_1.10": 1.10,
}
_PER_KM = 1000.0
_SMALLEST_TO_INVERT_M = 1e-4  # predictions up to this have inverse depth 0, lest one pixel make up the mean
# shares of the rows and of the columns that count: Garg's and Eigen's for KITTI, Eigen's for NYUv2
CROPS = {
    "garg": ((0.40810811, 0.99189189), (0.03594771, 0.96405229)),
    "eigen": ((0.3324324, 0.91351351), (0.0359477, 0.96405229)),
    "nyu": ((45 / 480, 471 / 480), (41 / 640, 601 / 640)),
}

FULL_SCALE = 65535  # stored value of max_depth
_OFFICIAL_UNITS = 256.0
_RELATION = 1.01  # depths whose ratio is closer count as equal in the ordinal error
_PAIR_SHARE = 0.3
_SEEDS = (1, 2)
_SMALL = 1e-6


def pixel_sums(pred: Tensor, gt: Tensor, *, smallest: float | None = SMALLEST_DEPTH_M) -> dict[str, Tensor]:
    """Sums over the pixels with ground truth, from which every metric follows; they may be added up.

    Args:
        pred: (B, 1, H, W) metres.
        gt: (B, 1, H, W) metres, 0 where unknown.
        smallest: predictions are raised to this depth first, as a negative one would count as a delta hit;
            None leaves them. Inverse depths are those of the prediction itself, 0 where that is not above 0.

    Returns:
        Name -> (B,) float64; "count" is the number of pixels.
    """
    known = gt > 0
    pred, gt = pred.double(), torch.where(known, gt, 1.0).double()
    pred = torch.where(known, pred, 1.0)  # the rest must not matter, even where it is not finite
    found = pred > _SMALLEST_TO_INVERT_M
    inverse = torch.where(found, _PER_KM / torch.where(found, pred, 1.0), 0.0) - _PER_KM / gt
    if smallest is not None:
        pred = pred.clamp(min=smallest)
    error = pred - gt
    log_error = pred.log() - gt.log()
    ratio = torch.maximum(pred / gt, gt / pred)
    terms = {
        "count": torch.ones_like(error),
        "square": error**2,
        "absolute": error.abs(),
        "abs_rel": error.abs() / gt,
        "sq_rel": error**2 / gt,
        "log": log_error,
        "log_square": log_error**2,
        "log_absolute": log_error.abs(),
        "inverse_square": inverse**2,
        "inverse_absolute": inverse.abs(),
        **{name: (ratio < bound).double() for name, bound in _DELTAS.items()},
    }
    return {name: torch.where(known, term, 0.0).flatten(1).sum(1) for name, term in terms.items()}


def metrics_of_sums(sums: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The metrics of `SEVEN` and `MORE`, of each entry of the sums; NaN where no pixel counts.

    rmse, mae and sq_rel in metres; silog in percent; irmse and imae in 1/km; deltas are shares.

    Args:
        sums: as `pixel_sums` gives them, arrays of one shape.
    """
    count = np.where(sums["count"] > 0, sums["count"], np.nan)
    mean = {name: values / count for name, values in sums.items()}
    with np.errstate(invalid="ignore"):  # infinite logarithms of predictions that were not raised
        variance = np.maximum(mean["log_square"] - mean["log"] ** 2, 0.0)
    return {
        "rmse": np.sqrt(mean["square"]),
        "mae": mean["absolute"],
        "abs_rel": mean["abs_rel"],
        "sq_rel": mean["sq_rel"],
        **{name: mean[name] for name in ("delta1", "delta2", "delta3")},
        "rmse_log": np.sqrt(mean["log_square"]),
        "silog": 100 * np.sqrt(variance),
        "log10": mean["log_absolute"] / np.log(10.0),
        "irmse": np.sqrt(mean["inverse_square"]),
        "imae": mean["inverse_absolute"],
        **{name: mean[name] for name in ("delta_1.02", "delta_1.05", "delta_1.10")},
    }


def scale_to_median(pred: Tensor, gt: Tensor) -> Tensor:
    """Scale each prediction so that its median over the known pixels is the ground truth's.

    Args:
        pred: (B, 1, H, W).
        gt: (B, 1, H, W), 0 where unknown; an image without known depth stays as it is.
    """
    factors = []
    for own, true in zip(pred, gt, strict=True):
        known = true > 0
        median = own[known].median() if known.any() else own.new_tensor(0.0)
        factors.append(true[known].median() / median if median > 0 else torch.ones_like(median))
    return pred * torch.stack(factors).view(-1, 1, 1, 1)


def fit_scale_and_shift(pred: Tensor, gt: Tensor) -> Tensor:
    """Scale and shift each prediction so that its squared error over the known pixels is smallest.

    Args:
        pred: (B, 1, H, W).
        gt: (B, 1, H, W), 0 where unknown; an image without known depth stays as it is, of a constant
            prediction only the shift is fitted.
    """
    fitted = []
    for own, true in zip(pred, gt, strict=True):
        known = true > 0
        if not known.any():
            fitted.append(own)
            continue
        x, y = own[known].double(), true[known].double()
        spread = ((x - x.mean()) ** 2).sum()
        scale = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else torch.ones_like(spread)
        fitted.append(((own.double() - x.mean()) * scale + y.mean()).to(own.dtype))
    return torch.stack(fitted)


def crop_window(crop: str, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a picture (H, W) that count in a usual protocol, one of CROPS."""
    rows, columns = (
        slice(*(int(share * side) for share in shares))
        for side, shares in zip(size, CROPS[crop], strict=True)
    )
    return rows, columns


def scored_depth(
    gt: Tensor, *, min_depth: float = 0.0, max_depth: float | None = None, crop: str | None = None
) -> Tensor:
    """True depth with 0, which is unknown, where it shall not count.

    Args:
        gt: (B, 1, H, W) metres, 0 where unknown.
        min_depth: depths up to this one do not count.
        max_depth: depths from this one on do not count; None: all do.
        crop: one of CROPS; what is outside does not count.
    """
    counts = gt > min_depth
    if max_depth is not None:
        counts &= gt < max_depth
    if crop is not None:
        rows, columns = crop_window(crop, (gt.shape[2], gt.shape[3]))
        inside = torch.zeros_like(counts)
        inside[:, :, rows, columns] = True
        counts &= inside
    return torch.where(counts, gt, 0.0)


def export_16_bit(depth: NDArray[np.floating], *, relative: bool) -> NDArray[np.uint16]:
    """Normalised depth as the reference stores it: 65535 is 1, truncated.

    Args:
        depth: (H, W), 1 is max_depth.
        relative: stretch the map to [0, 1] first, as is done where no input depth was given.
    """
    values = depth.astype(np.float32)
    if relative:
        values = (values - values.min()) / (values.max() - values.min() + np.float32(_SMALL))
    return np.clip(values * np.float32(FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)


def official_metrics(pred16: NDArray[np.integer], gt16: NDArray[np.integer]) -> dict[str, float]:
    """The reference's scores of predictions with input depth.

    Args:
        pred16: (H, W) of `export_16_bit`; raised to 1.
        gt16: (H, W) likewise, 0 where unknown.

    Returns:
        "rmse_official" in steps of 1/256 of the full scale 65535 (not metres) and "abs_rel_official"; NaN
        where no depth is known.
    """
    pred, gt = _known_pairs(pred16, gt16)
    if not len(gt):
        return dict.fromkeys(("rmse_official", "abs_rel_official"), float("nan"))
    return {
        "rmse_official": float(np.sqrt((((pred - gt) / _OFFICIAL_UNITS) ** 2).mean())),
        "abs_rel_official": float((np.abs(pred - gt) / (gt + _SMALL)).mean()),
    }


def relative_metrics(pred16: NDArray[np.integer], gt16: NDArray[np.integer]) -> dict[str, float]:
    """The reference's scores of predictions without input depth.

    Args:
        pred16: (H, W) of `export_16_bit`; raised to 1.
        gt16: (H, W) likewise, 0 where unknown.

    Returns:
        "srmse" (both maps standardised first) and "oe" (ordinal error, share of pixel pairs in wrong order);
        NaN where no depth is known.
    """
    pred, gt = _known_pairs(pred16, gt16)
    if not len(gt):
        return dict.fromkeys(("srmse", "oe"), float("nan"))
    standard = _standardised(pred) - _standardised(gt)
    srmse = float(np.sqrt((standard**2).sum() / (len(gt) + _SMALL)))
    return {"srmse": srmse, "oe": ordinal_error(pred, gt)}


def _known_pairs(
    pred16: NDArray[np.integer], gt16: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = gt16 != 0
    return np.clip(pred16[known].astype(np.float64), 1, FULL_SCALE), gt16[known].astype(np.float64)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less the mean, over the mean absolute deviation."""
    count = len(values) + _SMALL
    centred = values - values.sum() / count
    return centred / (np.abs(centred).sum() / count + _SMALL)


def ordinal_error(pred: NDArray[np.floating], gt: NDArray[np.floating]) -> float:
    """Share of sampled pixel pairs that the prediction orders otherwise than the ground truth.

    Args:
        pred: (N,) depths at the known pixels, row by row.
        gt: (N,) likewise.

    Returns:
        NaN where there are fewer than four pixels, so that no pair is sampled.
    """
    first, second = pair_indices(len(gt))
    if not len(first):
        return float("nan")
    return float((_relation(pred[first], pred[second]) != _relation(gt[first], gt[second])).mean())


@lru_cache(maxsize=8)  # dense maps of one size share their pairs; shuffling takes a tenth of a second
def pair_indices(number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The reference's pairs among `number` pixels: the first three tenths of two seeded shuffles."""
    lists = []
    for seed in _SEEDS:
        order = list(range(number))
        random.Random(seed).shuffle(order)
        lists.append(np.array(order[: int(_PAIR_SHARE * number)], np.int64))
    return lists[0], lists[1]


def _relation(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.int8]:
    """1 where the first depth is clearly larger, -1 where clearly smaller, else 0."""
    ratio = first / (second + 1e-8)
    return np.where(ratio >= _RELATION, 1, np.where(ratio <= 1 / _RELATION, -1, 0)).astype(np.int8)
