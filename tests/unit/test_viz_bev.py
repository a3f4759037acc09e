import numpy as np
import pytest

from omma.viz.bev import (
    BACKGROUND,
    IGNORED,
    MATCH,
    OVERLAY_LEGEND,
    PREDICTION,
    TRUTH,
    class_palette,
    draw_bev,
    orient,
    paint_classes,
    paint_ignored,
    paint_mask,
    paint_overlay,
    paint_probability,
)


def centre_of(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    rows, columns = np.nonzero((picture == colour).all(axis=-1))
    assert len(rows)
    return rows.mean(), columns.mean()


@pytest.mark.parametrize(
    ("x_m", "y_m", "up", "left"), [(30, 20, True, True), (30, -20, True, False), (-30, 20, False, True)]
)
def test_a_cell_ahead_and_left_is_drawn_up_and_left(x_m: float, y_m: float, up: bool, left: bool) -> None:
    mask = np.zeros((200, 200), bool)
    mask[int((x_m + 50) * 2), int((y_m + 50) * 2)] = True
    picture = draw_bev(
        paint_mask(mask), x_range_m=(-50, 50), y_range_m=(-50, 50), height=400, ego_centre_x_m=None
    )
    row, column = centre_of(picture, TRUTH)
    left_edge, top_edge = 44, 30
    assert (row < top_edge + 200) == up
    assert (column < left_edge + 200) == left
    assert row == pytest.approx(top_edge + (50 - x_m - 0.25) * 4, abs=1.5)
    assert column == pytest.approx(left_edge + (50 - y_m - 0.25) * 4, abs=1.5)


def test_orient_puts_the_farthest_left_cell_first() -> None:
    assert orient(np.array([[1, 2], [3, 4]])).tolist() == [[4, 3], [2, 1]]


def test_the_ego_box_has_its_size_and_place() -> None:
    """4.084 m x 1.85 m, half a metre ahead of the origin, at 10 pixels a metre."""
    empty = np.full((100, 80, 3), 255, np.uint8)
    options = {"x_range_m": (-25, 25), "y_range_m": (-20, 20), "height": 500}
    with_ego = draw_bev(empty, **options)
    without = draw_bev(empty, **options, ego_centre_x_m=None)
    rows, columns = np.nonzero((with_ego != without).any(axis=-1))
    assert rows.max() - rows.min() == pytest.approx(40.84, abs=2)
    assert columns.max() - columns.min() == pytest.approx(18.5, abs=2)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(30 + (25 - 0.5) * 10, abs=1)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(44 + 200, abs=1)


def test_overlay_colours() -> None:
    painted = paint_overlay([[1, 1], [0, 0]], [[1, 0], [1, 0]])
    assert [tuple(c) for c in painted.reshape(-1, 3)] == [MATCH, TRUTH, PREDICTION, BACKGROUND]


def test_a_later_class_covers_an_earlier_one() -> None:
    palette = class_palette(2)
    painted = paint_classes(np.array([[[1, 1]], [[0, 1]]]), palette)
    assert [tuple(c) for c in painted[0]] == palette


def test_palette_colours_differ() -> None:
    assert len(set(class_palette(14))) == 14


def test_more_probable_is_darker_and_ignored_is_grey() -> None:
    painted = paint_probability([[0.0, 0.2, 0.9, 1.0]])
    brightness = painted.sum(axis=-1)[0].astype(int)
    assert (np.diff(brightness) < 0).all()
    greyed = paint_ignored(painted, [[True, False, False, False]])
    assert tuple(greyed[0, 0]) == IGNORED
    assert np.array_equal(greyed[0, 1:], painted[0, 1:])


def test_legend_and_title_make_room_outside_the_map() -> None:
    painted = paint_mask(np.ones((40, 20), bool))
    options = {"x_range_m": (0, 40), "y_range_m": (-10, 10), "height": 240, "ego_centre_x_m": None}
    plain, full = draw_bev(painted, **options), draw_bev(painted, **options, legend=OVERLAY_LEGEND, title="t")
    assert full.shape[0] > plain.shape[0]
    assert (plain == TRUTH).all(axis=-1).sum() == pytest.approx(240 * 120, rel=0.02)
    centre_of(full, MATCH)
