"""Names of runs: legal on every system, found again by name, path or reference."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from omma.errors import UsageError

_ILLEGAL = re.compile(r'[:<>"|?*/\\@\x00-\x1f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def timestamp() -> str:
    """The local time as YYYYmmdd-HHMMSS."""
    return datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def default_name(system: str, recipe: str) -> str:
    """The name of a run that was given none: `<system>-<recipe>-<YYYYmmdd-HHMMSS>`."""
    return _ILLEGAL.sub("-", f"{system}-{recipe}-{timestamp()}")


def check_name(name: str) -> None:
    """Refuse a run name that some file system cannot hold or a RUN@CHECKPOINT reference cannot carry.

    Raises:
        UsageError: with the character or word at fault.
    """
    found = _ILLEGAL.search(name)
    problem = None
    if not name.strip() or name in {".", ".."}:
        problem = "a name needs at least one letter or digit"
    elif found:
        problem = f"{found.group()!r} cannot be part of a run's name"
    elif name[-1] in ". ":
        problem = "a name cannot end with a dot or a space on Windows"
    elif _RESERVED.fullmatch(name):
        problem = "Windows keeps this name for a device"
    if problem:
        raise UsageError(
            f"--name {name!r}: {problem}",
            'letters of any script, digits, spaces and . - _ are fine; none of : < > " | ? * / \\ @ '
            "(choose the folder that holds the runs with --runs-dir)",
        )


def runs_root(option: str | None) -> Path:
    """The folder that holds the runs: the option, else OMMA_RUNS, else ./runs."""
    return Path(option or os.environ.get("OMMA_RUNS") or "runs")


def split_reference(text: str) -> tuple[str, str | None]:
    """Split `RUN@best` into the run and the checkpoint's name; without @ the second part is None."""
    head, at, which = text.rpartition("@")
    if at and head and which and not set(which) & {"/", "\\"}:
        return head, which
    return text, None
