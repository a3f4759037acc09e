"""Colour changes for training: brightness, contrast, saturation and hue, each half of the time (spec 4.4).

Steps on grey levels are table look-ups, which gives the reference's clipped and truncated values exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

BRIGHTNESS, FACTOR, HUE = 32.0, (0.5, 1.5), 18
_HUES = 180  # OpenCV's hue of an 8-bit image counts steps of two degrees
_LEVELS = np.arange(256)


class Random(Protocol):
    """The two draws that are needed; `numpy.random.Generator` has them."""

    def integers(self, low: int, high: int) -> int:
        """A whole number of [low, high)."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number of [low, high)."""
        ...


@dataclass(frozen=True)
class ColourChange:
    """One draw; None leaves that property as it is.

    Args:
        brightness: added to all levels.
        contrast: factor of all levels.
        contrast_first: contrast comes before saturation and hue instead of after them.
        saturation: factor of HSV's saturation.
        hue: added to HSV's hue, in steps of two degrees.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = False
    saturation: float | None = None
    hue: int | None = None


def draw_colour_change(rng: Random) -> ColourChange:
    """A random change, drawn in the reference's order."""

    def factor() -> float | None:
        return rng.uniform(*FACTOR) if rng.integers(0, 2) else None

    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.integers(0, 2) else None
    first = bool(rng.integers(0, 2))
    contrast = factor() if first else None
    saturation = factor()
    hue = int(rng.integers(-HUE, HUE)) if rng.integers(0, 2) else None
    return ColourChange(brightness, contrast if first else factor(), first, saturation, hue)


def change_colours(image: Image, change: ColourChange) -> Image:
    """Apply a change as the reference does, with one conversion to HSV and back for each of its two steps.

    Args:
        image: (H, W, 3) uint8 RGB.
        change: what to do.
    """
    before, after = _level_tables(change)
    image = cv2.LUT(image, before) if before is not None else image
    if change.saturation is not None:
        image = _in_hsv(image, change.saturation, None)
    if change.hue is not None:
        image = _in_hsv(image, None, change.hue)
    return cv2.LUT(image, after) if after is not None else image


def change_colours_one_pass(image: Image, change: ColourChange) -> Image:
    """As `change_colours`, with a single conversion to HSV and back: faster, a little off by rounding."""
    before, after = _level_tables(change)
    image = cv2.LUT(image, before) if before is not None else image
    if change.saturation is not None or change.hue is not None:
        image = _in_hsv(image, change.saturation, change.hue)
    return cv2.LUT(image, after) if after is not None else image


def _level_tables(change: ColourChange) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """The tables before and after the steps in HSV."""
    before, after = None, None
    if change.brightness is not None:
        before = _truncated(_LEVELS + np.float32(change.brightness))
    if change.contrast is not None:
        if change.contrast_first:
            before = _scaled(change.contrast)[_LEVELS if before is None else before]
        else:
            after = _scaled(change.contrast)
    return before, after


def _scaled(factor: float) -> NDArray[np.uint8]:
    return _truncated(_LEVELS * np.float32(factor))


def _truncated(levels: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(levels.astype(np.float32), 0, 255).astype(np.uint8)


def _in_hsv(image: Image, saturation: float | None, hue: int | None) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    tables = np.tile(_LEVELS.astype(np.uint8)[:, None], (1, 3))
    if hue is not None:
        tables[:, 0] = (_LEVELS + hue) % _HUES
    if saturation is not None:
        tables[:, 1] = _scaled(saturation)
    return cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB)
