"""A sheet of what the network is fed: crops with joints, targets, and random changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from omma.core.heatmaps import encode
from omma.data.dataset import Sample
from omma.systems.sdpose.config import STRIDE, TargetSection
from omma.viz.image import Image, Tile, blend, colour_map, panel, resize_photo
from omma.viz.skeleton import draw_skeleton

_HEIGHT = 320
_OPACITY = 0.75


def draw_sheet(rows: Sequence[tuple[Sample, Sequence[Sample]]], target: TargetSection) -> Image:
    """Draw people, one a row: the crop, its targets, and crops after random changes.

    Args:
        rows: a sample as it is, and the same person changed; at least one row.
        target: how joints become heatmaps.
    """
    tiles = []
    for plain, changed in rows:
        row = [_crop(plain, plain["token"]), Tile(draw_targets(plain, target), "targets")]
        tiles.append(row + [_crop(sample, _change(sample)) for sample in changed])
    title = "joints, targets, random changes: the person's left is blue, the right orange, hidden is hollow"
    return panel(tiles, width=1200, title=title, max_row_height=_HEIGHT)


def draw_targets(sample: Sample, target: TargetSection) -> Image:
    """The highest of all target heatmaps laid over a crop, (H, W, 3)."""
    image = _image(sample)
    height, width = image.shape[:2]
    size = (height // STRIDE, width // STRIDE)
    joints, visible = sample["joints"][None], sample["visible"][None]
    maps, _ = encode(joints, visible, size, encoding=target.encoding, sigma=target.sigma)
    highest = maps[0].amax(0)
    shown = (highest / highest.amax().clamp(min=1e-6)).numpy()
    heat = np.asarray(resize_photo(colour_map(shown, name="inferno", lowest=0, highest=1), height, width))
    opacity = torch.nn.functional.interpolate(highest[None, None], size=(height, width), mode="bilinear")
    return blend(image, heat, _OPACITY * (opacity[0, 0] / highest.amax().clamp(min=1e-6)).numpy())


def _crop(sample: Sample, caption: str) -> Tile:
    joints, visible, hidden = (sample[name].numpy() for name in ("joints", "visible", "hidden"))
    drawn = draw_skeleton(_image(sample), joints, shown=visible > 0, sure=~hidden, height=_HEIGHT)
    return Tile(drawn, caption)


def _change(sample: Sample) -> str:
    return f"rotated by {float(sample['rotation']):.0f} deg"


def _image(sample: Sample) -> Image:
    return np.ascontiguousarray(sample["image"].numpy().transpose(1, 2, 0))
