"""What a user is promised of SDPose's training, by rows of the spec (section 2).

Presets and rates are in unit/test_sdpose_recipes.py, the checklist in unit/test_sdpose_doctor.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from tests.commands import omma, rows_of, weights_of
from tests.unit import coco_files as files

from omma.cli import _run
from omma.core.coco_eval import NUMBERS
from omma.engine import launch
from omma.systems.recipes import open_recipe
from omma.systems.sdpose.convert import load_reference, to_reference
from omma.systems.sdpose.task import SDPoseTask

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_report")]
RECIPE = "sdpose/s_v1"
NETWORK = ["data.image_size=[64, 48]", "system.dim=24", "system.depth=1", "system.heads=2"]
TINY = [
    *NETWORK, "train.workers=0", "train.batch_size=2", "train.device=cpu", "log.tensorboard=false",
    "log.every=1", "schedule.warmup=0", "save.reference=true",
]  # fmt: skip
WITHOUT_REPORT = """
import omma.cli, omma.commands.train as train
train._finish = lambda *args: None
omma.cli.main()
"""
DISTILLED = ["heatmap_loss", "vis_dist_loss", "kpt_dist_loss"]


def _train(root: Path, name: str, data: Path, *words: str) -> Path:
    options = ["--name", name, "--runs-dir", root, f"data.root={data}", *TINY, *words]
    assert omma("train", RECIPE, *options) == 0
    return root / name


def _task(*words: str) -> SDPoseTask:
    torch.manual_seed(0)
    return SDPoseTask(open_recipe(RECIPE, [*NETWORK, *words]).config)


def _files(run: Path) -> set[str]:
    return {file.name for file in run.glob("*.pth")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five people to train on and seven to validate on, a photo each."""
    root = tmp_path_factory.mktemp("rows") / "coco"
    for split, number in (("train", 5), ("val", 7)):
        people = [files.person(100 + i, i, (20 + 8 * i, 5 + i, 50, 95)) for i in range(1, number + 1)]
        files.write_split(root, split, files.content(people, images=range(1, number + 1)))
    return root


@pytest.fixture(scope="module")
def four_epochs(data, tmp_path_factory) -> Path:
    """Four epochs of two steps, with a step of the schedule in each half and a file after each epoch."""
    words = ["train.length=4 epochs", "schedule.at=[1 epoch, 3 epochs]", "validate.every=4 epochs"]
    words += ["save.every=1 epoch", "save.keep_last=9", "log.tensorboard=true"]
    return _train(tmp_path_factory.mktemp("runs"), "four", data, *words)


@pytest.fixture(scope="module")
def long_run(data, tmp_path_factory) -> Path:
    """25 epochs of one step where no link can be made; intervals and what is kept are the recipe's."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("links are not allowed here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "symlink", refuse)
        patch.setattr(Path, "symlink_to", refuse)
        words = ["train.length=25 epochs", "train.batch_size=5", "system.cycles=1"]
        return _train(tmp_path_factory.mktemp("long"), "long", data, *words)


# --- where a run lies ---


def test_a_run_lies_where_it_is_told_to(data, tmp_path, monkeypatch, capfd):
    """R1, R2, R5, R14: name and folder under the guide's flags; a second start is refused unless told."""
    monkeypatch.chdir(tmp_path)
    words = [f"data.root={data}", *TINY, "train.length=1", "save.reference=false"]
    assert omma("train", RECIPE, "--work-dir", "elsewhere/mine", *words) == 0
    assert omma("train", RECIPE, "--exp-name", "x", "--runs-dir", "work_dirs", *words) == 0
    assert omma("train", RECIPE, "--runs-dir", "work_dirs", *words) == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["elsewhere", "work_dirs"]
    assert (tmp_path / "elsewhere" / "mine" / "metrics.csv").is_file()
    names = sorted(path.name for path in (tmp_path / "work_dirs").iterdir())
    assert len(names) == 2
    assert re.match(r"sdpose-s_v1-\d+", names[0])
    assert names[1] == "x"
    again = ["train", RECIPE, "--exp-name", "x", "--runs-dir", "work_dirs", *words]
    capfd.readouterr()
    assert _run(again, debug=False) == 2
    assert str(Path("work_dirs", "x")) in capfd.readouterr().err
    assert omma(*again, "--overwrite") == 0


