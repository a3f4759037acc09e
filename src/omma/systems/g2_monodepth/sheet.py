"""A sheet of what the network is fed: picture, true depth, and input depth of some samples."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.data.dataset import Sample
from omma.viz.image import Image, Tile, colour_map, panel

UNKNOWN = (24, 24, 24)
_VISIBLE_SHARE = 0.05  # sparser depths are drawn with larger points


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
    known = np.concatenate([true[true > 0], given[given > 0]])
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
    share = float((depth_m > 0).mean())
    if 0 < share < _VISIBLE_SHARE:
        near = np.where(depth_m > 0, depth_m, np.inf).astype(np.float32)
        # the nearest depth around each pixel
        near = cv2.erode(near, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        depth_m = np.where(np.isfinite(near), near, 0)
    return colour_map(np.where(depth_m > 0, depth_m, np.nan), lowest=low, highest=high, missing=UNKNOWN)
