"""Small pieces of HTML: escaped text, numbers with their full value, sortable tables, embedded pictures."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from omma.report.plots import Plot
from omma.report.theme import SCRIPT, STYLE
from omma.runs.files import json_text

NUMBER = ' class="number"'
MAX_PICTURE_WIDTH = 1280
MAX_ANIMATION_BYTES = 2_000_000


class Shown(float):
    """A number with a text of its own for readers, such as a difference with its sign."""

    text: str

    def __new__(cls, value: float, text: str) -> Shown:
        """Make one of a value and its text."""
        shown = super().__new__(cls, value)
        shown.text = text
        return shown


def number_text(value: float) -> str:
    """A number for readers: whole numbers with thin groups, others with four significant digits."""
    if isinstance(value, Shown):
        return value.text
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


def duration_text(seconds: float) -> str:
    """Seconds as 3 h 05 min, 12 min 30 s or 8.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def number(value: float, text: str | None = None) -> str:
    """A shown number; the `value` attribute holds it in full, as report.json does."""
    return f'<data value="{value!r}">{escape(text or number_text(value))}</data>'


def cell(value: Any) -> str:
    """Any plain value for a table cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<span class="none">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if _is_number(value) else escape(str(value))


def document(title: str, head: str, body: str, *, points: Mapping[str, Any]) -> str:
    """A whole page that refers to nothing outside itself.

    Args:
        title: of the browser's tab.
        head: HTML above the sections.
        body: the sections.
        points: plot name -> line -> {"x", "y"}, where the page's script reads values from; a line may also
            have "colour", the index of its colour.
    """
    embedded = json.dumps(json.loads(json_text(points)), ensure_ascii=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{head}\n"
        f"<main>{body}<footer>Written by omma. Every number is in report.json.</footer></main>\n"
        f'<script type="application/json" id="points">{embedded}</script>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def navigation(titles: Mapping[str, str]) -> str:
    """Links to sections, anchor -> title."""
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title in titles.items())
    return f"<nav><div>{links}</div></nav>"


def message(kind: str, title: str, *details: str) -> str:
    """A line set apart; kind is "error", "warning", "ok", "info" or "note"."""
    more = "".join(f"<small>{escape(text)}</small>" for text in details)
    return f'<div class="message {escape(kind)}">{escape(title)}{more}</div>'


def figures(plots: Iterable[Plot]) -> str:
    """Plots side by side, whose values the page's script reads off."""
    body = "".join(map(_figure, plots))
    return f'<div class="plots">{body}</div>' if body else ""


def _figure(plot: Plot) -> str:
    attributes = f'data-plot="{escape(plot.name)}" data-x="{escape(plot.x_label)}"'
    return f'<figure class="plot" {attributes}>{plot.svg}</figure>'


def section(anchor: str, title: str, *parts: str) -> str:
    """A titled part of the page; empty if all its parts are."""
    body = "".join(parts)
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{body}</section>' if body else ""


def folded(title: str, body: str, *, opened: bool = False) -> str:
    """A block that a click opens."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text with its line breaks, such as code."""
    return f"<pre>{escape(text)}</pre>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(values: Iterable[Any]) -> bool:
    """Whether all values are floats in [0, 1], which a bar can show."""
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(value, float) and 0 <= value <= 1 for value in found)


def table(rows: Sequence[Mapping[str, Any]], *, bars: bool = False) -> str:
    """Rows as a table that a click on a heading sorts.

    Args:
        rows: mappings with the same keys; the keys are the headings.
        bars: shade cells of columns whose values all lie in [0, 1].
    """
    if not rows:
        return ""
    columns = list(rows[0])
    shaded = {name for name in columns if bars and _is_share(row.get(name) for row in rows)}
    numeric = {name for name in columns if any(_is_number(row.get(name)) for row in rows)}
    head = "".join(f"<th{NUMBER * (name in numeric)} tabindex=0>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(_td(row.get(name), name in shaded, name in numeric) for name in columns)}</tr>"
        for row in rows
    )
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="sortable">{parts}</table></div>'


def _td(value: Any, shaded: bool, numeric: bool) -> str:
    if shaded and value is not None:
        return f'<td class="number share" style="--share:{100 * value:.1f}%">{cell(value)}</td>'
    return f"<td{NUMBER * (_is_number(value) or (value is None and numeric))}>{cell(value)}</td>"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as dotted key -> value; lists of plain values become one text."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            flat[prefix + key] = ", ".join(str(item) for item in value)
        else:
            flat[prefix + key] = value
    return flat


def pairs(tree: Mapping[str, Any]) -> str:
    """Nested values as a two-column list."""
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{cell(value)}</dd>" for key, value in flatten(tree).items())
    return f"<dl>{rows}</dl>" if rows else ""


def picture(path: Path) -> str:
    """An embedded picture: a small animation as it is, all else as JPEG or PNG, scaled down if large."""
    with Pillow.open(path) as opened:
        size = opened.size
        animated = path.suffix.lower() == ".gif" and path.stat().st_size <= MAX_ANIMATION_BYTES
        kind, data = ("gif", path.read_bytes()) if animated else _compressed(opened.convert("RGB"))
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    shape = f'width="{size[0]}" height="{size[1]}"'
    return f'<img loading="lazy" decoding="async" {shape} alt="{escape(path.stem)}" src="{source}">'


def _compressed(image: Pillow.Image) -> tuple[str, bytes]:
    """The smaller of a JPEG and a PNG file."""
    if image.width > MAX_PICTURE_WIDTH:
        height = round(image.height * MAX_PICTURE_WIDTH / image.width)
        image = image.resize((MAX_PICTURE_WIDTH, height), Pillow.Resampling.LANCZOS)
    files = []
    for kind, options in (("jpeg", {"quality": 88}), ("png", {})):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        files.append((kind, buffer.getvalue()))
    return min(files, key=lambda item: len(item[1]))
