"""Rows as CSV and as a table for the console."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def csv_text(rows: Sequence[Row]) -> str:
    """CSV with a column for every key of any row; an absent value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def text_table(rows: Sequence[Row]) -> str:
    """Aligned columns with a header line; cells as `cell_text` has them."""
    names = columns(rows)
    cells = [names] + [[cell_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)
    return "\n".join(lines)


def columns(rows: Sequence[Row]) -> list[str]:
    """The keys of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def cell_text(value: Any) -> str:
    """A number with four decimals; "-" for what is absent, such as a metric without samples (None or NaN)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
