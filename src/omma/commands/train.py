"""`omma train` and `omma resume`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omma.commands.smoke import fit_warmup, smoke_overrides
from omma.errors import NonFiniteError, OmmaError, Preempted, UsageError
from omma.runs.console import RunLog
from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder, default_name, runs_root
from omma.runs.provenance import write_provenance
from omma.systems.recipes import Recipe, open_recipe

if TYPE_CHECKING:
    from omma.engine.task import Task

RESUME_KEYS = ("train.length", "train.workers", "train.device", "train.early_stop", "data.root")
RESUME_SECTIONS = ("validate.", "save.", "log.")


@dataclass(frozen=True)
class Start:
    """How a training starts; kept in the run folder so that every process and every resume starts alike.

    Args:
        overfit: train and validate on the same first samples.
        init: run or file that the weights come from.
        resume_file: checkpoint of the original tool to continue from.
        partial: of the initial weights take what fits.
    """

    overfit: int | None = None
    init: str | None = None
    resume_file: str | None = None
    partial: bool = False


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    smoke: int | None = None,
    overfit: int | None = None,
    init: str | None = None,
    partial: bool = False,
    resume_file: str | None = None,
    overwrite: bool = False,
    runs_dir: str | None = None,
    quiet: bool = False,
) -> RunFolder:
    """Train a recipe in a new run folder.

    Args:
        recipe: `system/recipe`, a .yaml file or a run folder.
        overrides: `key.path=value` words.
        name: of the run; default `<system>-<recipe>-<time>`.
        smoke: a trial of so many steps.
        overfit: train and validate on the same so many samples, without augmentation.
        init: RUN or FILE whose weights the training starts from; a FILE also says which network they are of.
        partial: of these weights take the tensors that fit the recipe's network.
        resume_file: checkpoint file of the original tool whose training is continued.
        overwrite: move an existing run of that name aside.
        runs_dir: where the run folder is made.
        quiet: write log.txt only.

    Returns:
        the run folder, finished.

    Raises:
        OmmaError: see its sub-classes for what can go wrong.
    """
    from omma.engine.launch import world

    root = runs_root(runs_dir)
    words = [*smoke_overrides(smoke), *overrides]
    found = open_recipe(recipe, words, runs_root=root)
    if partial and not init:
        raise UsageError("--partial goes with --init RUN or FILE, whose weights it takes")
    if init and not partial and Path(init).is_file():
        from omma.commands.weights import settings_of_file

        found = open_recipe(recipe, [*settings_of_file(found.system, init, quiet), *words], runs_root=root)
    found, note = fit_warmup(found, smoke, overrides)
    processes = world()
    if processes.size > 1 and name is None:
        raise UsageError("several processes need one --name", "add --name NAME, the same for all")
    folder_name = name or default_name(found.system.name, found.name.rpartition("/")[2])
    start = Start(overfit, init, resume_file, partial)
    if processes.rank == 0:
        if note and not quiet:
            print(note)  # noqa: T201
        found = _with_batch_size(found, overfit)
        run = _new_run(found, root, folder_name, start, overwrite=overwrite)
    else:
        run = _wait_for_run(root / folder_name)
    return _go(run, quiet=quiet)


def resume(
    run: str, overrides: Sequence[str] = (), *, runs_dir: str | None = None, quiet: bool = False
) -> RunFolder:
    """Continue a run exactly where it stopped; the same bits on a CPU as if it had not stopped.

    Args:
        run: its folder or name.
        overrides: settings that a resume may change: length, workers, device, validation, saving, logging.
        runs_dir: where run names are looked up.
        quiet: write log.txt only.

    Raises:
        UsageError: for a finished or a live run, or a setting that would change what was trained.
    """
    from omma.commands.build import run_recipe
    from omma.engine.launch import world

    folder = RunFolder.open(run, runs_root(runs_dir))
    if world().rank == 0:
        _check_resumable(folder, overrides)
        if overrides:
            _rewrite_config(folder, run_recipe(folder, overrides))
    return _go(folder, quiet=quiet)


def train_worker(path: str) -> int:
    """One process of several: train the run folder that the parent process has made.

    Returns:
        the exit code; the parent says for all that a signal stopped them.
    """
    from omma.commands.build import run_recipe

    run = RunFolder(Path(path))
    try:
        train_in(run, run_recipe(run))
    except Preempted as error:
        return error.exit_code
    return 0


def _go(run: RunFolder, *, quiet: bool) -> RunFolder:
    """Train a run folder from its last checkpoint, in this process or in several."""
    from omma.commands.build import run_recipe
    from omma.engine.launch import run_workers, world

    recipe = run_recipe(run)
    if recipe.config.train.devices > 1 and world().size == 1:
        code = run_workers(["train-worker", str(run.path)], recipe.config.train.devices)
        if code == Preempted.exit_code:
            step = run.status().get("step", 0)
            raise Preempted(
                f"stopped by a signal and saved at step {step}", f"`omma resume {run.path}` goes on"
            )
        if code:
            raise _WorkerError(
                f"{run.name}: a training process stopped with code {code}; {run.log_file}", code=code
            )
        return run
    train_in(run, recipe, quiet=quiet)
    return run


class _WorkerError(OmmaError):
    """Training processes ended with this code; each has said why."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def train_in(run: RunFolder, recipe: Recipe, *, quiet: bool = False) -> None:
    """Train in this process; afterwards the first process draws samples and writes the report."""
    from omma.commands.build import build_task, build_training_data
    from omma.data.fingerprint import fingerprint
    from omma.engine.checkpoint import find_last
    from omma.engine.launch import world
    from omma.engine.loop import fit

    first = world().rank == 0
    console = RunLog(run.log_file if first else None, quiet=quiet or not first)
    try:
        train_data, val_data, collate = build_training_data(recipe, _start(run).overfit)
        task = build_task(recipe, fresh=find_last(run) is None)
        if first:
            root = Path(recipe.config.data.root or ".")
            parts = {"train": train_data, "val": val_data}
            write_json_atomic(run.path / "data.json", {k: fingerprint(d, root) for k, d in parts.items()})
            _welcome(recipe, run, console, len(train_data), len(val_data), task)
        _initialise(task, recipe, run, len(train_data), console)
        fit(
            task,
            train_data,
            val_data,
            collate,
            recipe.config,
            run,
            best=recipe.system.best,
            console=console,
            memory_keys=recipe.system.memory_keys,
            reference_writer=_reference_writer(recipe, run),
        )
    except OmmaError as error:
        if isinstance(error, NonFiniteError):
            last = find_last(run)
            good = f"the last good checkpoint is {last}" if last else "no checkpoint was saved before"
            error.hint = f"{error.hint}\n  {good}"
        if first:
            RunLog(run.log_file, quiet=True).line(f"stopped: {error.message}")  # the caller tells the console
            if run.status()["state"] != "preempted":
                run.set_status("failed", error=error.message)
        raise
    if first:
        _finish(run, recipe, console)


