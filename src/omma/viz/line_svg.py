"""Curves as SVG for an HTML page, written directly: a page has dozens, and a drawing library takes long.

The look is that of `viz.curves.plot_curves`; coordinates are those of its default size, 388.8 x 230.4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

from omma.viz.curves import COLOURS, Curve, power_text, short_number, smooth, value_scale

WIDTH, HEIGHT = 388.8, 230.4
_RIGHT, _BOTTOM, _LINE = WIDTH - 8, HEIGHT - 38, 13.0
_CHARACTER = 5.6  # width at size 9
_STEPS = (1, 2, 2.5, 5, 10)
_FEW, _MANY = 30, 60  # points with markers; points above which the moving mean is drawn over them


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie and what they span."""

    left: float
    top: float
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def across(self, values: Sequence[float]) -> np.ndarray:
        low, high = self.x
        return self.left + (np.asarray(values, dtype=float) - low) / (high - low) * (_RIGHT - self.left)

    def up(self, values: Sequence[float]) -> np.ndarray:
        low, high, found = (np.asarray(v, dtype=float) for v in (*self.y, values))
        if self.log:
            with np.errstate(invalid="ignore", divide="ignore"):
                low, high, found = np.log(low), np.log(high), np.log(found)
        return _BOTTOM - (found - low) / (high - low) * (_BOTTOM - self.top)

    def json(self) -> str:
        box = [self.left, self.top, _RIGHT, _BOTTOM]
        return json.dumps({"box": box, "x": self.x, "y": self.y, "log": self.log})


def curve_svg(
    curves: Mapping[str, Curve],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    marked: tuple[float, float] | None = None,
) -> str:
    """Lines over one x axis as an SVG element; arguments and look as of `plot_curves`.

    Ink is `currentColor`, grid and lines are `var(--faint)`, `var(--c0)` and so on. The attribute
    `data-frame` says where the axes lie, for scripts that read values off.

    Args:
        curves: name -> (x values, y values); NaN leaves a gap.
        title: above the plot.
        x_label: name and unit of x.
        y_label: name and unit of y.
        marked: a point to mark, such as the best value.
    """
    scale = value_scale(curves)
    x = _span([value for xs, _ in curves.values() for value in xs])
    y = scale.limits or _span([value for _, ys in curves.values() for value in ys], log=scale.log)
    y_ticks = _powers(*y) if scale.log else _ticks(*y)
    labels = _labels(y_ticks, powers=scale.powers or scale.log)
    top = 26.0
    legend = "".join(_legend(list(curves), top))
    if legend and _CHARACTER * (1.15 * len(title) + _legend_length(curves)) > WIDTH - 24:
        legend, top = "".join(_legend(list(curves), top + _LINE)), top + _LINE
    left = 14 + _CHARACTER * max(map(len, labels), default=0) + (_LINE if y_label else 0)
    frame = _Frame(round(left, 1), top, x, y, scale.log)
    parts = [
        _text(0, 12, title, size=9.9, anchor="start", more=' font-weight="bold"'),
        _text((frame.left + _RIGHT) / 2, HEIGHT - 6, x_label),
        _rotated(y_label, top) if y_label else "",
        *_grid(frame, _ticks(*x), y_ticks, labels),
        *(_curve(frame, *curve, number) for number, curve in enumerate(curves.values())),
        _ring(frame, marked) if marked else "",
        legend,
    ]
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="9" data-frame=\'{frame.json()}\'>'
    return f"{head}{''.join(parts)}</svg>"


