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
from omma.systems.recipes import grid_words, open_recipe


def sweep(
    recipe: str,
    words: Sequence[str],
    *,
    name: str | None = None,
    smoke: int | None = None,
    dry_run: bool = False,
    runs_dir: str | None = None,
) -> Path | None:
    """Train every point of a grid, one after the other, as runs NAME-1, NAME-2 ...; a second call goes on.

    Args:
        recipe: what to train.
        words: settings; `key=a,b` is an axis, `key=[a, b]` is one list. A word replaces the same key of the
            recipe's own `sweep:` section.
        name: of the sweep.
        smoke: a trial of so many steps a run.
        dry_run: check and list the runs, train none.
        runs_dir: where the runs are made.

    Returns:
        the table, `NAME.csv` beside the runs; None after a dry run.

    Raises:
        UsageError: there is no such recipe, or no axis.
        ConfigError: a point of the grid is no recipe.
    """
    root = runs_root(runs_dir)
    given = {word.partition("=")[0] for word in words}
    own = [word for word in grid_words(recipe, root) if word.partition("=")[0] not in given]
    words = [*own, *words]
    axes = axes_of(words)
    if not axes:
        raise UsageError("a sweep needs at least one axis, such as optim.lr=1e-3,1e-4")
    grid = expand_grid(words)
    recipes = [open_recipe(recipe, point, runs_root=root) for point in grid]
    sweep_name = name or default_name(recipes[0].system.name, f"sweep-{recipes[0].name.rpartition('/')[2]}")
    if dry_run:
        listed = [{"run": f"{sweep_name}-{n}"} | _on_axes(point, axes) for n, point in enumerate(grid, 1)]
        print(text_table(listed))  # noqa: T201
        return None
    rows = []
    for number, point in enumerate(grid, 1):
        print(f"run {number} of {len(grid)}: {' '.join(point)}")  # noqa: T201
        run = _train_point(recipe, point, root, f"{sweep_name}-{number}", smoke, first=number == 1)
        rows.append(_row(run, point, axes))
        write_text_atomic(root / f"{sweep_name}.csv", csv_text(rows))
    print(text_table(rows))  # noqa: T201
    return root / f"{sweep_name}.csv"


def _train_point(
    recipe: str, point: Sequence[str], root: Path, name: str, smoke: int | None, *, first: bool
) -> RunFolder:
    """The run of one grid point: kept if it has finished, resumed if it was stopped, else trained.

    The first one has to start; what keeps it from that, such as missing data, would stop the others too.
    """
    run = RunFolder(root / name)
    if run.is_run():
        return run if run.status()["state"] == "finished" else resume(name, runs_dir=str(root))
    try:
        return train(recipe, point, name=name, smoke=smoke, runs_dir=str(root))
    except Preempted:
        raise
    except OmmaError as error:
        if first and not run.is_run():
            raise
        print(f"{name} failed: {error.message}")  # noqa: T201
        return run


def _row(run: RunFolder, point: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    status = run.status() if run.is_run() else {"state": "not started"}
    best = status.get("best") or {}
    row: dict[str, Any] = {"run": run.name} | _on_axes(point, axes)
    return row | {
        "state": status["state"],
        best.get("metric", "best"): best.get("value"),
        "best_step": best.get("step"),
    }


def _on_axes(point: Sequence[str], axes: Sequence[str]) -> dict[str, str]:
    values = dict(word.partition("=")[::2] for word in point)
    return {axis: values[axis] for axis in axes}
