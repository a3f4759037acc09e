"""Where the original's commands keep their runs and files."""

from __future__ import annotations

import time
from pathlib import Path

from omma.config.explain import suggest
from omma.errors import UsageError
from omma.systems.originals import Flag, Typed

STAGES = ("vision", "resampler", "finetune")
PLACES = {
    "--runs-dir": Flag("folder of the runs, default runs"),
    "--name": Flag("the runs are NAME_vision and so on, default vlm"),
    "--prefix": Flag("the same"),
}
FINAL = "model_final.safetensors"
_CONFIG, _CHECKPOINTS = "config.yaml", "checkpoints"


def run_folder(stage: str, typed: Typed) -> Path:
    """The folder of a stage's run; of the stage "" that of all stages together."""
    name = typed.value("--name") or typed.value("--prefix") or "vlm"
    return _runs(typed) / (f"{name}_{stage}" if stage else name)


def run_reference(text: str, typed: Typed) -> str | None:
    """A run with its checkpoint for what was typed; None for a file that is of no run.

    Args:
        text: RUN, RUN@best, RUN/checkpoints/best.ckpt, RUN/model_final.safetensors or another FILE.
        typed: for the folder of the runs.

    Raises:
        UsageError: there is no such thing.
    """
    name, _, which = text.rpartition("@")
    for head, end in ((text, ""), (name, f"@{which}")):
        for folder in (Path(head), _runs(typed) / head):
            if head and (folder / _CONFIG).is_file():
                return f"{folder}{end}"
    path = Path(text)
    run = path.parent.parent if path.parent.name == _CHECKPOINTS else path.parent
    if path.parent.name == _CHECKPOINTS and (run / _CONFIG).is_file():
        return f"{run}@{_checkpoint(path)}"
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UsageError(
            f"{text}: no such checkpoint or run{suggest(path.name, near)}", "`omma runs` lists runs"
        )
    return f"{run}@final" if path.name == FINAL and (run / _CONFIG).is_file() else None


def stage_name(flag: str, text: str, *more: str) -> str:
    """The text, if it is a stage.

    Raises:
        UsageError: it is none.
    """
    known = (*STAGES, *more)
    if text in known:
        return text
    raise UsageError(f"{flag} {text}: no such stage{suggest(text, known)}", f"stages: {', '.join(known)}")


def now() -> str:
    """The local time as it stands in names of files."""
    return time.strftime("%Y%m%d_%H%M%S")


def _runs(typed: Typed) -> Path:
    return Path(typed.value("--runs-dir") or "runs")


def _checkpoint(path: Path) -> str:
    """The name of a checkpoint that is there: of best.ckpt best, of last.ckpt last."""
    name = path.name if path.is_dir() else path.stem
    name = name.partition("-")[0]  # best-v1.ckpt
    if name == "last" or (path.parent / name).is_dir():
        return name
    raise UsageError(f"{path}: no such checkpoint", f"{path.parent.parent} may not have got so far")
