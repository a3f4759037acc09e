"""Commands of the runbook by omma (rows R4, R10, R13, R15, R17, R21 and R23 of the spec)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omma.errors import UsageError
from omma.systems.diffbev.aliases import ALIASES
from omma.systems.diffbev.original_config import data_words, read_config
from omma.systems.originals import (
    Command,
    Flag,
    Program,
    Typed,
    opened,
    training_flags,
    with_its_checkpoints,
)

if TYPE_CHECKING:
    from omma.systems.diffbev.viz import Look

_DOTS = 100  # an inch of a picture
_FAILS_WITH_1 = {3: 1}  # as the original's checks of data end


def _train(typed: Typed) -> Iterator[Command]:
    config = Path(typed.words[0])
    recipe, words = read_config(config)
    if "--work-dir" not in (*typed.flags, *words):
        words = ["--work-dir", f"work_dirs/{config.stem}", *words]
    yield with_its_checkpoints(["train", recipe, *words, *typed.given()])


def _prepare_depth(typed: Typed) -> Iterator[Command]:
    cameras = ",".join(typed.flags.get("--cameras", ["CAM_FRONT"]))
    yield ["prepare", "nuscenes-depth", *typed.given("--cameras"), "--cameras", cameras]


def _check_depth(typed: Typed) -> Iterator[Command]:
    recipe, words = read_config(Path(typed.value("--config") or ""), start=False)
    yield ["doctor", recipe, *words, *typed.settings]


def _plot(typed: Typed) -> Iterator[Command]:
    yield ["compare", *typed.words, *typed.given()]


def _draw(typed: Typed) -> Iterator[Command]:
    from omma.systems.diffbev.viz import drawn_as

    look = _look(typed)
    pairs = [(typed.words[0], typed.words[1])]
    second = [typed.value(f"--diffbev-{what}") for what in ("config", "checkpoint")]
    if second[0] is not None and second[1] is not None:
        pairs.append((second[0], second[1]))
    elif any(second):
        raise UsageError("--diffbev-config and --diffbev-checkpoint go together", "give both or none")
    runs = []
    for config, checkpoint in pairs:
        run, before = _open(config, checkpoint, typed)
        yield from before
        runs.append(run)
    settings = [*data_words(Path(typed.words[0])), *typed.settings]
    if "--device" in typed.flags:
        settings.append(f"train.device={typed.value('--device')}")
    indices = ",".join(typed.flags.get("--indices", ["0", "10", "20", "30"]))
    out = Path(typed.value("--work-dir") or "work_dirs/vis_comparison") / "vis"
    chosen = [word for setting in settings for word in ("--set", setting)]
    with drawn_as(look):
        yield ["predict", *runs, "--indices", indices, "--out", str(out), *chosen]


def _look(typed: Typed) -> Look:
    """What --threshold and --fig-size say."""
    from omma.systems.diffbev.viz import Look

    look = Look()
    if "--threshold" in typed.flags:
        what = "a probability between 0 and 1, such as 0.5"
        (threshold,) = _numbers("--threshold", typed, what, below=1)
        look = replace(look, threshold=threshold)
    if "--fig-size" in typed.flags:
        width, height = _numbers("--fig-size", typed, "width and height in inches, such as 24 8")
        look = replace(look, size=(round(width * _DOTS), round(height * _DOTS)))
    return look


def _numbers(flag: str, typed: Typed, what: str, *, below: float = math.inf) -> list[float]:
    texts = typed.flags[flag]
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < below for number in numbers):
        raise UsageError(f"{flag} {' '.join(texts)}: not understood", f"it takes {what}")
    return numbers


def _diagnose(typed: Typed) -> Iterator[Command]:
    config, checkpoint = typed.value("--config") or "", typed.value("--checkpoint") or ""
    run, before = _open(config, checkpoint, typed)
    yield from before
    yield ["diagnose", run, *data_words(Path(config)), *typed.given("--config", "--checkpoint")]


def _open(config: str, checkpoint: str, typed: Typed) -> tuple[str, list[Command]]:
    recipe, _ = read_config(Path(config), start=False)
    settings = [*data_words(Path(config)), *typed.settings]
    return opened(checkpoint, "diffbev", recipe, settings, typed.scratch)


PROGRAMS = {
    "train.py": Program(
        "Train a config of the original; what it means is printed, what it cannot mean is refused.",
        _train,
        training_flags(ALIASES),
        words=("CONFIG",),
    ),
    "prepare_nuscenes_depth_gt.py": Program(
        "Project LiDAR into the images: <output-dir>/<split>_depth/<token>.npz.",
        _prepare_depth,
        {
            "--nuscenes-root": Flag("the nuScenes folder"),
            "--version": Flag("table folder, such as v1.0-trainval"),
            "--output-dir": Flag("default: ann_bev_dir in the nuScenes folder"),
            "--split": Flag("train or val; default both"),
            "--img-dir": Flag("take the images of this folder"),
            "--cameras": Flag("names or all; default CAM_FRONT", None),
            "--height": Flag("of the depth pictures; default 600"),
            "--width": Flag("default 800"),
            "--min-depth": Flag("metres; default 1"),
            "--max-depth": Flag("metres; default 50"),
        },
        needs=("--nuscenes-root",),
    ),
    "check_depth_gt.py": Program(
        "Check data, labels and depths of a config; prints gt_depth and the valid_ratio of gt_depth_mask.",
        _check_depth,
        {"--config": Flag("a config of the original")},
        needs=("--config",),
        exits=_FAILS_WITH_1,
    ),
    "plot_metrics.py": Program(
        "Compare runs: plots/<metric>_comparison.png, summary.md and report.html.",
        _plot,
        {
            "--output-dir": Flag("folder to write to"),
            "--experiment-names": Flag("a name for each run", None),
            "--metrics": Flag("what to draw: mIoU,lr or all"),
            "--fig-size": Flag("inches, such as 12 6", 2),
            "--dpi": Flag("pixels an inch"),
        },
        words=("RUN",),
        more=True,
        needs=("--output-dir",),
        exits=_FAILS_WITH_1,
    ),
    "vis_nuscenes_bev.py": Program(
        "Draw samples of one or two checkpoints: <work-dir>/vis/sample_0010.png.",
        _draw,
        {
            "--diffbev-config": Flag("of the second column"),
            "--diffbev-checkpoint": Flag("of the second column"),
            "--indices": Flag("samples of the validation split; default 0 10 20 30", None),
            "--work-dir": Flag("folder to write to; default work_dirs/vis_comparison"),
            "--device": Flag("such as cpu or cuda:0"),
            "--threshold": Flag("cells of a higher probability are painted; default 0.5"),
            "--fig-size": Flag(f"largest width and height in inches of {_DOTS} dots, such as 24 8", 2),
        },
        words=("CONFIG", "CHECKPOINT"),
        exits=_FAILS_WITH_1,
    ),
    "diagnose_segmentation.py": Program(
        "Say what is wrong with a checkpoint; writes summary.txt and pictures.",
        _diagnose,
        {
            "--config": Flag("a config of the original"),
            "--checkpoint": Flag("such as runs/diffbev_default/latest.pth"),
            "--num-samples": Flag("samples to look at; default 50"),
            "--vis-num": Flag("samples to draw; default 8"),
            "--out-dir": Flag("folder to write to"),
            "--device": Flag("such as cpu or cuda:0"),
            "--seed": Flag("of the choice of samples; default 42"),
            "--camera": Flag("look at this camera only, such as CAM_FRONT"),
            "--dataset-split": Flag("default val"),
            "--probe-only": Flag("do not run the network", 0),
        },
        needs=("--config", "--checkpoint"),
    ),
}
