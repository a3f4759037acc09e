"""Curves and bars of several runs in one plot, each run in its own colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from omma.viz.curves import (
    COLOURS,
    INK,
    fix_layout,
    font_size,
    new_axes,
    scale_y,
    short_number,
    smooth,
    style,
)

MOST_LEVEL_LABELS, MOST_LABELS = 16, 60


@dataclass(frozen=True)
class Line:
    """One run's values in a plot of several.

    Args:
        name: what the legend says; lines of one name and colour share an entry.
        xs: x values.
        ys: y values; NaN leaves a gap.
        colour: index into COLOURS; beyond their number they start again.
        sparse: few values far apart, as of validations: their points are marked.
        best: a point to ring.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int
    sparse: bool = False
    best: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """One run's bars in a plot of several.

    Args:
        name: what the legend says.
        values: one a group; NaN leaves a gap.
        deviations: half length of each error bar; None draws none.
        colour: index into COLOURS.
    """

    name: str
    values: Sequence[float]
    deviations: Sequence[float] | None
    colour: int


def plot_lines(
    lines: Sequence[Line], *, title: str, y_label: str = "", size: tuple[float, float] = (5.4, 3.2)
) -> Figure:
    """Lines of several runs over the step; colours are the runs', dashes are validations beside training.

    Args:
        lines: any number; long noisy ones are drawn faint with their moving mean on top.
        title: above the plot.
        y_label: name and unit of y.
        size: inches; letters grow with it.

    Returns:
        the figure; see `save_figure` and `svg_text`.
    """
    both = len({line.sparse for line in lines}) > 1
    with style(**_scaled(size)):
        figure, axes = new_axes(title, "step", y_label, size)
        for line in lines:
            _run_line(axes, line, dashed=both and line.sparse)
        scale_y(axes, {str(index): (line.xs, line.ys) for index, line in enumerate(lines)})
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(short_number)
        axes.legend(handles=_legend(lines, both), frameon=False, labelcolor=INK, fontsize=0.9 * font_size())
        fix_layout(figure)
    return figure


def _scaled(size: tuple[float, float]) -> dict[str, float]:
    return {"font.size": 9 * max(1.0, size[0] / 8)}


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _run_line(axes: Axes, line: Line, *, dashed: bool) -> None:
    colour = _colour(line.colour)
    if line.sparse or len(line.xs) <= 60:
        marker = "o" if line.sparse or len(line.xs) <= 30 else None
        style = (0, (3, 2)) if dashed else "-"
        axes.plot(line.xs, line.ys, color=colour, linewidth=1.8, linestyle=style, marker=marker, markersize=4)
    else:
        axes.plot(line.xs, line.ys, color=colour, linewidth=0.7, alpha=0.25)
        axes.plot(line.xs, smooth(line.ys, max(3, len(line.xs) // 25)), color=colour, linewidth=1.8)
    if line.best:
        axes.plot(*line.best, marker="o", markersize=11, fillstyle="none", color=colour, markeredgewidth=1.6)


def _legend(lines: Sequence[Line], both: bool) -> list[Line2D]:
    runs = dict.fromkeys((line.name, _colour(line.colour)) for line in lines)
    entries = [Line2D([], [], color=colour, linewidth=1.8, label=name) for name, colour in runs]
    common = {"color": INK, "linewidth": 1.4}
    if both:
        entries.append(Line2D([], [], **common, label="training"))
        entries.append(Line2D([], [], **common, linestyle=(0, (3, 2)), marker="o", label="validation"))
    if any(line.best for line in lines):
        ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"}
        entries.append(Line2D([], [], **ring, color=INK, label="best"))
    return entries


def plot_groups(
    names: Sequence[str],
    groups: Sequence[Bars],
    *,
    title: str,
    y_label: str = "",
    lying: bool = False,
    size: tuple[float, float] = (5.4, 3.2),
) -> Figure:
    """Bars of several runs side by side, a group for each name.

    Args:
        names: of the groups, such as classes.
        groups: one for each run, with a value for each name.
        title: above the plot.
        y_label: name and unit of the values.
        lying: bars from left to right, which leaves room for long names on a narrow page.
        size: inches; letters grow with it.

    Returns:
        the figure; see `save_figure` and `svg_text`.
    """
    width = 0.8 / len(groups)
    places = np.arange(len(names))
    with style(**_scaled(size)):
        figure, axes = new_axes(title, y_label if lying else "", "" if lying else y_label, size)
        axes.grid(visible=False, axis="y" if lying else "x")
        for index, group in enumerate(groups):
            at = places + (index - (len(groups) - 1) / 2) * width
            error = {"xerr" if lying else "yerr": group.deviations, "ecolor": INK, "capsize": 2}
            draw = axes.barh if lying else axes.bar
            bars = draw(
                at, group.values, width * 0.92, color=_colour(group.colour), label=group.name, **error
            )
            if lying or len(names) * len(groups) <= MOST_LABELS:
                labels = ["" if np.isnan(value) else f"{value:.3f}" for value in group.values]
                upright = lying or len(names) * len(groups) <= MOST_LEVEL_LABELS
                turn = {"rotation": 0 if upright else 90, "padding": 2 if upright else 4}
                axes.bar_label(bars, labels, color=INK, fontsize=0.75 * font_size(), **turn)
        _name_groups(axes, names, lying=lying)
        if len(groups) > 1:
            place = {"loc": f"outside {'lower' if lying else 'upper'} right", "ncols": min(len(groups), 3)}
            figure.legend(frameon=False, labelcolor=INK, fontsize=0.9 * font_size(), **place)
        fix_layout(figure)
    return figure


def _name_groups(axes: Axes, names: Sequence[str], *, lying: bool) -> None:
    places = range(len(names))
    if lying:
        axes.set_yticks(places, names)
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.margins(x=0.14)
        return
    crowded = max(map(len, names)) * len(names) > 90
    axes.set_xticks(places, names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlim(-0.55, len(names) - 0.45)
    axes.margins(y=0.15)
