"""`omma import`: a checkpoint of the original project becomes a run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omma.commands.weights import fresh_task, settings_of_file
from omma.engine.checkpoint import save_weights
from omma.errors import UsageError
from omma.runs.folder import RunFolder
from omma.runs.provenance import write_provenance
from omma.systems import get
from omma.systems.recipes import open_recipe


def import_reference(system: str, file: Path, recipe: str, overrides: Sequence[str], out: Path) -> RunFolder:
    """Make a finished run folder from a checkpoint file of the original project.

    Args:
        system: the system's name.
        file: the checkpoint.
        recipe: recipe that the weights belong to; what the file tells of its network goes on top.
        overrides: settings on top of both.
        out: the run folder to make.

    Raises:
        UsageError: if recipe and system disagree or the folder is in use.
        CheckpointError: if the weights do not fit.
    """
    found = open_recipe(recipe, overrides)
    if found.system is not get(system):
        raise UsageError(f"{recipe} is a recipe of {found.system.name}, not of {system}")
    found = open_recipe(recipe, [*settings_of_file(found.system, file), *overrides])
    task = fresh_task(found, file)
    run = RunFolder.create(
        out.parent, out.name, config=found.config.as_dict(), command=["omma", *sys.argv[1:]]
    )
    write_provenance(run)
    for name in ("final", "best"):
        save_weights(run, name, task, system=found.system.name, config=found.config, step=0)
    run.set_status("finished", recipe=found.name, imported=file.name, step=0)
    print(f"run folder: {run.path}\nnext: `omma eval {run.path} data.root=PATH`")  # noqa: T201
    return run
