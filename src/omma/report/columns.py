"""Columns of metrics.csv by what they are: the best metric, and families such as the IoU of each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omma.report.facts import REST, RING, system_best
from omma.runs.metrics import KEYS, direction, series

PER_CLASS = "_per_class"
_SMALLEST = {"/": 2, "_": 3}


def best_metric(status: Mapping[str, Any], system: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The metric that a run's best/ is kept by, and "max" or "min"; ("", "max") without a validation of it.

    Args:
        status: of the run.
        system: its system's name.
        rows: its metrics.csv.
    """
    own, mode = system_best(system)
    metric = str((status.get("best") or {}).get("metric", own)).removeprefix("val/")
    if not series(rows, "val", metric)[0]:
        return "", "max"
    return metric, mode if metric == own else direction(metric)


def families(columns: Iterable[str]) -> dict[str, dict[str, str]]:
    """Validation columns that are parts of one metric: family -> part -> column.

    `iou/car` and `iou/bus` are a family "iou" of two; `IoU_car`, `IoU_bus` and `IoU_truck` one of three,
    which is the fewest without a slash. Distances (`iou/ring_0_20m`) are not part of it.
    """
    found: dict[str, dict[str, str]] = {}
    marks: dict[str, str] = {}
    for column in dict.fromkeys(columns):
        if column in {*KEYS, *REST, "time_s"} or RING.fullmatch(column):
            continue
        mark = "/" if "/" in column else "_"
        family, _, part = column.partition(mark)
        if family and part:
            found.setdefault(family, {})[part] = column
            marks[family] = mark
    return {family: parts for family, parts in found.items() if len(parts) >= _SMALLEST[marks[family]]}


def main_family(found: Iterable[str], metric: str) -> str | None:
    """The family that the best metric is the mean of, by its name; else the first."""
    names = list(found)
    near = [name for name in names if name.casefold() in metric.casefold()]
    return next(iter([*near, *names]), None)
