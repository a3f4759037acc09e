"""`omma sweep`: a grid of runs and one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omma.commands.tables import csv_text, text_table
from omma.commands.train import resume, train
from omma.config.sweep import axes_of, expand_grid
from omma.errors import OmmaError, Preempted, UsageError
from omma.runs.files import write_text_atomic
from omma.runs.folder import RunFolder, default_name, runs_root
from omma.systems.recipes import open_recipe


def sweep(
    recipe: str,
    words: Sequence[str],
    *,
    name: str | None = None,
    smoke: int | None = None,
    runs_dir: str | None = None,
) -> Path:
    """Train every point of a grid, one after the other, as runs NAME-1, NAME-2 ...; a second call goes on.

    Args:
        recipe: what to train.
        words: settings; `key=a,b` is an axis, `key=[a, b]` is one list.
        name: of the sweep.
        smoke: a trial of so many steps a run.
        runs_dir: where the runs are made.

    Returns:
        the table, `NAME.csv` beside the runs.
    """
    axes = axes_of(words)
    if not axes:
        raise UsageError("a sweep needs at least one axis, such as optim.lr=1e-3,1e-4")
    grid = expand_grid(words)
    root = runs_root(runs_dir)
    recipes = [open_recipe(recipe, point, runs_root=root) for point in grid]
    sweep_name = name or default_name(recipes[0].system.name, f"sweep-{recipes[0].name.rpartition('/')[2]}")
    rows = []
    for number, point in enumerate(grid, 1):
        print(f"run {number} of {len(grid)}: {' '.join(point)}")  # noqa: T201
        run = _train_point(recipe, point, root, f"{sweep_name}-{number}", smoke)
        rows.append(_row(run, point, axes))
        write_text_atomic(root / f"{sweep_name}.csv", csv_text(rows))
    print(text_table(rows))  # noqa: T201
    return root / f"{sweep_name}.csv"


def _train_point(recipe: str, point: Sequence[str], root: Path, name: str, smoke: int | None) -> RunFolder:
    """The run of one grid point: kept if it has finished, resumed if it was stopped, else trained."""
    run = RunFolder(root / name)
    if run.is_run():
        return run if run.status()["state"] == "finished" else resume(name, runs_dir=str(root))
    try:
        return train(recipe, point, name=name, smoke=smoke, runs_dir=str(root))
    except Preempted:
        raise
    except OmmaError as error:
        if not run.is_run():
            raise
        print(f"{name} failed: {error.message}")  # noqa: T201
        return run


def _row(run: RunFolder, point: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    values = dict(word.partition("=")[::2] for word in point)
    status = run.status()
    best = status.get("best") or {}
    row: dict[str, Any] = {"run": run.name} | {axis: values[axis] for axis in axes}
    return row | {
        "state": status["state"],
        best.get("metric", "best"): best.get("value"),
        "best_step": best.get("step"),
    }
