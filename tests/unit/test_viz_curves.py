import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from omma.viz.curves import plot_bars, plot_curves, plot_dots, save_figure, smooth, svg_text
from omma.viz.image import read_image


def test_smooth_is_a_centred_mean_without_nan() -> None:
    assert smooth([1.0, 2.0, 6.0], 3) == pytest.approx([1.5, 3.0, 4.0])
    assert smooth([1.0, np.nan, 3.0], 3) == pytest.approx([1.0, 2.0, 3.0])
    assert np.isnan(smooth([np.nan, np.nan], 3)).all()


def curves() -> dict[str, tuple[list[int], list[float]]]:
    return {"train": ([1, 2, 3], [3.0, 2.0, 1.0]), "val": ([2, 3], [2.5, 1.5])}


def test_svg_follows_the_page_and_refers_to_nothing_outside() -> None:
    svg = svg_text(plot_curves(curves(), title="loss <b> $x_1$"), "loss")
    assert svg.startswith("<svg")
    assert "http" not in svg
    assert "currentColor" in svg
    assert "var(--c0)" in svg
    assert "var(--c1)" in svg
    assert "loss &lt;b&gt; $x_1$" in svg
    assert ">train<" in svg


def test_ids_differ_from_plot_to_plot() -> None:
    first, second = (
        set(re.findall(r'id="([^"]+)"', svg_text(plot_curves(curves(), title="a"), name)))
        for name in ("a", "b")
    )
    assert first
    assert not first & second


def test_the_frame_says_where_values_lie() -> None:
    svg = svg_text(plot_curves(curves(), title="loss"), "loss")
    frame = json.loads(re.search(r"data-frame='([^']+)'", svg).group(1))
    left, top, right, bottom = frame["box"]
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg).group(1).split())
    assert 0 < left < right < width
    assert 0 < top < bottom < height
    assert frame["x"][0] < 1 < 3 < frame["x"][1]
    assert frame["log"] is False


def test_wide_positive_ranges_get_a_log_axis() -> None:
    figure = plot_curves({"loss": ([1, 2, 3], [100.0, 1.0, 0.1])}, title="loss")
    assert figure.axes[0].get_yscale() == "log"
    figure = plot_curves({"loss": ([1, 2, 3], [100.0, 1.0, -0.1])}, title="loss")
    assert figure.axes[0].get_yscale() == "linear"


def test_nan_only_and_hangul_names_are_drawn_without_warnings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_curves({"정확도": ([1], [np.nan]), "val": ([1], [np.nan])}, title="차량 IoU")
        save_figure(figure, tmp_path / "정확도.png")
    assert read_image(tmp_path / "정확도.png").std() > 0


def test_bars_show_their_values(tmp_path: Path) -> None:
    figure = plot_bars(["0–20 m", "20–35 m"], [0.5, 0.25], title="IoU by ring")
    svg = svg_text(figure, "rings")
    assert ">0.25<" in svg
    assert ">20–35 m<" in svg


def test_dots_over_names_and_zeros_on_a_log_axis() -> None:
    series = {"network": [0.5, 1.0, None], "nearest fill": [0.0, 0.01, 2.0]}
    figure = plot_dots(["full", "lidar:8", "none"], series, title="Error", x_label="RMSE, m")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert drawn["network"][:2].tolist() == [0.5, 1.0]
    assert np.isnan(drawn["network"][2])
    assert np.isnan(drawn["nearest fill"][0])
    hollow = [line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert hollow[1] == pytest.approx(0.01 / 1.5)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    svg = svg_text(figure, "error")
    assert ">lidar:8<" in svg
    assert ">nearest fill<" in svg
    near = plot_dots(["a", "b"], {"x": [0.0, 3.0], "y": [1.0, -2.0]}, title="", x_label="")
    assert near.axes[0].get_xscale() == "linear"
    empty = plot_dots(["a"], {"x": [None]}, title="", x_label="")
    assert empty.axes[0].get_xscale() == "linear"


def test_curves_over_names() -> None:
    axes = plot_curves({"a": (range(2), [1.0, np.nan])}, title="", x_names=["near", "far"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["near", "far"]
