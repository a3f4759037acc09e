"""`omma doctor`: findings, each with its fix."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omma.commands.findings import finding_text, summary_text
from omma.doctor.environment import check_environment
from omma.errors import DataError, Finding, OmmaError
from omma.runs.folder import runs_root

if TYPE_CHECKING:
    from omma.doctor.plan import Plan
    from omma.systems.recipes import Recipe


@dataclass(frozen=True)
class _Asked:
    """What is to be checked, as typed; see `run_doctor`."""

    recipe: str
    words: Sequence[str]
    out: Path | None
    name: str | None
    init: str | None
    resume: str | None


def run_doctor(
    recipe: str | None,
    words: Sequence[str],
    out: Path | None,
    *,
    name: str | None = None,
    init: str | None = None,
    resume: str | None = None,
) -> list[Finding]:
    """Print all findings; with a recipe also those of its data and of the training that it would start.

    Args:
        recipe: what would be trained, of a chain all stages; none checks the machine alone.
        words: settings, or flags of the original tool.
        out: folder for pictures of the data.
        name: the run's, as for `omma train`.
        init: likewise.
        resume: likewise.

    Raises:
        DataError: if any finding is an error (exit code 3).
    """
    findings: list[Finding] = []
    _tell("this machine", check_environment(runs_root(None)), findings)
    if recipe is not None and _errors(findings):
        print("the recipe is not checked until the errors above are mended")  # noqa: T201
    elif recipe is not None:
        with _without_network():
            for stage in _stages(_Asked(recipe, words, out, name, init, resume)):
                _tell(stage.recipe, _recipe_findings(stage), findings)
    print(summary_text(findings))  # noqa: T201
    if recipe is not None and out is None:
        print("--out DIR also draws what the network is fed")  # noqa: T201
    errors = _errors(findings)
    if errors:
        more = f" and {len(errors) - 1} more" if errors[1:] else ""
        raise DataError(f"{errors[0].title}{more}")
    return findings


def _tell(heading: str, found: Iterable[Finding], known: list[Finding]) -> None:
    """Print findings that are not known yet as they come."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(heading)  # noqa: T201
    for finding in found:
        if finding not in known:
            print(finding_text(finding, width), flush=True)  # noqa: T201
            known.append(finding)
    print()  # noqa: T201


def _stages(asked: _Asked) -> list[_Asked]:
    """The trainings of a chain, each with its settings; any other recipe as it is."""
    from omma.systems.recipes import chain_stages

    stages = chain_stages(asked.recipe, runs_root(None))
    if not stages:
        return [asked]
    prefixes = {stage.name: f"{stage.name}:" for stage in stages}
    shared = [word for word in asked.words if not word.startswith(tuple(prefixes.values()))]
    found = []
    for stage in stages:
        prefix = prefixes[stage.name]
        own = [word.removeprefix(prefix) for word in asked.words if word.startswith(prefix)]
        name = f"{asked.name}_{stage.name}" if asked.name else None
        found.append(_Asked(stage.recipe, [*shared, *own], asked.out, name, None, None))
    return found


def _recipe_findings(asked: _Asked) -> Iterator[Finding]:
    from omma.commands.flags import place_of, read_words
    from omma.commands.typed import system_of
    from omma.doctor.plan import Plan, check_plan
    from omma.systems.recipes import open_recipe

    read = read_words(asked.words, system_of(asked.recipe), ("--name", "--init", "--resume", "--out"))
    found = open_recipe(asked.recipe, read.overrides, runs_root=runs_root(None))
    yield Finding("ok", f"{len(found.sources)} settings are valid")
    name, folder = place_of(read.options, asked.name, None)
    plan = Plan(
        found.config,
        runs_root(folder),
        _num_samples(found),
        name,
        asked.init or read.options.get("init"),
        asked.resume or read.options.get("resume"),
    )
    yield from check_plan(plan)
    if found.system.doctor:
        yield from found.system.load(found.system.doctor)(found.config, asked.out)
    try:
        yield from _resources(found, plan)
    except OmmaError as error:
        if not _is_not_here(error):
            raise
        fix = "check again when all parts are here"
        yield Finding("warning", "disk and memory of the training are not estimated", error.message, fix)


def _num_samples(recipe: Recipe) -> int | None:
    """Of the training set; None where it cannot be read, of which the system's own check says more."""
    from omma.commands.build import build_training_data

    try:
        return len(build_training_data(recipe)[0])
    except OmmaError:
        return None


@contextmanager
def _without_network() -> Iterator[None]:
    """A check fetches nothing: what is not here yet is a finding, not a download."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_not_here(error: BaseException | None) -> bool:
    """Whether an error comes from a part that is to be fetched."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while error is not None and not isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None


def _resources(recipe: Recipe, plan: Plan) -> Iterator[Finding]:
    """Disk and memory, which need the network."""
    from omma.commands.build import build_task, device_of
    from omma.doctor.plan import check_disk, check_memory
    from omma.engine.estimate import estimate_memory, usable_memory

    device = device_of(recipe)
    limit = usable_memory(device)
    memory = estimate_memory(build_task(recipe, fresh=False).to(device), recipe.config, limit=limit)
    yield check_disk(plan, memory)
    yield check_memory(plan, memory, limit, recipe.system.memory_keys)


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
