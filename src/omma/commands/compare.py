"""`omma compare`: plots and tables of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omma.commands.arguments import out_folder
from omma.errors import UsageError
from omma.report.compare import build_comparison
from omma.report.compare_facts import Facts, Source
from omma.report.compare_plots import Picture
from omma.report.facts import eval_folders, read_json
from omma.report.html import flatten
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder, runs_root
from omma.systems import get, systems

NAMES_FLAG = "--experiment-names"


def compare_words(
    words: Sequence[str],
    out: Path,
    *,
    names: str | None = None,
    metrics: str | None = None,
    picture: Picture | None = None,
    runs_dir: str | None = None,
) -> Facts:
    """`omma compare` as typed.

    Args:
        words: the runs, and the original tool's `--experiment-names A B`.
        out: folder to write to.
        names: what to call the runs, with commas in between.
        metrics: what to draw, with commas in between.
        picture: size and resolution of the PNG files.
        runs_dir: where run names are looked up.

    Raises:
        UsageError: no such run, another number of names than runs, or an unknown option.
    """
    runs, typed_names = read_names(words)
    listed = typed_names or _split(names)
    return compare(
        runs, out, names=listed, metrics=_split(metrics), picture=picture, runs_dir=runs_dir, quiet=False
    )


def compare(
    runs: Sequence[str],
    out: Path,
    *,
    names: Sequence[str] = (),
    metrics: Sequence[str] = (),
    picture: Picture | None = None,
    runs_dir: str | None = None,
    quiet: bool = True,
) -> Facts:
    """Write plots/*.png, summary.md, report.html and report.json about several runs.

    Args:
        runs: folders or names; the first is what the others are compared with.
        out: folder to write to.
        names: what to call the runs; default their folders' names.
        metrics: columns of metrics.csv to draw, or "all"; default the important ones.
        picture: size and resolution of the PNG files.
        runs_dir: where run names are looked up.
        quiet: print nothing.

    Returns:
        what report.json holds.
    """
    if not runs:
        raise UsageError("give at least one RUN", "`omma runs` lists them")
    if names and len(names) != len(runs):
        raise UsageError(
            f"--names: {len(names)} for {len(runs)} runs", "give as many names as runs, in the same order"
        )
    folders = [RunFolder.open(run, runs_root(runs_dir)) for run in runs]
    _check_same_scores(folders)
    titles = unique(list(names) or [folder.name for folder in folders])
    sources = [Source(folder, title) for folder, title in zip(folders, titles, strict=True)]
    say = RunLog(None, quiet=quiet).line
    return build_comparison(sources, out_folder(out), metrics=metrics, picture=picture, say=say)


def _check_same_scores(folders: Sequence[RunFolder]) -> None:
    """Refuse runs whose scores mean different things, by their evaluations or else by their trainings.

    Raises:
        UsageError: naming the setting and its values.
    """
    first: dict[str, tuple[str, Any]] = {}
    for folder in folders:
        for key, value in _scored_by(folder):
            name, expected = first.setdefault(key, (folder.name, value))
            if value != expected:
                raise UsageError(
                    f"{name} is scored with {key}={expected}, {folder.name} with {key}={value}: "
                    "these scores do not compare",
                    f"evaluate both alike: omma eval {folder.name} {key}={expected}",
                )


def _scored_by(folder: RunFolder) -> Iterator[tuple[str, Any]]:
    """Settings that decide what a run's scores mean, of each of its evaluations."""
    config = folder.config()
    settings, system = flatten(config), str(config.get("system", {}).get("name", ""))
    abouts = [read_json(evaluated / "metrics.json") or {} for evaluated in eval_folders(folder)]
    for key in get(system).scored_by if system in systems() else ():
        values = [about["scored_by"][key] for about in abouts if key in about.get("scored_by", {})]
        yield from ((key, value) for value in values or [settings.get(key)])


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def read_names(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort runs and `--experiment-names A B`, whose values end where as many names as runs are read.

    Raises:
        UsageError: for another option, or if the numbers cannot be the same.
    """
    unknown = [word for word in words if word.startswith("--") and word != NAMES_FLAG]
    if unknown:
        raise UsageError(f"{unknown[0]}: no such option", "`omma compare --help` lists them")
    if NAMES_FLAG not in words:
        return list(words), []
    at = list(words).index(NAMES_FLAG)
    before, after = list(words[:at]), list(words[at + 1 :])
    number, odd = divmod(len(before) + len(after), 2)
    if odd or number < len(before):
        raise UsageError(
            f"{NAMES_FLAG}: {len(after)} for {len(before)} runs",
            "give as many names as runs; quote a name with spaces",
        )
    return before + after[number:], after[:number]


def unique(names: Sequence[str]) -> list[str]:
    """The names, repeated ones with a number behind."""
    return [
        name if names.count(name) == 1 else f"{name} ({list(names[: index + 1]).count(name)})"
        for index, name in enumerate(names)
    ]
