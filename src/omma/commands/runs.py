"""`omma runs`, `status` and `report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omma.commands.tables import text_table
from omma.errors import DataError
from omma.runs.folder import RunFolder, runs_root
from omma.runs.folder import list_runs as find_runs
from omma.runs.metrics import read_metrics


def list_runs(places: Sequence[str] = ()) -> str:
    """A line for each run: name, state, step, best metric.

    Args:
        places: folders of runs, or single runs; none means the runs root.
    """
    rows = [_row(run) for run in runs_at(places)]
    return text_table(rows) if rows else f"no runs in {', '.join(places) or runs_root(None)}"


def runs_at(places: Sequence[str]) -> list[RunFolder]:
    """The runs that folders of runs, single runs or chains of trainings stand for; none: the runs root.

    Raises:
        UsageError: no such run.
        DataError: a stage of a chain has not been started.
    """
    if not places:
        return find_runs(runs_root(None))
    found: list[RunFolder] = []
    for place in places:
        folder = next((path for path in (Path(place), runs_root(None) / place) if path.is_dir()), Path(place))
        if (folder / "chain.json").is_file():
            found += _stages(folder)
        elif folder.is_dir() and not RunFolder(folder).is_run():
            found += find_runs(folder)
        else:
            found.append(RunFolder.open(place, runs_root(None)))
    return found


def _stages(chain: Path) -> list[RunFolder]:
    content = json.loads((chain / "chain.json").read_text(encoding="utf-8"))
    runs = [RunFolder(chain.parent / stage["run"]) for stage in content["stages"]]
    for run in runs:
        if not run.is_run():
            raise DataError(
                f"{chain}: stage {run.name} has not been started", f"`omma resume {chain.name}` goes on"
            )
    return runs


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
