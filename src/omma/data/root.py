"""Where a data set lies: the folder of `data.root`, and what to do where there is none."""

from __future__ import annotations

import warnings
from pathlib import Path

from omma.config.base import DataSection
from omma.errors import DataError


def ways(system: str, world: str) -> str:
    """How to say where data is, or to make some.

    Args:
        system: name.
        world: format of `omma world` that it reads.
    """
    variable = f"OMMA_DATA_{system.upper()}"
    return f"give data.root=PATH, set {variable}, or make a data set: `omma world {world} --out DIR`"


def find_root(data: DataSection, system: str, world: str, *, file_allowed: bool = False) -> Path:
    """The folder of a data set; the letter case of its last part does not matter.

    Args:
        data: the recipe's section.
        system: name, for the hint.
        world: format of `omma world` that it reads, for the hint.
        file_allowed: a file will do as well.

    Raises:
        DataError: it is not set or does not exist, with the ways to set or make it.
    """
    if data.root is None:
        raise DataError("data.root is not set", ways(system, world))
    path = Path(data.root).expanduser()
    if file_allowed and path.is_file():
        return path
    root = find_folder(path)
    if root is None:
        raise DataError(f"{data.root}: no such folder (data.root)", ways(system, world))
    return root


def find_folder(path: Path) -> Path | None:
    """The folder, or the only one beside it whose name differs in letter case alone, with a notice."""
    if path.is_dir():
        return path
    if not path.parent.is_dir():
        return None
    alike = [
        other
        for other in path.parent.iterdir()
        if other.name.casefold() == path.name.casefold() and other.is_dir()
    ]
    if len(alike) != 1:
        return None
    warnings.warn(f"{path}: no such folder; {alike[0]} is taken instead (letter case)", stacklevel=3)
    return alike[0]
