"""Writing prepared data: files appear as a whole or not at all; a folder holds data of one making."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omma.data.io import read_json
from omma.errors import DataError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, and its folder where that is missing; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def claim(note: Path, settings: Mapping[str, Any], *, used: bool) -> None:
    """Write down what a folder's data are made of, or make sure that those there are the same.

    Args:
        note: JSON file of the settings.
        settings: plain values.
        used: whether there are data already; without a note nobody knows how they were made.

    Raises:
        DataError: the data there have other settings, or unknown ones.
    """
    if note.is_file():
        stored = read_json(note)
        if stored != dict(settings):
            known = stored if isinstance(stored, dict) else {}
            keys = sorted(key for key in {*settings, *known} if settings.get(key) != known.get(key))
            raise DataError(
                f"{note.parent}: holds data with other settings ({note.name}: {', '.join(keys)})",
                "choose another folder, or take what is there away",
            )
        return
    if used:
        raise DataError(
            f"{note.parent}: holds data of unknown making (there is no {note.name})",
            "choose another folder, or take what is there away",
        )
    write_whole(note, json.dumps(dict(settings), indent=1).encode())