def _span(values: Sequence[float], *, log: bool = False) -> tuple[float, float]:
    """The range of finite values with room at both ends."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if not found.any():
        return 0.0, 1.0
    low, high = float(found.min()), float(found.max())
    if log:
        room = (high / low) ** 0.05
        return low / room, high * room
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    found = MaxNLocator(nbins=6, steps=_STEPS).tick_values(low, high)
    return [float(value) for value in found if low <= value <= high]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten, at most six; between few of them their multiples by 2 and 5."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 4 else (1,)
    every = max(1, round(len(powers) / 6))
    return [f * 10.0**p for p in powers[::every] for f in factors if low <= f * 10.0**p <= high]


def _labels(ticks: Sequence[float], *, powers: bool) -> list[str]:
    """Numbers with as many digits as tell them apart."""
    if powers or max(map(abs, ticks), default=0) >= 1e5:
        return [power_text(value) for value in ticks]
    for digits in range(7):
        texts = [f"{value:.{digits}f}" for value in ticks]
        if all(abs(float(text) - value) < 1e-9 for text, value in zip(texts, ticks, strict=True)):
            break
    return texts if ticks else []


def _grid(
    frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], labels: Sequence[str]
) -> Iterator[str]:
    """Grid lines, their labels and the two axes."""
    left, top = frame.left, frame.top
    columns, rows = frame.across(x_ticks), frame.up(y_ticks)
    lines = "".join(f"M{x:.1f} {top}V{_BOTTOM}" for x in columns)
    lines += "".join(f"M{left} {y:.1f}H{_RIGHT}" for y in rows)
    axes = f"M{left} {top}V{_BOTTOM}H{_RIGHT}"
    yield f'<path d="{lines}" fill="none" stroke="var(--faint)" stroke-width=".6"/>'
    yield f'<path d="{axes}" fill="none" stroke="var(--faint)"/>'
    for place, value in zip(columns, x_ticks, strict=True):
        yield _text(place, _BOTTOM + 12, short_number(round(value, 6)))
    for place, label in zip(rows, labels, strict=True):
        yield _text(left - 5, place + 3, label, anchor="end")


def _curve(frame: _Frame, xs: Sequence[float], ys: Sequence[float], number: int) -> str:
    """A line with markers if it is short; a long one faint, with its moving mean on top."""
    colour = f"var(--c{number % len(COLOURS)})"
    across = frame.across(xs)
    if len(xs) > _MANY:
        faint = _path(across, frame.up(ys), f'stroke="{colour}" stroke-width=".7" opacity=".3"')
        mean = frame.up(smooth(ys, max(3, len(xs) // 25)).tolist())
        return faint + _path(across, mean, f'stroke="{colour}" stroke-width="1.8"')
    up = frame.up(ys)
    line = _path(across, up, f'stroke="{colour}" stroke-width="1.8"')
    if len(xs) > _FEW:
        return line
    places = [(x, y) for x, y in zip(across, up, strict=True) if math.isfinite(y)]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>' for x, y in places)
    return f'{line}<g fill="{colour}">{dots}</g>'


def _path(across: np.ndarray, up: np.ndarray, look: str) -> str:
    words, gap = [], True
    for x, y in zip(across.tolist(), up.tolist(), strict=True):
        if math.isfinite(y):
            words.append(f"{'M' if gap else 'L'}{x:.1f} {y:.1f}")
        gap = not math.isfinite(y)
    return f'<path d="{"".join(words)}" fill="none" {look}/>'


def _ring(frame: _Frame, marked: tuple[float, float]) -> str:
    x, y = frame.across([marked[0]])[0], frame.up([marked[1]])[0]
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" stroke="currentColor"/>'


def _legend_length(names: Mapping[str, Curve]) -> int:
    """In characters, with the dashes."""
    return sum(len(name) + 5 for name in names)


def _legend(names: Sequence[str], top: float) -> Iterator[str]:
    """A dash and a name for each of several curves, at the right above the axes."""
    if len(names) < 2:
        return
    right = _RIGHT
    for number, name in reversed(list(enumerate(names))):
        yield _text(right, top - 14, name, anchor="end", size=8)
        start = right - 0.9 * _CHARACTER * len(name) - 20
        colour = f"var(--c{number % len(COLOURS)})"
        yield f'<path d="M{start:.1f} {top - 17}h14" stroke="{colour}" stroke-width="1.8"/>'
        right = start - 10


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: float = 9, more: str = "") -> str:
    look = f'text-anchor="{anchor}" fill="currentColor"' + (f' font-size="{size}"' if size != 9 else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}{more}>{escape(text)}</text>'


def _rotated(text: str, top: float) -> str:
    middle = (top + _BOTTOM) / 2
    return _text(9, middle, text, more=f' transform="rotate(-90 9 {middle:.1f})"')
