"""How a training starts: all that can be wrong is read and built before its run folder is made."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omma.errors import UsageError
from omma.runs.console import KeptLines
from omma.runs.folder import RunFolder
from omma.runs.provenance import write_provenance
from omma.systems.recipes import Recipe

if TYPE_CHECKING:
    from omma.data.dataset import Collate, Samples
    from omma.engine.adopt import ForeignTraining
    from omma.engine.task import Task


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


@dataclass(frozen=True)
class Begun:
    """What a training begins with.

    Args:
        data: training set, validation set and what joins their samples.
        task: with the weights that it starts from; before a resume, with any.
        foreign: the original tool's training that is continued.
        lines: what is to be said about the weights.
    """

    data: tuple[Samples, Samples, Collate]
    task: Task
    foreign: ForeignTraining | None = None
    lines: Sequence[str] = ()


def begin(recipe: Recipe, start: Start, root: Path, *, fresh: bool = True) -> Begun:
    """Open the data, build the network and give it the weights of the start; writes nothing.

    Args:
        recipe: what is trained.
        start: where the weights come from.
        root: where the runs that `--init` names are looked up first.
        fresh: False where a checkpoint's weights follow.

    Raises:
        OmmaError: data, weights or the metric of best/ are not there, or do not fit.
    """
    from omma.commands.build import build_task, build_training_data
    from omma.commands.weights import find_source, load_initial_weights, read_torch_file
    from omma.engine.adopt import take_weights
    from omma.engine.evaluate import metric_names
    from omma.engine.judge import Judge

    if fresh and start.init:
        find_source(start.init, root)
    data = build_training_data(recipe, start.overfit)
    task = build_task(recipe, fresh=fresh)
    Judge(recipe.config, recipe.system.best, metric_names(task))
    if not fresh:
        return Begun(data, task)
    told, foreign = KeptLines(), None
    if start.init:
        load_initial_weights(task, recipe, start.init, told, partial=start.partial, root=root)
    if start.resume_file:
        file = Path(start.resume_file)
        foreign = training_files(recipe).read_training_file(read_torch_file(file), task)
        take_weights(task, foreign, file)
        told.line(_continued(file, foreign))
    return Begun(data, task, foreign, told.lines)


def _continued(file: Path, foreign: ForeignTraining) -> str:
    if not foreign.step and not foreign.moments:
        return f"{file} is of another stage: its weights only"
    state = "its optimiser state" if foreign.moments else "a fresh optimiser state"
    place = f"step {foreign.step}" if foreign.epoch is None else f"the end of epoch {foreign.epoch}"
    return f"continues {file} at {place}, with {state}"


def new_run(recipe: Recipe, root: Path, name: str, start: Start, *, overwrite: bool) -> RunFolder:
    """Make the run folder of a training that has begun; see `RunFolder.create`."""
    from omma.commands.build import KEPT

    run = RunFolder.create(
        root,
        name,
        config=recipe.config.as_dict(),
        command=["omma", *sys.argv[1:]],
        overwrite=overwrite,
        continues=Path(start.resume_file) if start.resume_file else None,
    )
    if recipe.system.pretrained:
        recipe.system.load(recipe.system.pretrained).keep(recipe.config, run.path / KEPT)
    write_provenance(run)
    run.set_status("created", start=vars(start), recipe=recipe.name, launch=_launch_id())
    return run


def start_of(run: RunFolder) -> Start:
    """How a run started."""
    return Start(**run.status().get("start", {}))


def _launch_id() -> str:
    """What all processes of one start have in common."""
    return ":".join(os.environ.get(key, "") for key in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"))


def wait_for_run(path: Path, seconds: float = 600.0) -> RunFolder:
    """The folder that the first process makes once it has read its data and weights.

    Raises:
        UsageError: it has made none for so long.
    """
    deadline = time.monotonic() + seconds
    run = RunFolder(path)
    while not (run.is_run() and run.status().get("launch") == _launch_id()):
        if time.monotonic() > deadline:
            raise UsageError(f"{path}: the first process has not made the run folder")
        time.sleep(0.1)
    return run


def training_files(recipe: Recipe) -> Any:
    """The system's module that reads and writes training files of the original project.

    Raises:
        UsageError: the system has none.
    """
    if recipe.system.training_files is None:
        raise UsageError(
            f"{recipe.system.name} neither reads nor writes training files of an original project"
        )
    return recipe.system.load(recipe.system.training_files)
