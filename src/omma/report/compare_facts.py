"""What several run folders say side by side, as plain values: the content of a comparison's report.json."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omma.errors import DataError
from omma.report import facts as one
from omma.report.columns import best_metric, families
from omma.report.compare_warnings import find_differences
from omma.report.html import flatten
from omma.report.statistics import Score, mean_deviation, paired_bootstrap, sample_score
from omma.runs.folder import RunFolder
from omma.runs.metrics import KEYS, read_metrics, series

Facts = dict[str, Any]

LAST_RECORDS = 100
SEED = "seed"
_SEED_END = re.compile(r"(^|[-_ .,(]+)(seed|s)?\d*[-_ .,(]*$|seed$")
_REST = {*one.REST, "time_s"}


@dataclass(frozen=True)
class Source:
    """A run and what the comparison calls it.

    Args:
        run: its folder.
        name: shown everywhere.
    """

    run: RunFolder
    name: str


def load_source(source: Source) -> Facts:
    """What a comparison needs of one run; "rows" are those of metrics.csv.

    Raises:
        DataError, ConfigError: if a file of the run is damaged, or metrics.csv is missing or has no rows.
    """
    run = source.run
    rows = read_metrics(run.metrics_file)
    if not rows:
        problem = "has no rows yet" if run.metrics_file.is_file() else "is missing"
        raise DataError(f"{run.metrics_file}: {problem}", "the run is left out of the comparison")
    status, config = run.status(), run.config()
    system = str(config.get("system", {}).get("name", ""))
    return {
        "name": source.name,
        "folder": run.path.as_posix(),
        "run": run.name,
        "system": system,
        "recipe": status.get("recipe", ""),
        "state": status["state"],
        "step": status.get("step"),
        "total": status.get("total"),
        "config": config,
        "seed": config.get(SEED),
        "rows": rows,
        "best_metric": best_metric(status, system, rows),
        "checkpoints": checkpoints(run),
        "data": one.read_json(run.path / "data.json") or {},
        "provenance": one.read_json(run.path / "provenance.json") or {},
        "evaluation": {folder.name: _evaluation(folder) for folder in one.eval_folders(run)},
    }


def checkpoints(run: RunFolder) -> list[Facts]:
    """Name, path and step of every checkpoint folder with a meta.json, steps first."""
    found = []
    for file in sorted(run.checkpoints.glob("[!.]*/meta.json")):
        meta = one.read_json(file) or {}
        found.append({"name": file.parent.name, "path": file.parent.as_posix(), "step": meta.get("step")})
    return sorted(found, key=lambda item: (not item["name"].startswith("step_"), item["step"] or 0))


def _evaluation(folder: Path) -> Facts:
    about = one.read_json(folder / "metrics.json")
    kept = ("checkpoint", "samples", "setting", "predictions", "metrics")
    return {key: about.get(key) for key in kept} | {"per_sample": one.read_table(folder / "per_sample.csv")}


def compare_runs(loaded: Sequence[Facts]) -> Facts:
    """Everything the comparison shows, ready for JSON.

    Args:
        loaded: from `load_source`, at least one; the first is what the others are compared with.
    """
    metric, mode = _common_metric(loaded)
    runs = [_run_entry(item, metric, mode) for item in loaded]
    groups = _experiments(loaded, runs)
    facts: Facts = {
        "format_version": 1,
        "metric": metric,
        "mode": mode,
        "experiments": groups,
        "runs": runs,
        "terms": _terms(loaded),
        "warnings": find_differences(loaded, metric),
        "settings": _settings(loaded, groups),
        "curves": {item["name"]: one.curves_by_column(item["rows"]) for item in loaded},
        "intervals": _intervals(loaded, metric),
    }
    facts["table"] = _table(facts)
    return facts


def _common_metric(loaded: Sequence[Facts]) -> tuple[str, str]:
    """The first run's best metric that most of the runs have in validation rows; ("", "max") without any."""
    candidates = [item["best_metric"] for item in loaded if item["best_metric"][0]]
    shared = [sum(bool(series(item["rows"], "val", m)[0]) for item in loaded) for m, _ in candidates]
    return candidates[int(np.argmax(shared))] if candidates else ("", "max")


