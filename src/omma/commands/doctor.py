"""`omma doctor`: findings, each with its fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omma.commands.findings import finding_text
from omma.doctor.environment import check_environment
from omma.errors import DataError, Finding
from omma.runs.folder import runs_root


def run_doctor(recipe: str | None, words: Sequence[str], out: Path | None) -> list[Finding]:
    """Print all findings; with a recipe also those of its data.

    Raises:
        DataError: if any finding is an error (exit code 3).
    """
    findings = check_environment(runs_root(None))
    for finding in findings:
        print(finding_text(finding))  # noqa: T201
    if recipe is not None:
        findings += _recipe_findings(recipe, words, out, healthy=not _errors(findings))
    errors = _errors(findings)
    if errors:
        raise DataError(f"{len(errors)} error(s) found: {'; '.join(finding.title for finding in errors)}")
    return findings


def _recipe_findings(recipe: str, words: Sequence[str], out: Path | None, *, healthy: bool) -> list[Finding]:
    if not healthy:
        print("the recipe is not checked until the errors above are mended")  # noqa: T201
        return []
    from omma.commands.flags import read_words
    from omma.commands.train import system_of
    from omma.systems.recipes import open_recipe

    found = open_recipe(recipe, read_words(words, system_of(recipe)).overrides, runs_root=runs_root(None))
    findings = [Finding("ok", f"recipe {found.name}", f"{len(found.sources)} settings")]
    if found.system.doctor:
        findings += found.system.load(found.system.doctor)(found.config, out)
    for finding in findings:
        print(finding_text(finding))  # noqa: T201
    return findings


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
