"""Colours, image pipeline and palette against the reference."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from fill import load_arrays

from omma.systems.diffbev.palette import COLOURS, IGNORED, paint
from omma.systems.diffbev.photometric import (
    ColourChange,
    change_colours,
    change_colours_one_pass,
    draw_colour_change,
)

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "diffbev"


class _Given:
    """A generator that returns the reference's draws."""

    def __init__(self, integers: np.ndarray, uniforms: np.ndarray) -> None:
        self.whole, self.real = integers.tolist(), uniforms.tolist()

    def integers(self, low: int, high: int) -> int:
        assert low <= self.whole[0] < high
        return self.whole.pop(0)

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.real[0] <= high
        return self.real.pop(0)


@pytest.mark.parametrize("name", ["all_mode1", "all_mode0", "none"])
def test_colours(name: str) -> None:
    case = load_arrays(CASES / "photometric.npz")
    draws = _Given(case[f"{name}__ints"], case[f"{name}__uniforms"])
    change = draw_colour_change(draws)
    assert not draws.whole
    assert not draws.real
    image = np.ascontiguousarray(case["image_bgr"][..., ::-1])
    np.testing.assert_array_equal(change_colours(image, change)[..., ::-1], case[name])
    difference = np.abs(change_colours_one_pass(image, change)[..., ::-1].astype(int) - case[name])
    assert difference.max() <= 4
    assert (difference > 2).mean() < 0.01


def test_resize_and_hsv() -> None:
    """OpenCV's own functions are the reference's; a release that rounds otherwise would show here."""
    case = load_arrays(CASES / "preprocess.npz")
    resized = cv2.resize(case["image_bgr"], (80, 60), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized, case["resized_bgr"])
    rgb = np.ascontiguousarray(case["hsv_back"][..., ::-1])
    neutral = change_colours(np.ascontiguousarray(resized[..., ::-1]), ColourChange(hue=0))
    np.testing.assert_array_equal(neutral, rgb)


def test_palette() -> None:
    case = load_arrays(CASES / "palette.npz")
    np.testing.assert_array_equal([*COLOURS, IGNORED], case["colors_rgb"])
    painted = paint(case["mask"][:-1], case["mask"][-1])
    np.testing.assert_array_equal(painted[..., ::-1], case["bgr"])