def _terms(loaded: Sequence[Facts]) -> list[str]:
    """The parts of the loss, then the loss: columns of training rows without measurements and raw values."""
    best = {item["best_metric"][0] for item in loaded}
    names = dict.fromkeys(
        name for item in loaded for row in item["rows"] if row["phase"] == "train" for name in row
    )
    left_out = {*KEYS, *_REST, *best, "loss"}
    terms = [name for name in names if name not in left_out and not name.endswith("_raw")]
    return terms + ["loss"] * ("loss" in names)


def _run_entry(item: Facts, metric: str, mode: str) -> Facts:
    rows = item["rows"]
    kept = ("name", "folder", "run", "system", "recipe", "state", "step", "total", "seed", "checkpoints")
    best = _best(rows, metric, mode)
    train = [row for row in rows if row["phase"] == "train"]
    parts = families([name for row in rows if row["phase"] == "val" for name in row])
    at_best = _validation_row(rows, best["step"] if best else None)
    return {key: item[key] for key in kept} | {
        "records": len(rows),
        "train_records": len(train),
        "val_records": len(rows) - len(train),
        "best": best,
        "averages": {term: average for term in _terms([item]) if (average := _average(rows, term))},
        "classes": {
            family: {label: at_best[column] for label, column in columns.items() if column in at_best}
            for family, columns in parts.items()
        },
        "evaluation": {
            split: {key: value for key, value in found.items() if key != "per_sample"}
            for split, found in item["evaluation"].items()
        },
    }


