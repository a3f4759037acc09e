"""`omma demo`: from nothing to a trained model and its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from omma.commands.diagnose import diagnose
from omma.commands.evaluate import evaluate_run
from omma.commands.predict import predict
from omma.commands.runs import write_report
from omma.commands.train import resume, train
from omma.commands.world import make_world
from omma.errors import UsageError
from omma.runs.folder import RunFolder, runs_root
from omma.systems import Demo, System, get, systems


def run_demo(
    system: str | None = None, overrides: Sequence[str] = (), *, runs_dir: str | None = None
) -> Path:
    """Make a world data set, train, evaluate, diagnose, draw and report.

    An unfinished demo is resumed, a finished one replaced.

    Args:
        system: whose demo; default the one that is marked.
        overrides: settings on top of the demo's recipe.
        runs_dir: where `demo/` and `demo-data/` are made.

    Returns:
        the report.
    """
    chosen, demo = _choose(system)
    started = time.monotonic()
    root = runs_root(runs_dir)
    data = _data(demo, root / "demo-data" / chosen.name)
    run = _train(chosen, demo, data, root, overrides)
    evaluate_run(str(run.path), studies=list(chosen.studies))
    diagnose(str(run.path))
    predict([str(run.path)], run.vis, indices="0-39:5", video=run.vis / "scene.gif", quiet=True)
    page = write_report(str(run.path))
    minutes = (time.monotonic() - started) / 60
    print(_goodbye(chosen, demo, run, data, page, minutes))  # noqa: T201
    return page


def _choose(system: str | None) -> tuple[System, Demo]:
    candidates = (
        [get(system)] if system else [item for item in systems().values() if item.demo and item.demo.default]
    )
    for item in candidates:
        if item.demo:
            return item, item.demo
    raise UsageError(f"{system}: this system has no demo", "`omma demo` without a name runs the default one")


def _data(demo: Demo, folder: Path) -> Path:
    """The demo's data set, made once."""
    if (folder / "world.json").is_file():
        print(f"data: {folder} (made earlier)")  # noqa: T201
        return folder
    height, width = demo.options["image_size"]
    options = {key: demo.options[key] for key in ("scenes", "val_scenes", "frames")}
    return make_world(demo.world, folder, image_size=f"{height}x{width}", **options)


def _train(system: System, demo: Demo, data: Path, root: Path, overrides: Sequence[str]) -> RunFolder:
    run = RunFolder(root / "demo")
    unfinished = run.is_run() and run.status()["state"] != "finished"
    if unfinished and run.config()["system"]["name"] == system.name:
        print("an unfinished demo is there: resuming it")  # noqa: T201
        return resume("demo", runs_dir=str(root))
    words = [f"data.root={data}", *overrides]
    return train(
        f"{system.name}/{demo.recipe}", words, name="demo", overwrite=run.is_run(), runs_dir=str(root)
    )


def _goodbye(system: System, demo: Demo, run: RunFolder, data: Path, page: Path, minutes: float) -> str:
    best = run.status()["best"]
    return "\n".join(
        [
            f"demo finished in {minutes:.1f} minutes: {best['metric']} {best['value']:.3f}",
            f"  report    {page}",
            f"  pictures  {run.vis}",
            f"  data      {data}",
            "how to go on:",
            "  omma predict demo --indices 0-9 --out pictures",
            f"  omma train {system.name}/{demo.recipe} data.root={data} optim.lr=5e-4 --name second",
            f"  omma doctor {system.name}/base data.root=YOUR_DATA",
            f"  omma train {system.name}/base data.root=YOUR_DATA",
        ]
    )
