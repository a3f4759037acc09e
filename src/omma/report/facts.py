"""What a run folder says, as plain values: the content of report.json, where the page's numbers are from."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omma.errors import DataError, UsageError
from omma.runs.folder import RunFolder, runs_root
from omma.runs.metrics import KEYS, read_metrics, series
from omma.systems import get

Facts = dict[str, Any]

MAX_POINTS = 400
NUM_EXTREMES = 8
LOG_LINES = 80
REST = ("lr", "step_time", "data_share", "grad_norm", "memory")
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FLOAT = re.compile(r"-?((0|[1-9]\d*)\.\d*([eE][-+]?\d+)?|(0|[1-9]\d*)[eE][-+]?\d+|inf|nan)")
RING = re.compile(r"(?P<metric>.+)/ring_(?P<low>[\d.]+)_(?P<high>[\d.]+)m")


def run_facts(run: RunFolder) -> Facts:
    """Everything the report shows of one run, ready for JSON.

    Raises:
        DataError, ConfigError: if a file of the run is damaged.
    """
    rows = read_metrics(run.metrics_file)
    status = run.status()
    config = run.config()
    system = config.get("system", {}).get("name", "")
    facts: Facts = {
        "format_version": 1,
        "run": _identity(run, status, system),
        "best": status.get("best"),
        "curves": curves_by_column(rows),
        "last": {phase: _last_row(rows, phase) for phase in ("train", "val")},
        "speed": _speed(rows),
        "evaluation": {folder.name: _evaluation(folder, status, system) for folder in eval_folders(run)},
        "findings": read_json(run.diagnose / "findings.json") or [],
        "config": config,
        "provenance": read_json(run.path / "provenance.json") or {},
        "data": read_json(run.path / "data.json") or {},
        "command": _first_line(run.path / "command.txt"),
        "log_tail": _tail(run.log_file),
    }
    facts["headline"] = headline(facts)
    return facts


def _identity(run: RunFolder, status: Mapping[str, Any], system: str) -> Facts:
    kept = ("state", "created", "heartbeat", "step", "total", "epoch", "error")
    return {
        "name": run.name,
        "reference": _reference(run),
        "system": system,
        "recipe": status.get("recipe", ""),
        **{key: status.get(key) for key in kept},
    }


def _reference(run: RunFolder) -> str:
    """What commands call the run: its name, or its path where runs are not looked for."""
    found_by_name = run.path.resolve().parent == runs_root(None).resolve()
    return run.name if found_by_name else run.path.as_posix()


def read_json(path: Path) -> Any:
    """The value of a JSON file; None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({error})", "delete it and write it again") from error


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""


def _tail(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]


def thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """At most MAX_POINTS points: means over neighbours, at the last step of each group."""
    if len(steps) <= MAX_POINTS:
        return list(steps), list(values)
    groups = np.array_split(np.arange(len(steps)), MAX_POINTS)
    return [steps[group[-1]] for group in groups], [
        float(np.mean(np.take(values, group))) for group in groups
    ]


def curves_by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Facts]]:
    """Thinned {"steps", "values"} by column, in the order of metrics.csv, and phase."""
    columns = dict.fromkeys(column for row in rows for column in row if column not in (*KEYS, "time_s"))
    found: dict[str, dict[str, Facts]] = {}
    for column in columns:
        for phase in ("train", "val"):
            steps, values = thin(*series(rows, phase, column))
            if steps:
                found.setdefault(column, {})[phase] = {"steps": steps, "values": values}
    return found


def _last_row(rows: Sequence[Mapping[str, Any]], phase: str) -> Facts | None:
    found = [row for row in rows if row["phase"] == phase]
    return dict(found[-1]) if found else None


def _speed(rows: Sequence[Mapping[str, Any]]) -> Facts:
    """Training time, and medians over the logged steps (the first ones are slow for other reasons)."""
    speed: Facts = {"training_s": max((row["time_s"] for row in rows if "time_s" in row), default=None)}
    for column in ("step_time", "data_share", "memory"):
        _, values = series(rows, "train", column)
        speed[column] = float(np.median(values)) if values else None
    return speed


def eval_folders(run: RunFolder) -> list[Path]:
    """Folders of evaluated splits, by name."""
    root = run.path / "eval"
    return sorted(item.parent for item in root.glob("*/metrics.json"))


