"""Curves and bars in one consistent style, as matplotlib figures without global state."""

from __future__ import annotations

import functools
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

Curve = tuple[Sequence[float], Sequence[float]]

# after Okabe and Ito: colour-blind readers tell them apart; in SVG they become var(--c0), var(--c1), ...
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#8c564b")
INK, FAINT = "#30363d", "#d0d7de"
_CJK_FAMILIES = (
    "Noto Sans CJK KR",
    "NanumGothic",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
)
_STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}


@functools.cache
def _families() -> list[str]:
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CJK_FAMILIES if name in installed)]


def font_size() -> float:
    """Points of common text in the style that holds now."""
    return float(mpl.rcParams["font.size"])


@contextmanager
def style(**more: str | float) -> Iterator[None]:
    """The common style; a script that no font of the system has shows as boxes, without a warning each."""
    with mpl.rc_context({**_STYLE, "font.family": _families(), **more}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_axes(title: str, x_label: str, y_label: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure in the common look; to be called inside `style`."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=1.1 * font_size(), fontweight="bold")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    return figure, axes


def fix_layout(figure: Figure) -> None:
    """Arrange the parts once, instead of at each saving."""
    engine = figure.get_layout_engine()
    assert engine is not None, "figures are made by new_axes"
    engine.execute(figure)
    figure.set_layout_engine("none")


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Centred moving mean that shrinks at both ends and leaves NaN out."""
    numbers = np.asarray(values, dtype=np.float64)
    valid = np.isfinite(numbers)
    sums = np.concatenate([[0.0], np.cumsum(np.where(valid, numbers, 0.0))])
    counts = np.concatenate([[0], np.cumsum(valid)])
    index = np.arange(len(numbers))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(numbers))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


@dataclass(frozen=True)
class ValueScale:
    """How the values of curves are laid out.

    Args:
        log: whether the axis is logarithmic.
        powers: whether ticks are written as powers.
        limits: of the axis, if not those of the values.
    """

    log: bool = False
    powers: bool = False
    limits: tuple[float, float] | None = None


def value_scale(curves: Mapping[str, Curve]) -> ValueScale:
    """A logarithmic axis where most of the values span two powers of ten; room around a constant."""
    values = np.concatenate([np.asarray(ys, dtype=np.float64) for _, ys in curves.values()])
    values = values[np.isfinite(values)]
    if not len(values):
        return ValueScale()
    low, high = np.quantile(values, [0.1, 0.9])
    if values.min() > 0 and high > 100 * low:
        return ValueScale(log=True)
    limits = None
    if np.ptp(values) < 1e-3 * abs(values).max():
        ends = sorted((0.9 * float(values.mean()), 1.1 * float(values.mean())))
        limits = (ends[0], ends[1])
    return ValueScale(powers=bool(0 < abs(values).max() < 1e-2), limits=limits)


def scale_y(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Lay the y axis out as `value_scale` says."""
    scale = value_scale(curves)
    if scale.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if scale.log or scale.powers:
        axes.yaxis.set_major_formatter(power_text)
    if scale.limits:
        axes.set_ylim(scale.limits)


def power_text(value: float, _: int | None = None) -> str:
    """Tick labels of small numbers and powers: 0.00025 as 2.5e-4."""
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}" if value else "0"


def short_number(value: float, _: int | None = None) -> str:
    """Tick labels of steps: 20000 as 20k."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def plot_curves(
    curves: Mapping[str, Curve],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    marked: tuple[float, float] | None = None,
    x_names: Sequence[str] = (),
    size: tuple[float, float] = (5.4, 3.2),
) -> Figure:
    """Lines over one x axis; long noisy lines are drawn faint with their moving mean on top.

    Args:
        curves: name -> (x values, y values); NaN leaves a gap.
        title: above the plot.
        x_label: name and unit of x.
        y_label: name and unit of y.
        marked: a point to mark, such as the best value.
        x_names: what stands at x = 0, 1, ... instead of numbers.
        size: inches.

    Returns:
        the figure; see `save_figure` and `svg_text`.
    """
    with style():
        figure, axes = new_axes(title, x_label, y_label, size)
        for index, (name, (xs, ys)) in enumerate(curves.items()):
            _line(axes, name, xs, ys, COLOURS[index % len(COLOURS)])
        if marked:
            axes.plot(*marked, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
        scale_y(axes, curves)
        if x_names:
            axes.set_xticks(range(len(x_names)), x_names)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter(short_number)
        if len(curves) > 1:
            axes.legend(frameon=False, labelcolor=INK, fontsize=8)
        fix_layout(figure)
    return figure


def _line(axes: Axes, name: str, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    if len(xs) > 60:
        axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(xs, smooth(ys, max(3, len(xs) // 25)), color=colour, linewidth=1.8, label=name)
    else:
        marker = "o" if len(xs) <= 30 else None
        axes.plot(xs, ys, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=name)


def plot_bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    title: str,
    y_label: str = "",
    size: tuple[float, float] = (5.4, 3.2),
) -> Figure:
    """Bars with their value on top, for metrics by ring, class or sector."""
    with style():
        figure, axes = new_axes(title, "", y_label, size)
        axes.grid(visible=False, axis="x")
        bars = axes.bar(range(len(names)), values, color=COLOURS[0], width=0.62)
        axes.bar_label(bars, fmt="%.3g", color=INK, fontsize=8, padding=2)
        crowded = max(map(len, names)) * len(names) > 60
        axes.set_xticks(
            range(len(names)), names, rotation=40 if crowded else 0, ha="right" if crowded else "center"
        )
        axes.margins(y=0.15)
        fix_layout(figure)
    return figure


def plot_dots(
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    x_label: str,
) -> Figure:
    """Values of several series side by side: a row a name, a dot a series.

    Where values span much, the axis is logarithmic, and 0 is a hollow dot at its left end.

    Args:
        names: of the rows, from the top.
        series: name -> one value a row; None or NaN where there is none.
        title: above the plot.
        x_label: name and unit of the values.
    """
    with style():
        figure, axes = new_axes(title, x_label, "", (6.4, 1.5 + 0.32 * len(names)))
        values = np.array(list(series.values()), dtype=np.float64)
        left = _scale_dots(axes, values)
        for index, (label, found) in enumerate(zip(series, values, strict=True)):
            rows = np.arange(len(names)) + (index - (len(series) - 1) / 2) * 0.6 / len(series)
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": "", "marker": "o", "markersize": 5.5}
            axes.plot(np.where(found > left, found, np.nan), rows, label=label, **look)
            at_end = np.where(found <= left, left, np.nan)
            axes.plot(at_end, rows, **look, markerfacecolor="none", clip_on=False)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK, fontsize=8)
        fix_layout(figure)
    return figure


def _scale_dots(axes: Axes, values: np.ndarray) -> float:
    """Scale the x axis; where it begins if it is logarithmic, else below all values."""
    known = values[np.isfinite(values)]
    above = known[known > 0]
    if not len(above) or known.min() < 0 or above.max() < 10 * above.min():
        return -np.inf
    left = above.min() / 1.5
    axes.set_xscale("log")
    axes.set_xlim(left, above.max() * 1.3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return float(left)


def save_figure(figure: Figure, path: Path, *, dpi: int = 130) -> None:
    """Write a figure as PNG on white; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        figure.savefig(path, format="png", dpi=dpi, facecolor="white")


def _frame(figure: Figure) -> str:
    """Where the axes lie in the SVG's view box (left, top, right, bottom) and what they span, as JSON."""
    axes = figure.axes[0]
    width, height = figure.get_size_inches() * 72
    place = axes.get_position()
    frame = {
        "box": [place.x0 * width, (1 - place.y1) * height, place.x1 * width, (1 - place.y0) * height],
        "x": axes.get_xlim(),
        "y": axes.get_ylim(),
        "log": axes.get_yscale() == "log",
    }
    return json.dumps(frame)


def svg_text(figure: Figure, name: str) -> str:
    """The figure as an SVG element for an HTML page: no outside references, text as text.

    Ink, grid and line colours become `currentColor`, `var(--faint)`, `var(--c0)` and so on, so that the plot
    follows a light or dark page. The attribute `data-frame` says where the axes lie, for scripts that read
    values off.

    Args:
        figure: from `plot_curves` or `plot_bars`.
        name: makes the ids inside unique in the page.
    """
    buffer = io.StringIO()
    with style(**{"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    head = f"<svg {view_box.group()} role=\"img\" data-frame='{_frame(figure)}'>"
    svg = head + svg[svg.index(">") + 1 :]
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{index})")
    return svg.replace(INK, "currentColor").replace(FAINT, "var(--faint)").strip()
