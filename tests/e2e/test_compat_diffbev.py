"""The runbook's commands, word for word but smaller, in a copy of compat/diffbev."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.e2e import compat_guides as guides
from tests.e2e.compat_shell import change, new_shell, without_report
from tests.e2e.diffbev_runs import NARROW, WORLD, omma
from tests.e2e.diffbev_runs import TINY as BEV_TINY

pytestmark = pytest.mark.e2e
NUSCENES_TINY = [*BEV_TINY, "system.backbone.pretrained=none", "train.precision=32"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_report(monkeypatch)


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory) -> Path:
    """The runbook's folder: tables and LiDAR, and images and labels in img_dir and ann_bev_dir."""
    folder = tmp_path_factory.mktemp("data")
    source, root = folder / "world", folder / "nuScenes"
    assert omma("world", "nuscenes", "--out", source, *WORLD) == 0
    assert omma("prepare", "nuscenes-bev-labels", f"root={source}", "workers=1") == 0
    small = [f"root={source}", f"out={root}", "height=64", "width=96", "workers=1"]
    assert omma("prepare", "nuscenes-resize", *small) == 0
    for part in ("samples", "v1.0-trainval"):
        shutil.copytree(source / part, root / part)
    return root


def test_the_runbook(nuscenes, tmp_path, monkeypatch, capsys):
    shell = new_shell("diffbev", tmp_path, monkeypatch)
    data = shell.folder / "configs" / "_base_" / "datasets" / "nuscene.py"
    change(data, ('data_root = ""', f"data_root = '{nuscenes.as_posix()}'"))
    places = {guides.DIFFBEV: shell.folder, guides.NUSCENES: nuscenes}
    places |= {"max_iters=300": "max_iters=3", "interval=100": "interval=1"}
    for text in guides.RUNBOOK_SMOKE:
        shell.block(text, places, NUSCENES_TINY)
    _check_smoke(shell.folder / "runs" / "baseline_smoke")
    for text in guides.RUNBOOK_DEPTH:
        shell.block(text, {"--height 600 --width 800": "--height 64 --width 96", **places}, ["workers=1"])
    assert len(list((nuscenes / "ann_bev_dir" / "train_depth").glob("*.npz"))) == 2  # of the front camera
    capsys.readouterr()
    shell.block(guides.RUNBOOK_CHECK, places, [*NUSCENES_TINY, NARROW])
    said = capsys.readouterr().out
    assert "gt_depth [1, 1, 64, 96]" in said
    assert float(re.search(r"gt_depth_mask valid_ratio (0\.\d{6})", said)[1]) > 0
    checked = ["tools/debug/check_depth_gt.py", "--config", "configs/diffbev/diffbev_lss_swin_nuscenes.py"]
    assert shell.python(*checked, f"data.root={tmp_path}/none", *NUSCENES_TINY, NARROW) == 1  # R15
    short = [*NUSCENES_TINY, "train.length=2", "log.every=1"]
    for text in guides.RUNBOOK_BASELINE:
        shell.block(text, places, short)
    for text in guides.RUNBOOK_DIFFBEV:
        shell.block(text, places, [*short, NARROW])
    places |= {"0 10 20 30 40 50": "0 1 2 3 4 5"}
    for text in guides.RUNBOOK_RESULTS:
        shell.block(text, places)
    _check_runbook(shell.folder)


def _check_smoke(run: Path) -> None:
    """R4, R5 and the guide's step 2.5."""
    assert {"iter_1.pth", "iter_2.pth", "iter_3.pth", "latest.pth", "smoke_test.log"} <= {
        file.name for file in run.iterdir()
    }
    assert (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[-1].startswith("3,")


def _check_runbook(folder: Path) -> None:
    """The guide's final list."""
    for name in ("baseline", "diffbev_default"):
        run = folder / "runs" / name
        assert len(list(run.glob("train_*.log"))) == 1
        state = torch.load(run / "best_mIoU.pth", weights_only=True)
        assert {"meta", "state_dict"} <= set(state)
        assert (run / "latest.pth").is_file()
        with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
            columns = set(next(csv.reader(file)))
        terms = {"Lwce"} if name == "baseline" else {"Lwce", "Ldepth", "Ldiff"}
        assert {"step", "phase", "loss", "lr", "mIoU"} | terms <= columns
    plots = {
        file.stem.removesuffix("_comparison") for file in (folder / "reports/comparison/plots").iterdir()
    }
    assert plots == {"mIoU", "Lwce", "Ldepth", "Ldiff", "lr", "loss", "IoU_per_class"}
    summary = (folder / "reports/comparison/summary.md").read_text(encoding="utf-8")
    assert "Baseline" in summary
    assert "DiffBEV" in summary
    pictures = sorted((folder / "runs/vis_comparison/vis").glob("*.png"))
    assert [picture.name for picture in pictures] == [f"sample_{index:04d}.png" for index in range(6)]
    assert Image.open(pictures[0]).size[0] > 1000
    assert (folder / "runs/diagnose/summary.txt").stat().st_size > 1000
    assert len(list((folder / "runs/diagnose").glob("*_pred_overlay.png"))) == 6


def test_a_checkpoint_of_no_run_is_drawn_too(nuscenes, tmp_path, monkeypatch):
    """A file of the original, which is in no run folder."""
    shell = new_shell("diffbev", tmp_path, monkeypatch)
    words = [f"data.root={nuscenes}", *NUSCENES_TINY, "train.length=1"]
    config = "configs/baseline/lss_swin_nuscenes.py"
    assert shell.python("tools/train.py", config, *words) == 0
    assert (shell.folder / "work_dirs" / "lss_swin_nuscenes" / "latest.pth").is_file()
    elsewhere = shell.folder / "other file.pth"
    shutil.copyfile(shell.folder / "work_dirs" / "lss_swin_nuscenes" / "latest.pth", elsewhere)
    settings = [word for word in words if word.startswith(("data.", "system."))]
    words = [config, elsewhere.name, "--indices", 1, "--work-dir", "out", "--device", "cpu", *settings]
    look = ["--threshold", 0.01, "--fig-size", 9, 3]  # R21
    assert shell.python("tools/vis_nuscenes_bev.py", *words) == 0
    picture = shell.folder / "out" / "vis" / "sample_0001.png"
    before = np.asarray(Image.open(picture))
    assert shell.python("tools/vis_nuscenes_bev.py", *words, *look) == 0
    assert Image.open(picture).size[0] == 900 < before.shape[1]
    assert Image.open(picture).size[1] <= 300
    assert shell.python("tools/vis_nuscenes_bev.py", *words, "--threshold", 1) == 2
