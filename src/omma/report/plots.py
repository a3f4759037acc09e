"""The report's plots: which curves stand where, as SVG for the page, and some as PNG files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from omma.report.facts import REST, Facts
from omma.viz.curves import plot_bars, plot_curves, plot_dots, save_figure, svg_text
from omma.viz.line_svg import curve_svg

UNITS = {"step_time": "seconds", "memory": "GiB", "data_share": "share of a step"}


@dataclass(frozen=True)
class Plot:
    """One plot of the page.

    Args:
        name: column or other key; also looks up the points for reading values off.
        file: the PNG's name in `plots/`; empty without one.
        x_label: name of the x axis.
        svg: for the page.
    """

    name: str
    file: str
    x_label: str
    svg: str


def file_name(column: str) -> str:
    """`iou/car` -> `iou_car_comparison.png`, legal on every system."""
    return re.sub(r'[:<>"|?*/\\\s]', "_", column) + "_comparison.png"


def column_groups(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Columns by where they stand: "loss", "validation", "rest", or a family such as "iou/".

    A family holds four or more validation metrics with the same part before a slash (iou/car), or eight or
    more with the same one before an underscore (IoU_car); it is folded away.
    """
    groups: dict[str, list[str]] = {"loss": [], "validation": [], "rest": []}
    plain = [name for name, phases in curves.items() if name not in REST and "train" not in phases]
    sizes = Counter(map(_family, plain))
    for column, phases in curves.items():
        family = _family(column)
        if column in REST:
            groups["rest"].append(column)
        elif "train" in phases:
            groups["loss"].append(column)
        elif family and sizes[family] >= (4 if "/" in column else 8):
            groups.setdefault(family, []).append(column)
        else:
            groups["validation"].append(column)
    return groups


def _family(column: str) -> str:
    """`iou/` of iou/car, `IoU_/` of IoU_car; empty for a name without parts."""
    head, mark, _ = column.partition("/" if "/" in column else "_")
    return f"{head}{mark.replace('/', '')}/" if mark else ""


def draw_curves(
    curves: Mapping[str, Mapping[str, Facts]], best: Facts | None, folder: Path
) -> dict[str, Plot]:
    """One plot a column, training and validation together.

    The losses and the metric of best/ are also written to `folder` as PNG files; `omma compare --metrics`
    writes those of any column.
    """
    metric = best["metric"].removeprefix("val/") if best else None
    pictured = {*column_groups(curves)["loss"], metric}
    return {
        column: _curve(column, phases, best if column == metric else None, folder, file=column in pictured)
        for column, phases in curves.items()
    }


def _curve(column: str, phases: Mapping[str, Facts], best: Facts | None, folder: Path, *, file: bool) -> Plot:
    lines = {phase: (points["steps"], points["values"]) for phase, points in phases.items()}
    marked = (best["step"], best["value"]) if best else None
    unit, name = UNITS.get(column, ""), file_name(column) if file else ""
    if name:
        save_figure(plot_curves(lines, title=column, y_label=unit, marked=marked), folder / name)
    return Plot(column, name, "step", curve_svg(lines, title=column, y_label=unit, marked=marked))


def _draw(name: str, figure: Figure, folder: Path) -> Plot:
    file = file_name(name)
    save_figure(figure, folder / file)
    return Plot(name, file, figure.axes[0].get_xlabel(), svg_text(figure, name))


def draw_evaluation(split: str, evaluation: Facts, folder: Path) -> list[Plot]:
    """Bars by distance ring, and the curves of studies."""
    return [_draw(name, figure, folder) for name, figure in _evaluation_figures(split, evaluation)]


def _evaluation_figures(split: str, evaluation: Facts) -> Iterator[tuple[str, Figure]]:
    for metric, values in evaluation["rings"].items():
        title = f"{metric} by distance"
        yield f"{split}/{metric}/rings", plot_bars(list(values), list(values.values()), title=title)
    for key, study in evaluation["studies"].items():
        if "series" in study:
            yield f"{split}/{key}", study_figure(study)


def study_figure(study: Facts) -> Figure:
    """Curves over numbers or names in order; over other names bars, or dots of several series.

    Args:
        study: title, x_label, y_label, x, series (name -> values, None where there is none) and, of names
            in order, "ordered".
    """
    title, names = study["title"], [str(x) for x in study["x"]]
    series = {key: [math.nan if v is None else v for v in found] for key, found in study["series"].items()}
    labels = {"x_label": study["x_label"], "y_label": study["y_label"]}
    if not _over_names(study):
        return plot_curves({key: (study["x"], found) for key, found in series.items()}, title=title, **labels)
    if study.get("ordered"):
        lines = {key: (range(len(names)), found) for key, found in series.items()}
        return plot_curves(lines, title=title, x_names=names, **labels)
    if len(series) == 1:
        return plot_bars(names, *series.values(), title=title, y_label=study["y_label"])
    return plot_dots(names, series, title=title, x_label=study["y_label"])


def _over_names(study: Facts) -> bool:
    return any(isinstance(x, str) for x in study["x"])


def readable_points(facts: Facts) -> dict[str, dict[str, Facts]]:
    """Plot name -> line -> {"x", "y"}: what the page's script reads values from."""
    points = {
        column: {phase: {"x": line["steps"], "y": line["values"]} for phase, line in phases.items()}
        for column, phases in facts["curves"].items()
    }
    for split, evaluation in facts["evaluation"].items():
        for key, study in evaluation["studies"].items():
            if "series" in study and not _over_names(study):
                points[f"{split}/{key}"] = {
                    name: {"x": study["x"], "y": values} for name, values in study["series"].items()
                }
    return points