def _best(rows: Sequence[Mapping[str, Any]], metric: str, mode: str) -> Facts | None:
    """Best value of the metric over the validations, the earliest of equals."""
    steps, values = series(rows, "val", metric)
    finite = [(value, step) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if not finite:
        return None
    value, step = max(finite, key=lambda item: item[0] if mode == "max" else -item[0])
    return {"metric": metric, "value": value, "step": step}


def _validation_row(rows: Sequence[Mapping[str, Any]], step: int | None) -> Mapping[str, Any]:
    return next((row for row in rows if row["phase"] == "val" and row["step"] == step), {})


def _average(rows: Sequence[Mapping[str, Any]], term: str) -> Facts | None:
    """Mean of the last records of a term in training rows."""
    steps, values = series(rows, "train", term)
    last = values[-LAST_RECORDS:]
    return {"value": float(np.mean(last)), "records": len(last), "step": steps[-1]} if last else None


def _experiments(loaded: Sequence[Facts], runs: Sequence[Facts]) -> list[Facts]:
    """Runs that differ in the seed only, together: {"name", "runs": names}."""
    groups: list[tuple[Any, list[int]]] = []
    for index, item in enumerate(loaded):
        identity = {key: value for key, value in item["config"].items() if key != SEED}
        same = [
            members
            for known, members in groups
            if known == identity and item[SEED] not in {loaded[member][SEED] for member in members}
        ]
        if same:
            same[0].append(index)
        else:
            groups.append((identity, [index]))
    members = [[runs[member]["name"] for member in found] for _, found in groups]
    short = [_group_name(names) for names in members]
    return [
        {"name": name if short.count(name) == 1 else _numbered(names[0], names), "runs": names}
        for name, names in zip(short, members, strict=True)
    ]


def _group_name(names: Sequence[str]) -> str:
    """The common beginning of the names of several seeds."""
    common = _SEED_END.sub("", os.path.commonprefix(list(names)))  # noqa: RUF071  letters, not folders
    return names[0] if len(names) == 1 else _numbered(common or names[0], names)


def _numbered(name: str, seeds: Sequence[str]) -> str:
    return f"{name} ({len(seeds)} seeds)" if len(seeds) > 1 else name


def _settings(loaded: Sequence[Facts], groups: Sequence[Facts]) -> list[Facts]:
    """Settings in which the experiments differ, a row each."""
    by_name = {item["name"]: item for item in loaded}
    configs = {group["name"]: flatten(by_name[group["runs"][0]]["config"]) for group in groups}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [{"setting": key} | {name: config.get(key) for name, config in configs.items()} for key in keys]
    return [row for row in rows if len({repr(row[name]) for name in configs}) > 1]


def _table(facts: Facts) -> list[Facts]:
    """The joint table: {"metric", "kind", "cells": by experiment, "differences": to the first}."""
    by_name = {run["name"]: run for run in facts["runs"]}
    members = {group["name"]: [by_name[name] for name in group["runs"]] for group in facts["experiments"]}
    rows = []
    if facts["metric"]:
        rows.append(_row(facts["metric"], "best", members, lambda run: (run["best"] or {}).get("value")))
    for family in dict.fromkeys(family for run in facts["runs"] for family in run["classes"]):
        for label in dict.fromkeys(c for run in facts["runs"] for c in run["classes"].get(family, {})):
            name = f"{family} {label}"
            rows.append(_row(name, "class", members, _class_value(family, label)))
    rows += [_row(f"{term}_avg", "average", members, _average_value(term)) for term in facts["terms"]]
    return [row for row in rows if row["kind"] == "class" or any(cell["n"] for cell in row["cells"].values())]


def _class_value(family: str, label: str) -> Any:
    return lambda run: run["classes"].get(family, {}).get(label)


def _average_value(term: str) -> Any:
    return lambda run: run["averages"].get(term, {}).get("value")


def _row(metric: str, kind: str, members: Mapping[str, Sequence[Facts]], value: Any) -> Facts:
    cells: dict[str, Facts] = {}
    for name, runs in members.items():
        found = [number for run in runs if (number := value(run)) is not None]
        mean, deviation, number = mean_deviation(found)
        cells[name] = {"mean": mean if number else None, "deviation": deviation, "n": number}
    first, *others = cells
    differences = {name: _difference(cells[first]["mean"], cells[name]["mean"]) for name in others}
    return {"metric": metric, "kind": kind, "cells": cells, "differences": differences}


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def _intervals(loaded: Sequence[Facts], metric: str) -> list[Facts]:
    """Paired bootstrap of every run against the first, on each split that both were evaluated on.

    A metric without a score of each sample, such as a loss, is replaced by all metrics that have one.
    """
    if not metric:
        return []
    first, *others = loaded
    found: list[Facts] = []
    for other in others:
        for split in first["evaluation"].keys() & other["evaluation"].keys():
            own = _interval(first, other, split, metric)
            more = (_interval(first, other, split, name) for name in _scored_metrics(first, split))
            found += [own] if own else [entry for entry in more if entry and entry["is_metric"]]
    return sorted(found, key=lambda entry: (entry["split"] != "val", entry["split"]))


def _scored_metrics(run: Facts, split: str) -> list[str]:
    """Metrics with a column of their own in per_sample.csv."""
    about = run["evaluation"][split]
    columns = about["per_sample"][0] if about["per_sample"] else {}
    return [name for name in about["metrics"] or {} if name in columns]


def _interval(first: Facts, other: Facts, split: str, metric: str) -> Facts | None:
    about = [item["evaluation"][split] for item in (first, other)]
    scores = _paired_scores(about[0]["per_sample"], about[1]["per_sample"], metric)
    if scores is None:
        return None
    interval = paired_bootstrap(*scores)
    if interval is None:
        return None
    values = [score.of_all() for score in scores]
    reported = [(item["metrics"] or {}).get(metric) for item in about]
    is_metric = all(
        known is not None and abs(known - value) < 1e-6 for known, value in zip(reported, values, strict=True)
    )
    return {
        "first": first["name"],
        "second": other["name"],
        "split": split,
        "metric": metric,
        "score": scores[0].kind,
        "is_metric": is_metric,
        "values": values,
        "difference": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "samples": interval.samples,
        "checkpoints": [item["checkpoint"] for item in about],
        "settings": [item["setting"] for item in about],
    }


def _paired_scores(
    first: Sequence[Facts], second: Sequence[Facts], metric: str
) -> tuple[Score, Score] | None:
    """The same score of both over the same samples in the same order; None if there is no such thing."""
    if not first or not second:
        return None
    key = "token" if "token" in first[0] else next(iter(first[0]))
    by_token = {row.get(key): row for row in second}
    same = {row[key] for row in first} == set(by_token) and len(first) == len(second) == len(by_token)
    if not same:
        return None
    scores = sample_score(first, metric), sample_score([by_token[row[key]] for row in first], metric)
    if scores[0] is None or scores[1] is None or scores[0].kind != scores[1].kind:
        return None
    if scores[0].summands.shape != scores[1].summands.shape:
        return None
    return scores[0], scores[1]