def _finish(run: RunFolder, recipe: Recipe, console: RunLog) -> None:
    from omma.commands.predict import draw_samples
    from omma.report.run import build_report

    draw_samples(run, count=4)
    page = build_report(run)
    console.line(f"report: {page}")
    console.line(f"training complete: {run.path}")


def _welcome(
    recipe: Recipe, run: RunFolder, console: RunLog, num_train: int, num_val: int, task: Task
) -> None:
    config = recipe.config
    parameters = sum(parameter.numel() for parameter in task.parameters())
    console.line(f"{run.name}: {recipe.system.name}, {parameters / 1e6:.2f} M parameters, seed {config.seed}")
    console.line(f"data: {num_train} training and {num_val} validation samples in {config.data.root}")
    for line in task.describe():
        console.line(line)
    console.line(f"run folder: {run.path}")


def _with_batch_size(recipe: Recipe, overfit: int | None) -> Recipe:
    """With train.batch_size=auto: the largest batch that fits, written into the config."""
    if recipe.config.train.batch_size != "auto":
        return recipe
    from functools import partial

    from omma.commands.build import build_task, build_training_data
    from omma.engine.memory import find_batch_size

    largest = len(build_training_data(recipe, overfit)[0])
    size = find_batch_size(partial(build_task, recipe), recipe.config, largest=min(largest, 256))
    print(f"train.batch_size=auto found {size}")  # noqa: T201
    train_section = recipe.config.train.model_copy(update={"batch_size": size})
    return replace(recipe, config=recipe.config.model_copy(update={"train": train_section}))


