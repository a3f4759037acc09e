"""The plots of a comparison: a PNG for each metric, and the same smaller as SVG for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from omma.config.explain import suggest
from omma.report.columns import PER_CLASS, main_family
from omma.report.plots import UNITS, Plot, file_name
from omma.report.statistics import mean_deviation
from omma.viz.curves import save_figure, svg_text
from omma.viz.several import Bars, Line, plot_groups, plot_lines

Facts = dict[str, Any]
Size = tuple[float, float]

PAGE_SIZE = (4.7, 3.1)
ALL = "all"


@dataclass(frozen=True)
class Picture:
    """How the PNG files look.

    Args:
        size: inches.
        dpi: pixels an inch.
    """

    size: Size = (12.0, 6.0)
    dpi: int = 150


@dataclass(frozen=True)
class Selection:
    """What is drawn.

    Args:
        columns: of metrics.csv, one plot each.
        families: one bar chart each.
        unknown: names that were asked for and that no run has, each with near ones.
    """

    columns: Sequence[str]
    families: Sequence[str]
    unknown: Sequence[str] = ()


def select(facts: Facts, names: Sequence[str] = ()) -> Selection:
    """The plots to draw.

    Args:
        facts: from `compare_runs`.
        names: columns and families (`IoU_per_class`); "all" is all of them; none takes the best metric, the
            parts of the loss, the loss, the learning rate and the classes of the best metric.
    """
    columns = list(dict.fromkeys(column for curves in facts["curves"].values() for column in curves))
    families = list(dict.fromkeys(family for run in facts["runs"] for family in run["classes"]))
    if ALL in names:
        return Selection(columns, families)
    if not names:
        wanted = [facts["metric"], *facts["terms"], "lr"]
        main = main_family(families, facts["metric"])
        return Selection([name for name in dict.fromkeys(wanted) if name in columns], [main] if main else [])
    charts = {family + PER_CLASS: family for family in families}
    unknown = [name for name in dict.fromkeys(names) if name not in columns and name not in charts]
    return Selection(
        [name for name in dict.fromkeys(names) if name in columns],
        [charts[name] for name in dict.fromkeys(names) if name in charts],
        [f"{name}{suggest(name, [*columns, *charts])}" for name in unknown],
    )


def missing_in(facts: Facts, column: str) -> list[str]:
    """Runs that have no value of a column."""
    return [name for name, curves in facts["curves"].items() if column not in curves]


def draw(facts: Facts, selection: Selection, folder: Path, picture: Picture) -> Iterator[Plot]:
    """Write each PNG into `folder`, then give its plot for the page."""
    for column in selection.columns:
        large, small = (_curves(facts, column, size) for size in (picture.size, PAGE_SIZE))
        yield _write(column, (large, small), folder, picture)
    for family in selection.families:
        large, small = (_classes(facts, family, size) for size in (picture.size, None))
        yield _write(family + PER_CLASS, (large, small), folder, picture)


def _write(name: str, figures: tuple[Figure, Figure], folder: Path, picture: Picture) -> Plot:
    file = file_name(name)
    save_figure(figures[0], folder / file, dpi=picture.dpi)
    return Plot(name, file, figures[1].axes[0].get_xlabel(), svg_text(figures[1], name))


def _colours(facts: Facts) -> dict[str, tuple[str, int]]:
    """Run -> experiment and the index of its colour, the same in every plot."""
    return {
        run: (group["name"], index)
        for index, group in enumerate(facts["experiments"])
        for run in group["runs"]
    }


def _curves(facts: Facts, column: str, size: Size) -> Figure:
    best = {run["name"]: run["best"] for run in facts["runs"] if column == facts["metric"]}
    lines = []
    for run, (experiment, colour) in _colours(facts).items():
        for phase, points in facts["curves"][run].get(column, {}).items():
            found = best.get(run) if phase == "val" else None
            ring = (found["step"], found["value"]) if found else None
            lines.append(
                Line(experiment, points["steps"], points["values"], colour, sparse=phase == "val", best=ring)
            )
    return plot_lines(lines, title=_title(facts, column), y_label=UNITS.get(column, ""), size=size)


def _title(facts: Facts, column: str) -> str:
    if column == facts["metric"]:
        return f"{column} ({'higher' if facts['mode'] == 'max' else 'lower'} is better)"
    return column


def _classes(facts: Facts, family: str, size: Size | None) -> Figure:
    """Upright bars of that size; without a size lying ones for the page."""
    by_name = {run["name"]: run["classes"].get(family, {}) for run in facts["runs"]}
    labels = list(dict.fromkeys(label for values in by_name.values() for label in values))
    bars = []
    for index, group in enumerate(facts["experiments"]):
        cells = [
            mean_deviation([by_name[run][label] for run in group["runs"] if label in by_name[run]])
            for label in labels
        ]
        deviations = [cell[1] or 0.0 for cell in cells] if len(group["runs"]) > 1 else None
        bars.append(Bars(group["name"], [cell[0] for cell in cells], deviations, index))
    title = f"{family} by class at the best step"
    if size is not None:
        return plot_groups(labels, bars, title=title, y_label=family, size=size)
    height = 0.9 + len(labels) * (0.1 + 0.15 * len(bars))
    return plot_groups(labels, bars, title=title, y_label=family, lying=True, size=(PAGE_SIZE[0], height))


def readable_points(facts: Facts, selection: Selection) -> dict[str, dict[str, Facts]]:
    """Plot name -> line -> {"x", "y", "colour"}: what the page's script reads values from."""
    colours = _colours(facts)
    found: dict[str, dict[str, Facts]] = {}
    for column in selection.columns:
        phases = {phase for curves in facts["curves"].values() for phase in curves.get(column, {})}
        for run, curves in facts["curves"].items():
            for phase, points in curves.get(column, {}).items():
                name = run if len(phases) == 1 else f"{run}, {'validation' if phase == 'val' else 'training'}"
                values = [value if math.isfinite(value) else None for value in points["values"]]
                entry = {"x": points["steps"], "y": values, "colour": colours[run][1]}
                found.setdefault(column, {})[name] = entry
    return found
