"""`omma world`: a procedural data set."""

from __future__ import annotations

import re
from pathlib import Path

from omma.errors import UsageError
from omma.runs.console import RunLog


def make_world(
    layout: str,
    out: Path,
    *,
    scenes: int,
    val_scenes: int,
    frames: int,
    seed: int = 0,
    image_size: str | None = None,
    workers: int = 2,
    force: bool = False,
    quiet: bool = False,
) -> Path:
    """Make a data set of so many scenes in a format of `omma world --help`; returns its folder."""
    from omma.world.build import build

    console = RunLog(None, quiet=quiet)
    with console.progress((scenes + val_scenes) * frames, label="world") as bar:
        summary = build(
            layout,
            out,
            scenes=scenes,
            val_scenes=val_scenes,
            frames=frames,
            seed=seed,
            image_size=parse_size(image_size) if image_size else None,
            workers=workers,
            force=force,
            progress=bar.update,
        )
    console.line(f"{summary}")
    return out


def parse_size(text: str) -> tuple[int, int]:
    """`HxW` -> (height, width).

    Raises:
        UsageError: for another form.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise UsageError(f"--image-size {text}: expected HxW, such as 224x480")
    return int(match[1]), int(match[2])
