"""The main verbs on a run of G2-MonoDepth over a few procedural rooms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands import omma

import omma as package
from omma.cli import _run
from omma.runs.metrics import read_metrics
from omma.systems.g2_monodepth.convert import load_reference

pytestmark = pytest.mark.e2e
TINY = [
    "train.workers=0", "train.batch_size=2", "data.image_size=[32, 48]", "data.val_image_size=[32, 48]",
    "validate.batch_size=2", "system.network.layers=4", "system.network.features=8", "log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "rooms"
    words = ["--scenes", 2, "--val-scenes", 1, "--frames", 2, "--image-size", "48x64", "--workers", 1]
    assert omma("world", "rgbd-nyu", "--out", out, *words) == 0
    return out


@pytest.fixture(scope="module")
def run(rooms, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("실행 runs")
    words = ["--name", "first", "--smoke", 4, "--runs-dir", root, f"data.root={rooms}", *TINY]
    assert omma("train", "g2_monodepth/demo", *words, "save.reference=true") == 0
    return root / "first"


def test_loss_is_the_weighted_sum_of_its_terms(run):
    rows = [row for row in read_metrics(run / "metrics.csv") if row["phase"] == "train"]
    assert len(rows) == 4
    for row in rows:
        assert row["loss"] == pytest.approx(row["adepth"] + row["rdepth"] + 0.5 * row["rgrad"], rel=1e-5)


def test_validation_scores_every_pattern_alike_each_time(run):
    scores = []
    for _ in range(2):
        assert omma("eval", f"{run}@final") == 0
        about = json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))
        scores.append(about["metrics"])
    assert scores[0] == scores[1]
    assert {"rmse", "abs_rel", "delta1", "none/rmse", "uniform:1%/rmse", "full/rmse"} <= set(scores[0])
    assert scores[0]["images"] == 6


def test_prediction_is_metric_and_drawn(run, tmp_path):
    assert omma("predict", run, "--indices", "0-2", "--out", tmp_path) == 0
    assert np.asarray(Image.open(tmp_path / "sample_0002.png")).shape[2] == 3
    with np.load(tmp_path / "sample_0002.npz") as arrays:
        assert arrays["depth"].max() > 1.0
        assert (arrays["prediction"] >= 0).all()


def test_photos_of_ones_own_with_known_depth(run, rooms, tmp_path, capsys):
    photos = sorted((rooms / "val" / "rgb").glob("*.png"))
    points = tmp_path / "points.csv"
    points.write_text("u,v,depth\n3,4,2.5\n40.5,30,3\n", "utf-8")
    depth = rooms / "val" / "depth" / photos[1].name
    pairs = ["--input", photos[0], "--sparse", points, "--input", photos[1], "--sparse", depth]
    settings = ["--set", "data.units_per_metre=1000", "--set", "data.predict.keep_input=true"]
    assert omma("predict", run, *pairs, *settings, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "metric, 2 depths given" in printed
    assert "camera of the point cloud assumed" in printed
    for number in range(2):
        endings = (".png", ".npz", ".json", ".ply", "_depth_mm.png")
        assert all((tmp_path / "out" / f"sample_{number:04d}{ending}").is_file() for ending in endings)
    with np.load(tmp_path / "out" / "sample_0000.npz") as arrays:
        assert arrays["prediction"][0, 4, 3] == pytest.approx(2.5)
    stored = np.asarray(Image.open(tmp_path / "out" / "sample_0001_depth_mm.png"))
    true = np.asarray(Image.open(depth))
    assert np.abs(stored.astype(int) - true)[true > 0].max() <= 1
    assert not list((tmp_path / "out").glob("*.tmp*"))


def test_known_depth_that_does_not_fit_is_one_line(run, rooms, tmp_path, capfd):
    photo = sorted((rooms / "val" / "rgb").glob("*.png"))[0]
    np.save(tmp_path / "mm.npy", np.full((48, 64), 2500.0, np.float32))
    cases = {
        2: ["--input", photo, "--input", photo, "--sparse", "a.npz"],
        3: ["--input", photo, "--sparse", tmp_path / "mm.npy"],
    }
    for code, words in cases.items():
        words = ["predict", str(run), *map(str, words), "--out", str(tmp_path / "out")]
        assert _run(words, debug=False) == code
        message = capfd.readouterr().err.strip()
        assert len(message.splitlines()) <= 2
        assert ("do not pair up" if code == 2 else "factor 1000") in message
    assert not (tmp_path / "out").exists()


def test_training_file_holds_the_network_in_its_published_names(run):
    file = run / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    network = load_reference(content)
    batch = package.load(f"{run}@final").task.example_batch(1)
    ours = package.load(f"{run}@final").task.model
    inputs = (batch["rgb"].float() / 255, batch["point"], batch["hole_point"])
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), ours(*inputs))


def test_export_is_checked_against_torch(run):
    assert omma("export", run, "--format", "onnx") == 0
    check = json.loads((run / "export" / "model.check.json").read_text(encoding="utf-8"))
    assert check["max_abs_difference"] < 1e-5
    assert list(check["inputs"]) == ["rgb", "raw", "mask"]
