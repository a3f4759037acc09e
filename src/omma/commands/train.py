"""`omma train` and `omma resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omma.commands.smoke import fit_warmup, smoke_overrides
from omma.commands.train_start import Begun, Start, begin, new_run, start_of, training_files, wait_for_run
from omma.errors import NonFiniteError, OmmaError, Preempted, UsageError
from omma.runs.console import RunLog
from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder, default_name, runs_root
from omma.systems.recipes import Recipe, open_recipe

if TYPE_CHECKING:
    from omma.engine.task import Task

RESUME_KEYS = ("train.length", "train.workers", "train.device", "train.early_stop", "data.root")
RESUME_SECTIONS = ("validate.", "save.", "log.")


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
        begun = begin(found, start, root)
        run = new_run(found, root, folder_name, start, overwrite=overwrite)
        return _go(run, begun, quiet=quiet)
    return _go(wait_for_run(root / folder_name), quiet=quiet)


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
    from omma.engine.checkpoint import find_last
    from omma.engine.launch import world

    folder, begun = RunFolder.open(run, runs_root(runs_dir)), None
    if world().rank == 0:
        _check_resumable(folder, overrides)
        if overrides:
            recipe, fresh = run_recipe(folder, overrides), find_last(folder) is None
            begun = begin(recipe, start_of(folder), folder.path.parent, fresh=fresh)
            _rewrite_config(folder, recipe)
    return _go(folder, begun, overrides, quiet=quiet)


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


def _go(
    run: RunFolder, begun: Begun | None = None, overrides: Sequence[str] = (), *, quiet: bool
) -> RunFolder:
    """Train a run folder from what has begun or its last checkpoint, in this process or in several.

    The overrides are those of a resume, which the first process may not have written to config.yaml yet.
    """
    from omma.commands.build import run_recipe
    from omma.engine.launch import run_workers, world

    recipe = run_recipe(run, overrides)
    if recipe.config.train.devices > 1 and world().size == 1:
        del begun  # each process makes its own
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
    train_in(run, recipe, begun, quiet=quiet)
    return run


class _WorkerError(OmmaError):
    """Training processes ended with this code; each has said why."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def train_in(run: RunFolder, recipe: Recipe, begun: Begun | None = None, *, quiet: bool = False) -> None:
    """Train in this process; afterwards the first process draws samples and writes the report.

    Args:
        run: the run folder.
        recipe: its config.
        begun: data and task, where they have been made already.
        quiet: write log.txt only.
    """
    from omma.engine.checkpoint import find_last
    from omma.engine.launch import world
    from omma.engine.loop import fit

    first = world().rank == 0
    console = RunLog(run.log_file if first else None, quiet=quiet or not first)
    try:
        if begun is None:
            begun = begin(recipe, start_of(run), run.path.parent, fresh=find_last(run) is None)
        train_data, val_data, collate = begun.data
        if first:
            _open_run(run, recipe, begun, console)
        fit(
            begun.task,
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


def _open_run(run: RunFolder, recipe: Recipe, begun: Begun, console: RunLog) -> None:
    """Say what is trained, keep what the data was, and make a continued training the first checkpoint."""
    from omma.data.fingerprint import fingerprint
    from omma.engine.adopt import adopt

    train_data, val_data, _ = begun.data
    root = Path(recipe.config.data.root or ".")
    parts = {"train": train_data, "val": val_data}
    write_json_atomic(run.path / "data.json", {name: fingerprint(data, root) for name, data in parts.items()})
    _welcome(recipe, run, console, len(train_data), len(val_data), begun.task)
    for line in begun.lines:
        console.line(line)
    if begun.foreign is not None:
        adopt(begun.task, begun.foreign, recipe.config, run, len(train_data))


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


def _reference_writer(recipe: Recipe, run: RunFolder) -> Any:
    """A function that writes training files of the original project, if the recipe asks for it."""
    if not recipe.config.save.reference:
        return None
    module = training_files(recipe)
    return lambda task, state: module.write_training_file(run.path, task, state)
