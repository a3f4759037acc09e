"""The scale beside a coloured map, and its place in a panel."""

from __future__ import annotations

import numpy as np
import pytest

from omma.viz.image import GREY, WHITE, Tile, colour_map, panel
from omma.viz.scale import ColourScale

RANGES = [(0.0, 10.0, 400), (1.58, 51.5, 300), (0.0, 0.37, 200), (3.0, 87.6, 120), (2.0, 2.5, 600)]


def colour_of(scale: ColourScale, value: float) -> np.ndarray:
    return colour_map([[value]], name=scale.name, lowest=scale.low, highest=scale.high)[0, 0].astype(int)


@pytest.mark.parametrize(("low", "high", "height"), RANGES)
@pytest.mark.parametrize("name", ["turbo", "inferno"])
def test_each_tick_stands_at_its_colour(low: float, high: float, height: int, name: str) -> None:
    scale = ColourScale(low, high, name=name)
    picture = scale.draw(height)
    ticks = scale.ticks(height)
    assert picture.shape == (height, scale.width, 3)
    assert len(ticks) >= 3
    for value in ticks:
        row = scale.row(value, height)
        marks = np.flatnonzero((picture[row] == GREY).all(axis=-1))
        assert len(marks) >= 3
        beside = picture[row, marks[0] - 3].astype(int)
        # a row of the bar stands for a range of values, 1 / height of the whole
        half = 0.6 * (high - low) / (height - 30)
        near = [colour_of(scale, value + offset) for offset in (-half, 0, half)]
        assert (beside >= np.min(near, axis=0) - 1).all()
        assert (beside <= np.max(near, axis=0) + 1).all()


@pytest.mark.parametrize(("low", "high", "height"), RANGES)
def test_ticks_are_round_inside_and_do_not_touch(low: float, high: float, height: int) -> None:
    scale = ColourScale(low, high)
    ticks = scale.ticks(height)
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
    rows = [scale.row(value, height) for value in ticks]
    assert min(-np.diff(rows)) >= 20
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** np.floor(np.log10(step) + 1e-9), 6) in {1, 2, 5}
    picture = scale.draw(height)
    assert (picture[[0, -1]] == WHITE).all()


def test_the_ends_have_the_ends_colours() -> None:
    scale = ColourScale(1.0, 3.0)
    picture = scale.draw(200)
    column = picture[:, 10]
    inside = column[(column != WHITE).any(axis=-1)].astype(int)
    np.testing.assert_array_equal(inside[0], colour_of(scale, 3.0))
    np.testing.assert_array_equal(inside[-1], colour_of(scale, 1.0))
    assert scale.row(3.0, 200) < scale.row(1.0, 200)


@pytest.mark.parametrize("height", [1, 5, 20, 40])
def test_scales_of_little_room_or_of_one_value(height: int) -> None:
    assert ColourScale(0.0, 10.0).draw(height).shape[0] == height
    same = ColourScale(4.0, 4.0)
    assert same.ticks(height) == [4.0]
    assert same.draw(height).shape == (height, same.width, 3)


def test_a_panel_keeps_room_for_scales() -> None:
    """The scale stands at the right of its map, as high as it, and the row still fits the panel."""
    scale = ColourScale(0.0, 5.0)
    black = np.zeros((50, 100, 3), np.uint8)
    sheet = panel([[Tile(black, "a", scale), Tile(black, "b", scale)]], width=700)
    assert sheet.shape[1] == 700
    dark = (sheet < 10).all(axis=-1)
    rows = np.flatnonzero(dark.sum(axis=1) > 300)
    columns = np.flatnonzero(dark[rows[len(rows) // 2]])
    first_end = columns[np.flatnonzero(np.diff(columns) > 5)[0]]
    beside = sheet[rows[0] : rows[-1] + 1, first_end + 1 : first_end + 1 + scale.width]
    np.testing.assert_array_equal(beside, scale.draw(len(rows)))
