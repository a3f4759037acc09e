"""The scale beside a coloured map: its colours from bottom to top, with ticks in the map's unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from omma.viz.image import GREY, INK, WHITE, Image, colour_map, font_for

_BAR_LEFT, _BAR_WIDTH, _TICK = 6, 14, 4
_FONT, _LINE = 12, 22  # pixels; a tick's number needs a line of its own


@dataclass(frozen=True)
class ColourScale:
    """What the colours of a map mean.

    Args:
        low: value of the first colour, at the bottom.
        high: value of the last colour, at the top.
        name: matplotlib colour map.
        unit: written at the topmost number.
    """

    low: float
    high: float
    name: str = "turbo"
    unit: str = "m"

    width = 72  # pixels

    def ticks(self, height: int) -> list[float]:
        """Round values in [low, high], as many as find a place in a bar of so many pixels."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span * _LINE / max(self._bar(height), _LINE)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def row(self, value: float, height: int) -> int:
        """The pixel row of a value in the picture that `draw` makes."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return _LINE // 2 + round((1 - share) * (self._bar(height) - 1))

    def draw(self, height: int) -> Image:
        """The bar with its numbers, (height, width, 3)."""
        picture = np.full((height, self.width, 3), WHITE, np.uint8)
        rows = self._bar(height)
        values = np.linspace(self.high, self.low, rows)[:, None].repeat(_BAR_WIDTH, axis=1)
        top, right = _LINE // 2, _BAR_LEFT + _BAR_WIDTH
        bar = colour_map(values, name=self.name, lowest=self.low, highest=self.high)
        picture[top : top + rows, _BAR_LEFT:right] = bar[: height - top]
        canvas = Pillow.fromarray(picture)
        draw = ImageDraw.Draw(canvas)
        ticks = self.ticks(height)
        for value in ticks:
            row = self.row(value, height)
            text = f"{value:.6g} {self.unit}" if value == ticks[-1] else f"{value:.6g}"
            draw.line((right, row, right + _TICK, row), fill=GREY)
            draw.text((right + _TICK + 3, row), text, fill=INK, font=font_for(text, _FONT), anchor="lm")
        return np.asarray(canvas)

    @staticmethod
    def _bar(height: int) -> int:
        """Rows of the bar; half a line above and below is left for the outermost numbers."""
        return max(height - _LINE, 1)
