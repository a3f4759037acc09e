import math

import numpy as np
import pytest

from omma.viz.curves import COLOURS, INK, svg_text
from omma.viz.several import Bars, Line, plot_groups, plot_lines

STEPS = list(range(100))


def lines() -> list[Line]:
    noisy = np.random.default_rng(0).random(100).tolist()
    return [
        Line("a", STEPS, noisy, 0),
        Line("a", [50, 99], [0.5, 0.4], 0, sparse=True, best=(99, 0.4)),
        Line("b", STEPS, noisy, 1),
        Line("b", STEPS[:5], noisy[:5], 1),
    ]


def test_a_run_has_one_colour_and_one_entry_in_the_legend() -> None:
    axes = plot_lines(lines(), title="loss").axes[0]
    assert {line.get_color() for line in axes.get_lines()} == set(COLOURS[:2])
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == ["a", "b", "training", "validation", "best"]


def test_long_lines_are_smoothed_validations_dashed_with_points_and_the_best_ringed() -> None:
    drawn = plot_lines(lines()[:2], title="loss").axes[0].get_lines()
    raw, smooth, validation, ring = drawn
    assert raw.get_alpha() < 1
    assert np.ptp(smooth.get_ydata()) < np.ptp(raw.get_ydata())
    assert (validation.get_marker(), validation.get_linestyle()) == ("o", "--")
    assert (ring.get_xydata().tolist(), ring.get_fillstyle()) == ([[99, 0.4]], "none")


def test_validations_alone_are_drawn_through() -> None:
    (line,) = plot_lines([Line("a", [1, 2], [0.1, 0.2], 0, sparse=True)], title="iou").axes[0].get_lines()
    assert line.get_linestyle() == "-"


def test_colours_start_again_after_the_last() -> None:
    (line,) = plot_lines([Line("a", [1, 2], [0.1, 0.2], len(COLOURS) + 2)], title="a").axes[0].get_lines()
    assert line.get_color() == COLOURS[2]


def test_letters_grow_with_the_figure() -> None:
    sizes = [
        plot_lines(lines(), title="a", size=size).axes[0].title.get_fontsize() for size in ((5, 3), (12, 6))
    ]
    assert sizes[1] == pytest.approx(1.5 * sizes[0])


def test_small_numbers_have_short_tick_labels() -> None:
    axes = plot_lines([Line("lr", [0, 1], [0.0, 2e-4], 0)], title="lr").axes[0]
    assert axes.yaxis.get_major_formatter()(1.5e-4) == "1.5e-4"
    assert axes.yaxis.get_major_formatter()(0.0) == "0"


@pytest.mark.parametrize("lying", [True, False])
def test_groups_stand_side_by_side_with_values_and_gaps(lying: bool) -> None:
    groups = [Bars("a", [0.25, math.nan], None, 0), Bars("b", [0.5, 0.75], [0.1, 0.0], 1)]
    figure = plot_groups(["car", "bus"], groups, title="IoU", lying=lying)
    axes = figure.axes[0]
    lengths = [bar.get_width() if lying else bar.get_height() for bar in axes.patches]
    assert lengths == pytest.approx([0.25, math.nan, 0.5, 0.75], nan_ok=True)
    places = [bar.get_y() if lying else bar.get_x() for bar in axes.patches]
    assert places[0] < places[2] < places[1]
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["0.250", "", "0.500", "0.750"]
    names = axes.get_yticklabels() if lying else axes.get_xticklabels()
    assert [name.get_text() for name in names] == ["car", "bus"]
    svg = svg_text(figure, "IoU")
    assert "var(--c0)" in svg
    assert "var(--c1)" in svg
    assert INK not in svg


def test_a_last_group_without_values_still_has_its_place() -> None:
    axes = plot_groups(["car", "bus"], [Bars("a", [0.25, math.nan], None, 0)], title="IoU").axes[0]
    assert axes.get_xlim()[1] > 1.4