def _evaluation(folder: Path, status: Mapping[str, Any], system: str) -> Facts:
    about = read_json(folder / "metrics.json")
    samples = [_pooled(row) for row in read_table(folder / "per_sample.csv")]
    metric, worst = _ranking(samples, status, system)
    ranked = [
        row for row in samples if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]
    ranked.sort(key=lambda row: row[metric], reverse=worst == "highest")
    return {
        "checkpoint": about.get("checkpoint"),
        "samples": about.get("samples"),
        "setting": about.get("setting"),
        "metrics": about.get("metrics", {}),
        "rings": rings(about.get("metrics", {})),
        "per_class": read_table(folder / "per_class.csv"),
        "ranked_by": metric,
        "worst_are": worst,
        "worst": ranked[:NUM_EXTREMES],
        "best": ranked[NUM_EXTREMES:][::-1][:NUM_EXTREMES],
        "studies": {file.stem: read_json(file) for file in sorted((folder / "studies").glob("*.json"))},
    }


def _pooled(row: Facts) -> Facts:
    """The row without counts by class (`tp/car`), which are too many to read."""
    return {name: value for name, value in row.items() if not name.startswith(("tp/", "fp/", "fn/"))}


def _ranking(samples: Sequence[Mapping[str, Any]], status: Mapping[str, Any], system: str) -> tuple[str, str]:
    """The column that samples are ranked by, and whether its "lowest" or "highest" values are the worst."""
    columns = dict.fromkeys(name for row in samples for name in row)
    numeric = [name for name in columns if any(isinstance(row[name], float) for row in samples)]
    best = str((status.get("best") or {}).get("metric", "")).removeprefix("val/")
    name, mode = system_best(system)
    candidates = [metric for metric in (best, name) if metric in numeric] or numeric
    return (candidates[0] if candidates else ""), "lowest" if mode == "max" else "highest"


def system_best(system: str) -> tuple[str, str]:
    """A system's metric of best/ and its direction; ("", "max") for one that is not installed."""
    try:
        metric, mode = get(system).best
    except UsageError:
        return "", "max"
    return metric.removeprefix("val/"), mode


def _cell(text: str) -> str | int | float | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text or None


def read_table(path: Path) -> list[Facts]:
    """Rows of a CSV file, numeric columns as numbers; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return _typed(rows)


def _typed(rows: list[dict[str, str]]) -> list[Facts]:
    """Cells as numbers where all cells of the column are, so that a name such as 0042 stays a name."""
    columns = list(rows[0]) if rows else []
    numeric = {name for name in columns if all(not isinstance(_cell(row[name]), str) for row in rows)}
    return [{name: _cell(row[name]) if name in numeric else row[name] for name in columns} for row in rows]


def rings(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`<metric>/ring_0_20m` entries as metric -> {"0 to 20 m": value}, from near to far."""
    found: dict[str, list[tuple[float, str, float]]] = {}
    for name, value in metrics.items():
        match = RING.fullmatch(name)
        if match and value is not None:
            label = f"{match['low']} to {match['high']} m"
            found.setdefault(match["metric"], []).append((float(match["low"]), label, value))
    return {
        metric: {label: value for _, label, value in sorted(entries)} for metric, entries in found.items()
    }


def headline(facts: Facts) -> list[Facts]:
    """The few numbers at the top: {"label", "value", "unit", "note", "at"} each."""
    best, last, speed, about = facts["best"], facts["last"], facts["speed"], facts["run"]
    entries: list[Facts] = []
    if best:
        name = best["metric"].removeprefix("val/")
        entries.append(_entry(f"best {name}", best["value"], note="at step", at=best["step"]))
        if last["val"] and name in last["val"]:
            entries.append(_entry(f"final {name}", last["val"][name], note="at step", at=last["val"]["step"]))
    if last["train"] and "loss" in last["train"]:
        entries.append(
            _entry("final training loss", last["train"]["loss"], note="at step", at=last["train"]["step"])
        )
    if about["step"] is not None:
        note = "of" if about["total"] else ""
        entries.append(_entry("steps", about["step"], note=note, at=about["total"]))
    if speed["training_s"] is not None:
        entries.append(_entry("training time", speed["training_s"], unit="duration"))
    if speed["step_time"] is not None:
        entries.append(_entry("time a step", speed["step_time"] * 1000, unit="ms", note="median"))
    if speed["data_share"] is not None:
        entries.append(
            _entry("waiting for data", speed["data_share"] * 100, unit="%", note="median of a step")
        )
    return entries


def _entry(label: str, value: float, *, unit: str = "", note: str = "", at: int | None = None) -> Facts:
    return {"label": label, "value": value, "unit": unit, "note": note, "at": at}
