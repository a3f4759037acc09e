"""`omma doctor`: findings, each with its fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omma.commands.findings import finding_text
from omma.doctor.environment import check_environment
from omma.errors import DataError, Finding, OmmaError
from omma.runs.folder import runs_root

if TYPE_CHECKING:
    from omma.doctor.plan import Plan
    from omma.systems.recipes import Recipe


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
        recipe: what would be trained; none checks the machine alone.
        words: settings, or flags of the original tool.
        out: folder for pictures of the data.
        name: the run's, as for `omma train`.
        init: likewise.
        resume: likewise.

    Raises:
        DataError: if any finding is an error (exit code 3).
    """
    findings = check_environment(runs_root(None))
    for finding in findings:
        print(finding_text(finding))  # noqa: T201
    if recipe is not None and _errors(findings):
        print("the recipe is not checked until the errors above are mended")  # noqa: T201
    elif recipe is not None:
        for finding in _recipe_findings(recipe, words, out, {"name": name, "init": init, "resume": resume}):
            print(finding_text(finding))  # noqa: T201
            findings.append(finding)
    errors = _errors(findings)
    if errors:
        raise DataError(f"{len(errors)} error(s) found: {'; '.join(finding.title for finding in errors)}")
    return findings


def _recipe_findings(
    recipe: str, words: Sequence[str], out: Path | None, start: dict[str, str | None]
) -> Iterator[Finding]:
    from omma.commands.flags import place_of, read_words
    from omma.commands.typed import system_of
    from omma.doctor.plan import Plan, check_plan
    from omma.systems.recipes import open_recipe

    read = read_words(words, system_of(recipe), ("--name", "--init", "--resume", "--out"))
    found = open_recipe(recipe, read.overrides, runs_root=runs_root(None))
    yield Finding("ok", f"recipe {found.name}", f"{len(found.sources)} settings")
    name, folder = place_of(read.options, start["name"], None)
    plan = Plan(
        found.config,
        runs_root(folder),
        _num_samples(found),
        name,
        start["init"] or read.options.get("init"),
        start["resume"] or read.options.get("resume"),
    )
    yield from check_plan(plan)
    if found.system.doctor:
        yield from found.system.load(found.system.doctor)(found.config, out)
    yield from _resources(found, plan)


def _num_samples(recipe: Recipe) -> int | None:
    """Of the training set; None where it cannot be read, of which the system's own check says more."""
    from omma.commands.build import build_training_data

    try:
        return len(build_training_data(recipe)[0])
    except OmmaError:
        return None


def _resources(recipe: Recipe, plan: Plan) -> Iterator[Finding]:
    """Disk and memory, which need the network."""
    from omma.commands.build import build_task, device_of
    from omma.doctor.plan import check_disk, check_memory
    from omma.engine.estimate import estimate_memory, usable_memory

    device = device_of(recipe)
    limit = usable_memory(device)
    memory = estimate_memory(build_task(recipe, fresh=False).to(device), recipe.config)
    yield check_disk(plan, memory)
    yield check_memory(plan, memory, limit, recipe.system.memory_keys)


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
