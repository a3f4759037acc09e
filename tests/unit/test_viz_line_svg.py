"""Curves as SVG written directly: values lie where the frame says, and the page's rules hold."""

import json
import math
import re

import pytest

from omma.viz.curves import plot_curves, svg_text
from omma.viz.line_svg import curve_svg

CURVES = {"train": ([1, 2, 3, 4], [2.0, math.nan, 1.0, 0.5]), "val": ([2, 4], [1.0, 0.75])}


def frame_of(svg: str) -> dict:
    return json.loads(re.search(r"data-frame='(.*?)'", svg).group(1))


def places(svg: str) -> list[tuple[float, float]]:
    """Of the markers, back as values of a linear axis."""
    frame = frame_of(svg)
    left, top, right, bottom = frame["box"]
    (x0, x1), (y0, y1) = frame["x"], frame["y"]
    return [
        (
            x0 + (float(x) - left) / (right - left) * (x1 - x0),
            y0 + (bottom - float(y)) / (bottom - top) * (y1 - y0),
        )
        for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="1.8"', svg)
    ]


def test_points_lie_where_the_frame_says() -> None:
    expected = [(1, 2.0), (3, 1.0), (4, 0.5), (2, 1.0), (4, 0.75)]
    for found, value in zip(places(curve_svg(CURVES, title="loss")), expected, strict=True):
        assert found == pytest.approx(value, abs=0.01)


def test_nan_leaves_a_gap_and_the_legend_names_the_curves() -> None:
    svg = curve_svg(CURVES, title="loss")
    first = next(path for path in re.findall(r'd="(.*?)"', svg) if path.count("L") == 1)
    assert first.count("M") == 2
    assert ">train</text>" in svg
    assert ">val</text>" in svg
    assert ">a</text>" not in curve_svg({"a": ([0, 1], [1.0, 2.0])}, title="one")


def test_it_follows_the_page_and_escapes_text() -> None:
    svg = curve_svg(CURVES, title="<b> & 차", y_label="m/s", marked=(4, 0.5))
    assert "&lt;b&gt; &amp; 차" in svg
    assert "var(--c1)" in svg
    assert "#" not in svg
    assert 'r="4.5" fill="none" stroke="currentColor"' in svg


def test_the_scale_is_that_of_the_drawn_plot() -> None:
    """Logarithmic, constant, all zero, without any number."""
    rate = {"train": (list(range(1, 101)), [10.0 ** (-step / 20) for step in range(100)])}
    drawn = frame_of(svg_text(plot_curves(rate, title="lr"), "lr"))
    ours = frame_of(curve_svg(rate, title="lr"))
    assert ours["log"] is drawn["log"] is True
    assert [math.log(v) for v in ours["y"]] == pytest.approx([math.log(v) for v in drawn["y"]], rel=0.02)
    constant = {"val": ([1, 2], [6.0, 6.0])}
    drawn = frame_of(svg_text(plot_curves(constant, title="n"), "n"))
    assert frame_of(curve_svg(constant, title="n"))["y"] == pytest.approx(drawn["y"])
    for values in ([0.0, 0.0], [math.nan, math.nan]):
        assert frame_of(curve_svg({"val": ([1, 2], values)}, title="0"))["y"] == [0, 1]


def test_long_lines_are_drawn_with_their_moving_mean() -> None:
    svg = curve_svg({"train": (list(range(100)), [float(i % 2) for i in range(100)])}, title="loss")
    assert svg.count('opacity=".3"') == 1
    assert svg.count('stroke-width="1.8"') == 1
    assert "<circle" not in svg