def _new_run(recipe: Recipe, root: Path, name: str, start: Start, *, overwrite: bool) -> RunFolder:
    """Check that data and weights are there, then make the run folder: a mistake leaves nothing behind."""
    from omma.commands.build import build_training_data
    from omma.commands.weights import find_source

    if start.init:
        find_source(start.init, root)
    build_training_data(recipe, start.overfit)
    run = RunFolder.create(
        root,
        name,
        config=recipe.config.as_dict(),
        command=["omma", *sys.argv[1:]],
        overwrite=overwrite,
        continues=Path(start.resume_file) if start.resume_file else None,
    )
    write_provenance(run)
    run.set_status("created", start=vars(start), recipe=recipe.name, launch=_launch_id())
    return run


def _launch_id() -> str:
    """What all processes of one start have in common."""
    return ":".join(os.environ.get(key, "") for key in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"))


def _wait_for_run(path: Path, seconds: float = 60.0) -> RunFolder:
    """The folder that the first process makes."""
    deadline = time.monotonic() + seconds
    run = RunFolder(path)
    while not (run.is_run() and run.status().get("launch") == _launch_id()):
        if time.monotonic() > deadline:
            raise UsageError(f"{path}: the first process has not made the run folder")
        time.sleep(0.1)
    return run


def _check_resumable(run: RunFolder, overrides: Sequence[str]) -> None:
    refused = [word for word in overrides if not word.startswith((*RESUME_KEYS, *RESUME_SECTIONS))]
    if refused:
        raise UsageError(
            f"{run.name}: a resume cannot change {', '.join(refused)}",
            f"start a new run from its weights: `omma train {run.path} {refused[0]} --init {run.name}`",
        )
    if run.is_live():
        raise UsageError(f"{run.name} is training right now", f"`omma status {run.name}` shows it")
    longer = any(word.startswith("train.length=") for word in overrides)
    if run.status()["state"] == "finished" and not longer:
        raise UsageError(
            f"{run.name} has finished", f"to go on: `omma resume {run.name} train.length=LONGER`"
        )


def _rewrite_config(run: RunFolder, recipe: Recipe) -> None:
    from omma.runs.files import write_text_atomic
    from omma.runs.folder import config_text

    write_text_atomic(run.path / "config.yaml", config_text(recipe.config.as_dict()))


def _initialise(task: Task, recipe: Recipe, run: RunFolder, num_samples: int, console: RunLog) -> None:
    """Weights from --init or a training from --resume FILE, unless the run has a checkpoint of its own."""
    from omma.commands.weights import load_initial_weights, read_torch_file
    from omma.engine.adopt import adopt
    from omma.engine.checkpoint import find_last

    start = _start(run)
    if find_last(run) is not None:
        return
    if start.init:
        load_initial_weights(task, recipe, start.init, console, partial=start.partial, root=run.path.parent)
    if start.resume_file:
        foreign = _training_files(recipe).read_training_file(read_torch_file(Path(start.resume_file)), task)
        adopt(task, foreign, recipe.config, run, num_samples)
        if not foreign.step and not foreign.moments:
            console.line(f"{start.resume_file} is of another stage: its weights only")
            return
        state = "its optimiser state" if foreign.moments else "a fresh optimiser state"
        place = f"step {foreign.step}" if foreign.epoch is None else f"the end of epoch {foreign.epoch}"
        console.line(f"continues {start.resume_file} at {place}, with {state}")


def _start(run: RunFolder) -> Start:
    return Start(**run.status().get("start", {}))


def _training_files(recipe: Recipe) -> Any:
    """The system's module that reads and writes training files of the original project."""
    if recipe.system.training_files is None:
        raise UsageError(
            f"{recipe.system.name} neither reads nor writes training files of an original project"
        )
    return recipe.system.load(recipe.system.training_files)


def _reference_writer(recipe: Recipe, run: RunFolder) -> Any:
    """A function that writes training files of the original project, if the recipe asks for it."""
    if not recipe.config.save.reference:
        return None
    module = _training_files(recipe)
    return lambda task, state: module.write_training_file(run.path, task, state)
