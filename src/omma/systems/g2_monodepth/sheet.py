"""Pictures of what the network is fed: a sheet of samples, histograms of true and of given depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from omma.data.dataset import Sample
from omma.data.formats.rgbd import Depth
from omma.viz.curves import COLOURS, INK, fix_layout, new_axes, style
from omma.viz.image import Image, Tile, colour_map, panel
from omma.viz.several import Bars, plot_groups

UNKNOWN = (24, 24, 24)
_FIGURE, _BINS, _SHOWN_PERCENT = (7.2, 3.4), 50, 99.9
_SHARES = ("none", "below 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 to 99 %", "all")
_BOUNDS = (0.0, 0.001, 0.01, 0.1, 0.99)
_VISIBLE_SHARE = 0.05  # sparser depths are drawn with larger points
_DOTTED_SHARE = 0.2  # of the picture that the dots shall cover
_LARGEST_DOT = 60  # times in the longer side


def draw_inputs(samples: Sequence[Sample], *, title: str = "", width: int = 1200) -> Image:
    """One row a sample; both depths share the colours of the true depth's range.

    Args:
        samples: as RgbdSamples gives them.
        title: first line.
        width: of the sheet in pixels.

    Returns:
        (H, width, 3) uint8.
    """
    return panel([_row(sample) for sample in samples], title=title, width=width)


def _row(sample: Sample) -> list[Tile]:
    metres = float(sample["max_depth"])
    true, given = (sample[key][0].numpy() * metres for key in ("depth", "point"))
    known = true[true > 0] if true.any() else given[given > 0]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, metres)
    share = 100 * float((given > 0).mean())
    return [
        Tile(np.ascontiguousarray(sample["rgb"].permute(1, 2, 0).numpy()), sample["token"]),
        Tile(draw_depth(true, low, high), f"true depth, {low:.2g} to {high:.3g} m"),
        Tile(draw_depth(given, low, high), f"given: {share:.3g} % ({sample['pattern']})"),
    ]


def draw_depth(depth_m: NDArray[np.floating], low: float, high: float) -> Image:
    """Colours of a depth map (H, W), dark where unknown; the points of a sparse one are enlarged.

    Args:
        depth_m: metres, 0 where unknown.
        low: depth of the first colour.
        high: depth of the last colour.
    """
    known = np.where(depth_m > 0, depth_m, np.nan)
    return colour_map(enlarge_points(known), lowest=low, highest=high, missing=UNKNOWN)


def enlarge_points(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Single values of a sparse map (H, W), NaN where there is none, as dots that are seen.

    The sparser the map, the larger the dots; where they meet, the smallest value counts.
    """
    share = float(np.isfinite(values).mean())
    if not 0 < share < _VISIBLE_SHARE:
        return values
    largest = max(3, max(values.shape) // _LARGEST_DOT)
    side = int(np.clip(np.sqrt(_DOTTED_SHARE / share), 3, largest)) // 2 * 2 + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) if side > 3 else np.ones((3, 3))
    filled = np.where(np.isfinite(values), values, np.inf).astype(np.float32)
    near = cv2.erode(filled, kernel.astype(np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.where(np.isfinite(near), near, np.nan)


def draw_depths(depths_m: Mapping[str, Sequence[Depth]], limits_m: Sequence[float]) -> Figure:
    """Histogram of the known depths of each split, with the largest depths that count.

    Args:
        depths_m: split -> depth maps (H, W), 0 where unknown.
        limits_m: values of max_depth.
    """
    known = {
        split: np.concatenate([one[one > 0] for one in maps]) for split, maps in depths_m.items() if maps
    }
    known = {split: values for split, values in known.items() if values.size}
    reach = max([*limits_m, *(float(np.percentile(values, _SHOWN_PERCENT)) for values in known.values())])
    edges = np.linspace(0, reach, _BINS + 1)
    with style():
        figure, axes = new_axes("depths as stored", "metres", "share of the known pixels", _FIGURE)
        for colour, (split, values) in zip(COLOURS, known.items(), strict=False):
            counts, _ = np.histogram(values, edges)
            axes.stairs(counts / values.size, edges, fill=True, alpha=0.35, color=colour, label=split)
        for limit in limits_m:
            axes.axvline(limit, color=INK, linewidth=1.2, linestyle="--", label=f"max_depth {limit:g} m")
        axes.legend(frameon=False, labelcolor=INK)
        fix_layout(figure)
    return figure


def draw_given(shares: Mapping[str, Sequence[float]]) -> Figure:
    """How many samples are given how much depth.

    Args:
        shares: name -> share of pixels with given depth of each sample.
    """
    groups = [
        Bars(name, _by_share(values), None, colour) for colour, (name, values) in enumerate(shares.items())
    ]
    return plot_groups(_SHARES, groups, title="samples by their share of given pixels", size=_FIGURE)


def _by_share(values: Sequence[float]) -> list[float]:
    places = np.searchsorted(_BOUNDS, np.asarray(values), side="right")
    places[np.asarray(values) == 0] = 0
    return (np.bincount(places, minlength=len(_SHARES)) / len(values)).tolist()
