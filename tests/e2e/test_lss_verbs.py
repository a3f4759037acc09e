"""Every verb on a run of Lift-Splat-Shoot over a small procedural data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands import omma
from tests.e2e.conftest import TINY

import omma as package
from omma.cli import _run
from omma.config.load import hash_config
from omma.runs.metrics import read_metrics
from omma.systems.lss.convert import load_reference
from omma.systems.recipes import open_recipe

pytestmark = pytest.mark.e2e


def test_training_leaves_a_whole_run_folder(run):
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["step"]) == ("finished", 4)
    for name in (
        "config.yaml",
        "command.txt",
        "provenance.json",
        "data.json",
        "log.txt",
        "report.html",
        "vis",
    ):
        assert (run / name).exists(), name
    checkpoints = {folder.name for folder in (run / "checkpoints").iterdir() if folder.is_dir()}
    assert {"best", "final", "step_000004"} <= checkpoints
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if row["phase"] == "val"] == [2, 4]
    assert not [path for path in run.rglob("*") if path.is_symlink()]


def test_config_of_a_run_trains_the_same_again(run):
    """E7."""
    again = open_recipe(str(run))
    assert hash_config(again.config) == hash_config(open_recipe(str(run / "config.yaml")).config)


def test_eval_writes_metrics_that_the_validation_during_training_had(run):
    assert omma("eval", run, "--study", "robustness") == 0
    folder = run / "eval" / "val"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    best = json.loads((run / "status.json").read_text(encoding="utf-8"))["best"]
    row = next(
        r for r in read_metrics(run / "metrics.csv") if r["phase"] == "val" and r["step"] == best["step"]
    )
    assert metrics["iou"] == pytest.approx(row["iou"], abs=1e-12)
    assert metrics["loss"] == pytest.approx(row["loss"], rel=1e-6)
    assert len((folder / "per_sample.csv").read_text(encoding="utf-8").splitlines()) == 3
    drop = json.loads((folder / "studies" / "drop_camera.json").read_text(encoding="utf-8"))
    assert len(drop["x"]) == len(drop["series"]["iou"]) == 7


def test_saved_predictions_score_as_the_run_itself(run, tmp_path):
    assert omma("predict", run, "--indices", "all", "--out", tmp_path) == 0
    assert omma("eval", run) == 0
    direct = json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert omma("eval", run, "--predictions", tmp_path) == 0
    scored = json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert scored == pytest.approx(direct, rel=1e-6)
    (tmp_path / "sample_0001.npz").unlink()
    assert _run(["eval", str(run), "--predictions", str(tmp_path)], debug=False) == 3


def test_predict_draws_runs_side_by_side_and_a_video(run, tmp_path):
    video = tmp_path / "scene.gif"
    assert omma("predict", run, f"{run}@final", "--indices", "0-1", "--out", tmp_path, "--video", video) == 0
    one = np.asarray(Image.open(tmp_path / "sample_0000.png"))
    assert one.shape[2] == 3
    assert {p.name for p in tmp_path.glob("sample_0000_*.npz")} == {
        "sample_0000_first.npz",
        "sample_0000_first@final.npz",
    }
    assert Image.open(video).n_frames == 2


def test_predict_takes_a_file_of_the_users_own(run, world, tmp_path):
    file = next((world / "val").rglob("meta.json"))
    assert omma("predict", run, "--input", file, "--out", tmp_path) == 0
    assert (tmp_path / "sample_0000.png").is_file()


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_export_is_checked_against_torch(run, format):
    assert omma("export", run, "--format", format) == 0
    check = json.loads((run / "export" / "model.check.json").read_text(encoding="utf-8"))
    assert check["max_abs_difference"] < 1e-5
    assert next(iter(check["inputs"])) == "imgs"


@pytest.fixture(scope="module")
def reference_run(world, tmp_path_factory) -> Path:
    """A run with the published backbone, whose weights the original format can hold."""
    root = tmp_path_factory.mktemp("reference")
    words = [f"data.root={world}", *TINY, "system.backbone=tf_efficientnet_b0", "save.reference=true"]
    assert omma("train", "lss/demo", "--name", "b0", "--smoke", 2, "--runs-dir", root, *words) == 0
    return root / "b0"


def test_reference_file_goes_out_and_comes_back(reference_run, tmp_path):
    file = tmp_path / "model_best.pt"
    assert omma("export", reference_run, "--format", "reference", "--out", file) == 0
    state = torch.load(file, weights_only=True)
    assert load_reference(state).grid.nx == (16, 16, 1)
    out = tmp_path / "imported"
    words = [word for word in TINY if not word.startswith(("train", "log"))]
    settings = ["--recipe", "lss/demo", "--out", out, *words, "system.backbone=tf_efficientnet_b0"]
    assert omma("import", "lss", file, *settings) == 0
    ours, theirs = package.load(reference_run).task.state_dict(), package.load(out).task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_files_have_the_guides_names_and_are_continued_exactly(reference_run, world, tmp_path):
    """R21, R22, R30 to R32: straight training = the original's file, continued."""
    names = {file.name for file in reference_run.glob("model_*.pt")}
    assert {"model_000001.pt", "model_000002.pt", "model_best.pt", "model_final.pt"} <= names
    saved = torch.load(reference_run / "model_000001.pt", weights_only=True)
    assert saved["counter"] == 1
    words = [
        f"data.root={world}",
        *TINY,
        "system.backbone=tf_efficientnet_b0",
        "train.length=2",
        "save.every=1",
    ]
    resume = ["--resume", reference_run / "model_000001.pt", "--logdir", tmp_path / "again"]
    assert omma("train", "lss/demo", *resume, *words, "schedule.warmup=1", "validate.every=1") == 0
    rows = [r for r in read_metrics(tmp_path / "again" / "metrics.csv") if r["phase"] == "val"]
    assert [row["step"] for row in rows] == [2]
    straight = torch.load(reference_run / "model_000002.pt", weights_only=True)["model_state_dict"]
    again = package.load(f"{tmp_path / 'again'}@step_2").task.model.state_dict()
    assert torch.equal(straight["bevencode.conv1.weight"], again["bevencode.conv1.weight"])


