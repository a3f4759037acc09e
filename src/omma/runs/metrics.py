"""metrics.csv: one row a log step or validation, appended and flushed; a resume loses and doubles nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omma.errors import DataError
from omma.runs.files import explain_disk_full, write_text_atomic

KEYS = ("step", "epoch", "phase")
_LOWER_IS_BETTER = ("loss", "error", "rmse", "mae", "rel", "log10", "entropy", "epe", "deg")


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _read_cells(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows as text; a last line without its end (a killed process) is left out."""
    if not path.exists():
        return [], []
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete, newline=""))
    rows = [row for row in reader if row]
    for row in rows:
        if None in row or None in row.values() or not row["step"].isdigit():
            raise DataError(f"{path}: line {rows.index(row) + 2} does not fit the header")
    return list(reader.fieldnames or []), rows


def _cell(value: Any) -> str:
    return "" if value is None else repr(float(value))


class MetricsLog:
    """Appends to metrics.csv.

    Args:
        path: the file; made if missing.
        columns: every column that will be written, besides step, epoch and phase; new ones extend an existing
            file's header, where earlier rows get empty cells.
        resume_step: rows of later steps are dropped first, in one atomic rewrite; None keeps all.

    Raises:
        DataError: if the existing file is damaged.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, resume_step: int | None) -> None:
        self._path = path
        header, rows = _read_cells(path)
        self.columns = tuple(dict.fromkeys([*KEYS, *header, *columns]))
        kept = [row for row in rows if resume_step is None or int(row["step"]) <= resume_step]
        lines = [_csv_line(self.columns)]
        lines += [_csv_line(row.get(column, "") for column in self.columns) for row in kept]
        write_text_atomic(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8", newline="")

    def write(self, *, step: int, epoch: int, phase: str, values: Mapping[str, float | None]) -> None:
        """Append one row and flush it.

        Args:
            step: optimiser steps finished.
            epoch: epochs finished.
            phase: "train" or "val".
            values: column -> number; a missing column or None is an empty cell. Floats come back bit-exact.

        Raises:
            OmmaError: if the disk is full.
        """
        unknown = set(values) - set(self.columns)
        assert not unknown, f"columns not announced: {sorted(unknown)}"
        cells = [
            str(step),
            str(epoch),
            phase,
            *(_cell(values.get(name)) for name in self.columns[len(KEYS) :]),
        ]
        with explain_disk_full(self._path):
            self._file.write(_csv_line(cells))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _value(column: str, cell: str) -> Any:
    if column == "phase":
        return cell
    return int(cell) if column in KEYS else float(cell)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.csv: step and epoch int, phase text, all else float; an empty cell is absent.

    A missing file has no rows.

    Raises:
        DataError: if a line does not fit the header.
    """
    _, rows = _read_cells(path)
    return [{column: _value(column, cell) for column, cell in row.items() if cell != ""} for row in rows]


def series(rows: Iterable[Mapping[str, Any]], phase: str, column: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column in one phase, where it has a value."""
    points = [(row["step"], row[column]) for row in rows if row["phase"] == phase and column in row]
    return [step for step, _ in points], [value for _, value in points]


def direction(metric: str) -> str:
    """Whether the highest ("max") or lowest ("min") value of a metric is its best, by its name."""
    return "min" if any(word in metric.lower() for word in _LOWER_IS_BETTER) else "max"
