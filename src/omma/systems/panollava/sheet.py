"""A sheet of what the network is fed: panoramas, their views with directions, questions and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omma.data.dataset import Sample
from omma.systems.panollava.config import ViewsSection
from omma.systems.panollava.samples import read_panorama
from omma.systems.panollava.views import view_layout
from omma.systems.panollava.viz import draw_lines, view_name
from omma.viz.image import Image, Tile, panel, resize_photo

_WIDTH, _MARGIN, _PANORAMA, _MOST = 1200, 16, (180, 360), 8
TITLE = "panoramas, and their views as the network gets them"


def draw_sheet(samples: Sequence[Sample], views: ViewsSection) -> Image:
    """Draw samples: the panorama, what is asked and answered, and all views.

    Args:
        samples: as PanoSamples gives them; at least one.
        views: how they were cut.

    Returns:
        (H, 1200, 3) uint8.
    """
    parts = [_sample(sample, views, TITLE if index == 0 else "") for index, sample in enumerate(samples)]
    return np.concatenate(parts)


def _sample(sample: Sample, views: ViewsSection, title: str) -> Image:
    yaw_deg = float(sample["yaw_deg"])
    whole = resize_photo(read_panorama(Path(sample["image_path"]), views), *_PANORAMA)
    pictures = sample["views"].permute(0, 2, 3, 1).numpy()
    tiles = [
        Tile(np.ascontiguousarray(picture), view_name(view, yaw_deg))
        for picture, view in zip(pictures, view_layout(views), strict=True)
    ]
    turned = f"views turned by {yaw_deg:.0f} deg" if yaw_deg else "views not turned"
    lines = [f"question: {sample['query'] or '(none)'}"]
    lines += [f"answer: {reference}" for reference in sample["references"][:1]]
    head = Tile(whole, f"{sample['token']}, {turned}", _Text(tuple(lines)))
    rows = [tiles[start : start + _MOST] for start in range(0, len(tiles), _MOST)]
    top = panel([[head]], width=_WIDTH, title=title, max_row_height=_PANORAMA[0])
    return np.concatenate([top, panel(rows, width=_WIDTH)])


@dataclass(frozen=True)
class _Text:
    """Lines beside a picture."""

    lines: tuple[str, ...]
    width: int = _WIDTH - 2 * _MARGIN - _PANORAMA[1]

    def draw(self, height: int) -> Image:
        """(height, width, 3)."""
        drawn = draw_lines(self.lines, width=self.width)[:height]
        white = np.full((height - len(drawn), self.width, 3), 255, np.uint8)
        return np.concatenate([drawn, white])