def test_log_of_a_run(four_epochs):
    """R3, R24, R40: text and a row a step with rate, terms, accuracy, time, data's share and memory."""
    assert "step 8/8" in (four_epochs / "log.txt").read_text(encoding="utf-8")
    rows = rows_of(four_epochs, "train")
    assert [row["step"] for row in rows] == list(range(1, 9))
    names = {"lr", "loss", *DISTILLED, "acc_pose", "step_time", "data_share", "memory", "grad_norm"}
    assert all(names <= {name for name, value in row.items() if value is not None} for row in rows)
    assert [row["lr"] for row in rows] == pytest.approx([1e-3] * 2 + [1e-4] * 4 + [1e-5] * 2)


def test_tensorboard_shows_each_term(four_epochs):
    """R25."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = next(four_epochs.rglob("events.out.tfevents.*")).parent
    tags = set(EventAccumulator(str(events)).Reload().Tags()["scalars"])
    assert {f"train/{name}" for name in ("loss", *DISTILLED, "acc_pose", "lr")} <= tags
    assert {"val/AP", "val/AR"} <= tags


# --- checkpoints ---


def test_files_of_25_epochs(long_run):
    """R9, R11, R12, R15, D3: every tenth and the last epoch, and the last one again as latest; no links."""
    best = {name for name in _files(long_run) if name.startswith("best")}
    assert _files(long_run) == {"epoch_10.pth", "epoch_20.pth", "epoch_25.pth", "latest.pth", *best}
    assert len(best) == 1
    assert not any(path.is_symlink() for path in long_run.rglob("*"))
    latest, last = (torch.load(long_run / name, weights_only=True) for name in ("latest.pth", "epoch_25.pth"))
    assert str(latest["meta"]) == str(last["meta"])  # as text, as NaN equals NaN
    assert (last["meta"]["epoch"], last["meta"]["iter"]) == (25, 25)
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in latest["state_dict"].items())


def test_ten_numbers_every_tenth_epoch(long_run):
    """R26, R35."""
    rows = rows_of(long_run, "val")
    assert [row["step"] for row in rows] == [10, 20, 25]
    assert all(set(NUMBERS) <= row.keys() for row in rows)
    meta = torch.load(long_run / "epoch_20.pth", weights_only=True)["meta"]
    assert meta["metrics"]["AP"] == pytest.approx(rows[1]["AP"])


def test_files_of_a_run_are_safe_and_complete(four_epochs):
    """Section 8: mmcv's parts, tensors and plain values alone, published names; the same bits as our own."""
    content = torch.load(four_epochs / "epoch_4.pth", weights_only=True)
    assert set(content) == {"meta", "state_dict", "optimizer"}
    assert (content["meta"]["epoch"], content["meta"]["iter"]) == (4, 8)
    ours = {name.removeprefix("model."): value for name, value in weights_of(four_epochs).items()}
    saved = load_reference(content, heads=2).state_dict()
    assert saved.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in saved.items())


# --- going on ---


def test_two_and_two_epochs_are_four(data, four_epochs, tmp_path):
    """R6: the same bits, rates and losses after a resume."""
    words = ["train.length=2 epochs", "schedule.at=[1 epoch, 3 epochs]", "validate.every=4 epochs"]
    run = _train(tmp_path, "half", data, *words, "save.every=1 epoch", "save.keep_last=9")
    assert omma("resume", run, "train.length=4 epochs") == 0
    expected, found = weights_of(four_epochs), weights_of(run)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    for name in ("loss", "lr", "epoch"):
        values = [[row[name] for row in rows_of(one, "train")] for one in (four_epochs, run)]
        assert values[0] == values[1]
    assert {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "epoch_4.pth", "latest.pth"} <= _files(run)


