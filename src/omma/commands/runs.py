"""`omma runs`, `status` and `report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from omma.commands.tables import text_table
from omma.errors import DataError, OmmaError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder, runs_root
from omma.runs.folder import list_runs as find_runs
from omma.runs.metrics import read_metrics


def list_runs(places: Sequence[str] = ()) -> str:
    """A line for each run: name, state, step, best metric.

    Args:
        places: folders of runs, or single runs; none means the runs root.
    """
    rows = [_row(run) for run in _runs_at(places)]
    return text_table(rows) if rows else f"no runs in {', '.join(places) or runs_root(None)}"


def _runs_at(places: Sequence[str]) -> list[RunFolder]:
    if not places:
        return find_runs(runs_root(None))
    found: list[RunFolder] = []
    for place in places:
        holds_runs = Path(place).is_dir() and not RunFolder(Path(place)).is_run()
        found += find_runs(Path(place)) if holds_runs else [RunFolder.open(place, runs_root(None))]
    return found


def check_runs(places: Sequence[str] = ()) -> None:
    """Say for each file that a run should have whether it is there and readable.

    Args:
        places: folders of runs, or single runs; none means the runs root.

    Raises:
        DataError: something is missing or damaged, or there is no run.
    """
    runs = _runs_at(places)
    if not runs:
        raise DataError(f"no runs in {', '.join(places) or runs_root(None)}")
    say = RunLog(None).line
    problems = 0
    for run in runs:
        say(f"{run.name}: {run.status()['state']}")
        for name, problem in _artefacts(run):
            problems += bool(problem)
            say(f"  {'MISSING' if problem else 'ok':<8}{name}{f' ({problem})' if problem else ''}")
    if problems:
        raise DataError(
            f"{problems} of the files above are missing or damaged",
            "`omma resume RUN` finishes a run, `omma report RUN` writes its report.html again",
        )
    say(f"complete: {', '.join(run.name for run in runs)}")


def _artefacts(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Every file that a finished run has, with what is wrong with it; nothing if it is in order."""
    yield "config.yaml", _problem(run.config)
    yield "metrics.csv", _problem(lambda: _require(read_metrics(run.metrics_file), "no rows"))
    last = run.checkpoints / "last.txt"
    names = ["best"] if run.status().get("best") else []
    names += [last.read_text(encoding="utf-8").strip() if last.is_file() else "step_N", "final"]
    for name in names:
        yield f"checkpoints/{name}", _problem(partial(_check_checkpoint, run.checkpoints / name))
    page = run.path / "report.html"
    yield "report.html", _problem(lambda: _require(page.is_file() and page.stat().st_size, "no such file"))


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except (OmmaError, OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _require(value: object, problem: str) -> None:
    if not value:
        raise DataError(problem)


def _check_checkpoint(folder: Path) -> None:
    """Files of the sizes in meta.json, and weights whose header can be read; loads no torch."""
    meta = folder / "meta.json"
    _require(meta.is_file(), "no such checkpoint")
    for name, size in json.loads(meta.read_text(encoding="utf-8"))["files"].items():
        _require((folder / name).is_file(), f"{name} is not there")
        _require((folder / name).stat().st_size == size, f"{name} is cut short")
        if name.endswith(".safetensors"):
            with safe_open(folder / name, framework="numpy") as weights:
                _require(list(weights.keys()), f"{name} holds no weights")


def _row(run: RunFolder) -> dict[str, str]:
    status = run.status()
    return {"name": run.name, "state": status["state"], "step": _steps(status), "best": _best(status)}


def _steps(status: dict[str, Any]) -> str:
    if "step" not in status:
        return "-"
    return f"{status['step']}/{status['total']}" if "total" in status else str(status["step"])


def _best(status: dict[str, Any]) -> str:
    best = status.get("best")
    return f"{best['metric']} {best['value']:.4f} at step {best['step']}" if best else "-"


def describe_run(run: str, runs_dir: str | None = None) -> str:
    """What a run is doing: state, step, last logged values, best, where it is."""
    folder = RunFolder.open(run, runs_root(runs_dir))
    status = folder.status()
    lines = [
        f"{folder.name}: {status['state']}, step {_steps(status)}, heartbeat {status['heartbeat']}",
        f"best: {_best(status)}",
    ]
    if status.get("error"):
        lines.append(f"error: {status['error']}")
    for phase in ("train", "val"):
        rows = (
            [row for row in read_metrics(folder.metrics_file) if row["phase"] == phase]
            if folder.metrics_file.is_file()
            else []
        )
        if rows:
            values = ", ".join(
                f"{key} {value:.4g}" for key, value in rows[-1].items() if isinstance(value, float)
            )
            lines.append(f"last {phase} row, step {rows[-1]['step']}: {values}")
    return "\n".join([*lines, f"folder: {folder.path}"])


def write_report(run: str, runs_dir: str | None = None) -> Path:
    """Write a run's report.html and return its path."""
    from omma.report.run import build_report

    return build_report(RunFolder.open(run, runs_root(runs_dir)))
