"""tools/train.py and tools/test.py of the original, by omma (rows R1 to R8 and R32 to R35 of the spec)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from omma.errors import UsageError
from omma.systems.originals import Command, Flag, Program, Typed, opened, training_flags, with_its_checkpoints
from omma.systems.sdpose.aliases import ALIASES
from omma.systems.sdpose.original_config import data_words, read_config, work_dir

_RESULTS = ("result_keypoints.json", "metrics.json")
_NAMES, _PLACES = ("--exp-name", "--exp_name"), ("--work-dir", "--work_dir")
_NOTHING = ("--fuse-conv-bn", "--gpu-collect")  # what they ask for is so in any case, or has no use


def _train(typed: Typed) -> Iterator[Command]:
    recipe, words = read_config(Path(typed.words[0]))
    given = typed.given(*_NAMES, *_PLACES)
    yield with_its_checkpoints(["train", recipe, "--work-dir", str(_folder(typed)), *words, *given])


def _folder(typed: Typed) -> Path:
    """The run's: as typed, else as the config says."""
    place = next((typed.value(flag) for flag in _PLACES if flag in typed.flags), None)
    name = next((typed.value(flag) for flag in _NAMES if flag in typed.flags), None)
    return Path(place) if place else work_dir(Path(typed.words[0]), {"exp_name": name} if name else None)


def _log_file(typed: Typed) -> Path:
    return _folder(typed) / time.strftime("%Y%m%d_%H%M%S.log")


def _test(typed: Typed) -> Iterator[Command]:
    """Evaluate; what the original leaves in its work_dir is copied there: beside the checkpoint."""
    metric = typed.value("--eval", "mAP") or ""
    if metric.lower() not in ("map", "ap"):
        raise UsageError(f"--eval {metric}: no such metric", "--eval mAP")
    config, checkpoint = Path(typed.words[0]), typed.words[1]
    recipe, words = read_config(config, start=False)
    network = [word for word in words if word.startswith(("system.", "data.image_size="))]
    settings = [*network, *data_words(config), *typed.settings]
    run, before = opened(checkpoint, "sdpose", recipe, settings, typed.scratch)
    yield from before
    yield ["eval", run, *data_words(config), *typed.settings]
    folder = Path(typed.value("--work-dir") or Path(checkpoint).parent)
    folder.mkdir(parents=True, exist_ok=True)
    evaluated = max((Path(run.partition("@")[0]) / "eval").iterdir(), key=lambda path: path.stat().st_mtime)
    for name in _RESULTS:
        shutil.copyfile(evaluated / name, folder / name)
    print(f"copied to {folder}: {', '.join(_RESULTS)}")  # noqa: T201


PROGRAMS = {
    "train.py": Program(
        "Train a config of the original; what it means is printed, what it cannot mean is refused.",
        _train,
        training_flags(ALIASES),
        words=("CONFIG",),
        log=_log_file,
    ),
    "test.py": Program(
        "Evaluate a checkpoint: AP and AR; result_keypoints.json and metrics.json are written beside it.",
        _test,
        {
            "--eval": Flag("mAP"),
            "--work-dir": Flag("folder for these two; default: the checkpoint's"),
            **{flag: Flag("nothing to do", 0) for flag in _NOTHING},
        },
        words=("CONFIG", "CHECKPOINT"),
    ),
}