def test_sweep_makes_a_table_and_does_not_repeat_finished_runs(world, tmp_path):
    words = ["lss/demo", f"data.root={world}", *TINY, "optim.lr=1e-3,1e-4", "--name", "grid", "--smoke", 1]
    assert omma("sweep", *words, "--runs-dir", tmp_path) == 0
    table = (tmp_path / "grid.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 3
    before = (tmp_path / "grid-1" / "log.txt").read_bytes()
    assert omma("sweep", *words, "--runs-dir", tmp_path) == 0
    assert (tmp_path / "grid-1" / "log.txt").read_bytes() == before


def test_bench_splits_the_step(world, tmp_path):
    file = tmp_path / "bench.json"
    assert omma("bench", "lss/demo", f"data.root={world}", *TINY, "--steps", 3, "--json", file) == 0
    parts = json.loads(file.read_text(encoding="utf-8"))["ms"]
    assert set(parts) == {"data", "forward", "backward", "optimiser", "step"}


def test_overfit_uses_the_same_samples_for_both(world, tmp_path):
    words = [f"data.root={world}", *TINY, "train.length=2", "--overfit", "2", "--runs-dir", tmp_path]
    assert omma("train", "lss/demo", "--name", "few", *words) == 0
    data = json.loads((tmp_path / "few" / "data.json").read_text(encoding="utf-8"))
    assert data["train"]["num_samples"] == data["val"]["num_samples"] == 2


def test_weights_of_another_run_start_a_training(run, world, tmp_path):
    words = [f"data.root={world}", *TINY, "train.length=1", "--init", run, "--runs-dir", tmp_path]
    assert omma("train", "lss/demo", "--name", "second", *words) == 0
    assert "weights from" in (tmp_path / "second" / "log.txt").read_text(encoding="utf-8")


def test_python_interface(run):
    model = package.load(run)
    picture = model.predict(0).draw()
    assert picture.dtype == np.uint8
    assert package.evaluate(run).metrics["iou"] >= 0


def test_runs_status_and_report(run, capsys):
    assert omma("runs", run.parent) == 0
    assert "finished" in capsys.readouterr().out
    assert omma("status", run) == 0
    assert "step 4/4" in capsys.readouterr().out
    assert omma("report", run) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "first" in page


def test_a_used_name_is_refused_and_overwrite_keeps_the_old_run(run, world, tmp_path):
    shutil.copytree(run, tmp_path / "first")
    words = [
        "train",
        "lss/demo",
        "--name",
        "first",
        "--smoke",
        "1",
        "--runs-dir",
        str(tmp_path),
        f"data.root={world}",
    ]
    assert _run([*words, *TINY], debug=False) == 2
    assert _run([*words, *TINY, "--overwrite"], debug=False) == 0
    assert len(list(tmp_path.glob("first.old-*"))) == 1


def test_doctor_passes_a_good_data_set_and_names_inverted_extrinsics(world, tmp_path, capsys):
    words = ["doctor", "lss/demo", f"data.root={world}", *TINY, "--out", str(tmp_path)]
    assert _run(words, debug=False) == 0
    assert list(tmp_path.glob("*.png"))
    assert _run([*words, "data.invert_extrinsics=true"], debug=False) == 3
    assert "extrinsics" in capsys.readouterr().err
