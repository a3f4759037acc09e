"""`omma runs`, `status` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omma.commands.tables import text_table
from omma.runs.folder import RunFolder, runs_root
from omma.runs.folder import list_runs as find_runs
from omma.runs.metrics import read_metrics


def list_runs(directory: str | None = None) -> str:
    """A line for each run: name, state, step, best metric."""
    root = runs_root(directory)
    rows = [_row(run) for run in find_runs(root)]
    return text_table(rows) if rows else f"no runs in {root}"


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
