"""What `omma diagnose` says first about runs of DiffBEV."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.e2e.diffbev_runs import make_world, omma, train

from omma.core.bev_labels import expand_label
from omma.data.formats.nuscenes_bev import coarsen_label, read_label
from omma.systems.diffbev.palette import IGNORED
from omma.systems.diffbev.task import DiffBEVTask, label_grid

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("data") / "world")


@pytest.fixture(scope="module")
def run(world, tmp_path_factory) -> Path:
    """A few steps on the small world, validated on its twelve training images."""
    words = ["data.val_split=train", "save.reference=false"]
    return train(world, tmp_path_factory.mktemp("runs"), "diffbev/demo_baseline", "few", *words)


@pytest.fixture
def oracle(world, monkeypatch) -> None:
    """Predictions that are the labels of the world, whatever data set is diagnosed."""

    def forward(task, batch):
        columns, _, rows = label_grid(task.config.system).nx
        bits = [read_label(world / "ann_bev_dir" / "train" / f"{token}.png") for token in batch["token"]]
        labels = np.stack([coarsen_label(label, label.shape[0] // rows) for label in bits])
        assert labels.shape[1:] == (rows, columns)
        target, _ = expand_label(torch.from_numpy(labels), len(task.classes))
        return torch.where(target, 6.0, -6.0)

    monkeypatch.setattr(DiffBEVTask, "forward", forward)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """Of the run, to spoil."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def data(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "data"))


def _diagnose(run: Path, *words) -> list[dict]:
    assert omma("diagnose", run, "--vis-num", 0, *words) == 0
    return json.loads((run / "diagnose" / "findings.json").read_text(encoding="utf-8"))


def _labels(root: Path) -> list[Path]:
    return sorted((root / "ann_bev_dir" / "train").glob("*.png"))


def _without_depths(root: Path) -> None:
    for folder in root.glob("ann_bev_dir/*_depth"):
        shutil.rmtree(folder)


def _change(file: Path, change) -> None:
    bits = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(file), np.ascontiguousarray(change(bits)))


def test_a_perfect_predictor_scores_one_and_has_no_error(copy, oracle):
    """R24."""
    findings = _diagnose(copy)
    assert [finding["title"] for finding in findings if finding["severity"] == "error"] == []
    summary = (copy / "diagnose" / "summary.txt").read_text(encoding="utf-8")
    assert "overall accuracy of the label map: 1.0000" in summary
    assert re.search(r"mIoU over the \d+ classes with ground truth: 1\.0000", summary)


def test_sections_pictures_and_the_numbers_of_eval(run):
    """R23."""
    assert omma("diagnose", run, "--vis-num", 2) == 0
    folder = run / "diagnose"
    ends = ("img", "gt", "pred", "gt_overlay", "pred_overlay")
    names = {file.name for file in folder.glob("0*.png")}
    stems = {name.removesuffix("_img.png") for name in names if name.endswith("_img.png")}
    assert len(stems) == 2
    assert names == {f"{stem}_{end}.png" for stem in stems for end in ends}
    assert all(len(stem.split("_")[0]) == 6 for stem in stems)
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    for title in ("config sanity", "GT distribution", "prediction distribution", "metrics", "artifacts"):
        assert f"\n{title}\n---" in summary
    for source in ("recipe", "labels", "network"):
        assert f"classes of the {source}: 14" in summary
    assert "samples: 12 readable of 12 chosen, 12 in the split" in summary
    assert omma("eval", run) == 0
    metrics = json.loads((run / "eval" / "train" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert f"mIoU over the {metrics['classes']:g} classes with ground truth: {metrics['mIoU']:.4f}" in summary


def test_far_is_on_top_in_the_map_pictures(run, tmp_path):
    assert omma("diagnose", run, "--num-samples", 1, "--vis-num", 1, "--out", tmp_path) == 0
    picture = np.asarray(Image.open(next(tmp_path.glob("*_gt.png"))))
    ignored = (picture == IGNORED).all(-1)
    eighth = len(ignored) // 8
    assert ignored[-eighth:].mean() > 0.5 > ignored[:eighth].mean()


@pytest.mark.parametrize(
    ("bias", "title"), [(-5.0, "background on 100.0%"), (5.0, "drivable_area on 100.0%")]
)
def test_constant_predictor(copy, bias, title):
    """R24."""
    file = copy / "checkpoints" / "best" / "model.safetensors"
    with safetensors.safe_open(file, "pt") as stored:
        header = stored.metadata()
    weights = safetensors.torch.load_file(file)
    name = next(key for key in weights if key.endswith("classifier.bias"))
    weights[name].fill_(-5.0)
    weights[name][0] = bias
    weights[name.replace(".bias", ".weight")].zero_()
    safetensors.torch.save_file(weights, file, metadata=header)
    first = _diagnose(copy)[0]
    assert first["severity"] == "error"
    assert first["title"].startswith(f"collapsed prediction: {title}")


def test_labels_mirrored_left_to_right(copy, data, oracle):
    """LiDAR depths tell it; without them the predictions do."""
    for file in _labels(data):
        _change(file, lambda bits: bits[:, ::-1])
    first = _diagnose(copy, f"data.root={data}")[0]
    assert first["title"] == "the labels fit only when mirrored left to right"
    _without_depths(data)
    first = _diagnose(copy, f"data.root={data}")[0]
    assert first["title"].endswith("predictions fit only when mirrored left to right")


def test_labels_with_the_far_end_first(copy, data):
    """Without LiDAR depths the cells that the camera cannot see tell it."""
    for file in _labels(data):
        _change(file, lambda bits: bits[::-1])
    _without_depths(data)
    first = _diagnose(copy, f"data.root={data}")[0]
    assert first["title"].startswith("labels and calibration do not fit")


@pytest.mark.parametrize("damage", ["cut", "bit 15", "classes"])
def test_broken_label_files(copy, data, damage):
    for file in _labels(data):
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:60])
        elif damage == "bit 15":
            _change(file, lambda bits: bits | np.uint16(1 << 15))
        else:
            _change(file, lambda bits: bits.astype(np.uint8))
    findings = _diagnose(copy, f"data.root={data}", "--probe-only")
    assert findings[0]["severity"] == "error"
    said = findings[0]["title"] + findings[0]["evidence"]
    assert any(file.name in said for file in _labels(data))


def test_too_high_learning_rate(world, tmp_path):
    words = ["optim.lr=10", "schedule.warmup=0", "optim.grad_clip=null", "save.reference=false"]
    first = _diagnose(train(world, tmp_path, "diffbev/demo_baseline", "high", *words, smoke=5))[0]
    assert (first["severity"], first["title"]) == ("error", "the loss diverges")


def test_one_camera_is_chosen_by_its_token(run, tmp_path):
    """R25."""
    assert omma("diagnose", run, "--camera", "CAM_FRONT", "--vis-num", 0, "--out", tmp_path) == 0
    assert "samples: 2 readable of 2 chosen, 2 in the split" in (tmp_path / "summary.txt").read_text("utf-8")