@pytest.mark.parametrize("steps", [4, 999])
def test_a_file_goes_on_at_the_next_epoch(data, four_epochs, tmp_path, steps):
    """R6, R34: whatever number of steps an epoch had there; epochs 3 and 4 end as the whole training."""
    content = torch.load(four_epochs / "epoch_2.pth", weights_only=True)
    content["meta"]["iter"] = steps
    file = tmp_path / "elsewhere" / "epoch_2.pth"
    file.parent.mkdir()
    torch.save(content, file)
    words = ["train.length=4 epochs", "schedule.at=[1 epoch, 3 epochs]", "validate.every=4 epochs"]
    run = _train(tmp_path, "on", data, *words, "--resume-from", str(file))
    rows = rows_of(run, "train")
    assert [row["step"] for row in rows] == [5, 6, 7, 8]
    assert [row["lr"] for row in rows] == [row["lr"] for row in rows_of(four_epochs, "train")[4:]]
    expected, found = weights_of(four_epochs), weights_of(run)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_weights_alone_start_anew(data, four_epochs, tmp_path, capfd):
    """R7, R8: first step, first rate, the file's weights; together with a resume it is an error."""
    file = str(four_epochs / "epoch_4.pth")
    run = _train(tmp_path, "anew", data, "--init", file, "optim.lr=1e-30", "train.length=1")
    assert [row["step"] for row in rows_of(run, "train")] == [1]
    expected, found = weights_of(four_epochs), weights_of(run)
    changed = ("running_mean", "running_var", "num_batches_tracked")
    assert all(torch.equal(v, found[name]) for name, v in expected.items() if not name.endswith(changed))
    both = ["train", RECIPE, f"data.root={data}", *TINY, "--init", file, "--resume", file]
    capfd.readouterr()
    assert _run([*both, "--name", "both", "--runs-dir", str(tmp_path)], debug=False) == 2
    assert "--init" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["system.patch=[2, 2]", "system.dim=48", "system.depth=2"],
        [
            "system.backbone={name: hrnet_w32, stage1_width: 64, pretrained: none}",
            "data.image_size=[128, 96]",
        ],
        ["system.position=learnable", "system.mlp_ratio=2.0"],
    ],
)
def test_a_file_tells_its_network(words, tmp_path):
    """Section 8: a file of any published form is imported under the recipe of another."""
    task = _task("system.patch=[4, 3]", *words)
    file = tmp_path / "published.pth"
    torch.save({"meta": {}, "state_dict": to_reference(task.model)}, file)
    out = tmp_path / "imported"
    assert omma("import", "sdpose", file, "--recipe", RECIPE, "--out", out, "system.heads=2") == 0
    expected, found = task.model.state_dict(), weights_of(out)
    assert found.keys() == {f"model.{name}" for name in expected}
    assert all(torch.equal(found[f"model.{name}"], value) for name, value in expected.items())


# --- several processes ---


@pytest.mark.multi
def test_two_processes_are_one_with_twice_the_batch(data, tmp_path, monkeypatch):
    """R33: losses and weights of a global batch of four; each normalises over its own two, as micro-steps do.

    The scores of seven people shared by two processes are those of one.
    """
    monkeypatch.setattr(launch, "_COMMAND", (sys.executable, "-c", WITHOUT_REPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["train.length=2 epochs", "validate.every=2 epochs", "optim={name: sgd, lr: 0.01}"]
    one = _train(tmp_path, "one", data, *words, "train.accumulate=2")
    two = _train(tmp_path, "two", data, *words, "train.devices=2")
    for row, other in zip(rows_of(one, "train"), rows_of(two, "train"), strict=True):
        assert [row[name] for name in DISTILLED] == pytest.approx([other[n] for n in DISTILLED], rel=1e-5)
    expected, found = weights_of(one), weights_of(two)
    for name, value in expected.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert omma("eval", f"{two}@final") == 0
    alone = json.loads((two / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    shared = rows_of(two, "val")[-1]
    for name in ("loss", "AP", "AR", "error_px", "OKS", "peak"):
        assert shared[name] == pytest.approx(alone[name], rel=1e-5), name
