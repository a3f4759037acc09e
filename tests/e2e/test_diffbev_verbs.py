"""Every verb on runs of DiffBEV and its baseline over a small procedural data set."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.e2e.diffbev_runs import NARROW, TINY, make_world, omma, train
from tests.unit.diffbev_files import REAL, copy_real

import omma as package
from omma.runs.metrics import read_metrics
from omma.systems.diffbev.convert import load_reference
from omma.systems.recipes import open_recipe

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("data") / "world")


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("실행 runs")
    baseline = train(world, root, "diffbev/demo_baseline", "baseline")
    return baseline, train(world, root, "diffbev/demo", "diffbev", NARROW)


def _rows(run, phase):
    return [row for row in read_metrics(run / "metrics.csv") if row["phase"] == phase]


def test_loss_is_the_sum_of_its_weighted_terms(runs):
    baseline, diffbev = runs
    for row in _rows(diffbev, "train"):
        assert row["loss"] == pytest.approx(row["Lwce"] + row["Ldepth"] + row["Ldiff"], abs=1e-4)
        assert row["Ldepth"] == pytest.approx(10 * row["Ldepth_raw"], rel=1e-6)
    assert all(row["loss"] == row["Lwce"] for row in _rows(baseline, "train"))
    log = (diffbev / "log.txt").read_text(encoding="utf-8")
    assert "Ldepth x 10" in log
    assert "Ldiff off" in (baseline / "log.txt").read_text(encoding="utf-8")


def test_validation_has_every_class_and_run_the_names_of_the_runbook(runs):
    for run in runs:
        row = _rows(run, "val")[-1]
        assert {"mIoU", "IoU_drivable_area", "IoU_barrier", "mIoUv1", "mIoUv2"} <= set(row)
        for name in ("best_mIoU.pth", "latest.pth"):
            state = torch.load(run / name, weights_only=True)["state_dict"]
            assert "decode_head.classifier.weight" in state


def test_best_file_of_the_runbook_holds_the_best_weights(runs):
    baseline, _ = runs
    state = torch.load(baseline / "best_mIoU.pth", weights_only=True)["state_dict"]
    ours = package.load(f"{baseline}@best").task.model.state_dict()
    assert torch.equal(state["decode_head.classifier.weight"], ours["head.classifier.weight"])


def test_eval_repeats_the_validation_whatever_the_batch_size(runs):
    _, diffbev = runs
    scores = []
    for size in (1, 4):
        assert omma("eval", f"{diffbev}@final", f"validate.batch_size={size}") == 0
        about = json.loads((diffbev / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))
        scores.append(about["metrics"])
    assert _same(*scores)
    assert scores[0]["mIoU"] == pytest.approx(_rows(diffbev, "val")[-1]["mIoU"], rel=1e-5)
    assert "ignored: fov+occlusion" in about["setting"]


def _same(first, second):
    """Metrics agree; a class that is nowhere has none."""
    assert first.keys() == second.keys()
    known = [name for name, value in first.items() if value is not None]
    assert known == [name for name, value in second.items() if value is not None]
    return all(first[name] == pytest.approx(second[name], rel=1e-5) for name in known)


def test_saved_predictions_score_as_the_run_itself(runs, tmp_path):
    baseline, _ = runs
    assert omma("predict", baseline, "--indices", "all", "--out", tmp_path) == 0
    metrics = []
    for more in ([], ["--predictions", tmp_path]):
        assert omma("eval", baseline, *more) == 0
        about = json.loads((baseline / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))
        metrics.append(about["metrics"])
    assert _same(*metrics)


def test_runs_are_drawn_side_by_side(runs, tmp_path):
    baseline, diffbev = runs
    assert omma("predict", baseline, diffbev, "--indices", "0,5", "--out", tmp_path) == 0
    both = np.asarray(Image.open(tmp_path / "sample_0005.png"))
    assert omma("predict", baseline, "--indices", "5", "--out", tmp_path / "one") == 0
    one = np.asarray(Image.open(tmp_path / "one" / "sample_0005.png"))
    assert both.shape[1] > one.shape[1]


def test_prediction_takes_an_image_of_the_users_own(runs, world, tmp_path):
    baseline, _ = runs
    image = next((world / "img_dir" / "val").iterdir())
    shutil.copy(image, tmp_path / "own.png")
    matrix = json.loads((world / "calib.json").read_text(encoding="utf-8"))[image.stem]
    note = {"image": "own.png", "intrinsics": matrix}
    (tmp_path / "own.json").write_text(json.dumps(note), encoding="utf-8")
    assert omma("predict", baseline, "--input", tmp_path / "own.json", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "sample_0000.png").is_file()


@pytest.mark.skipif(not REAL.is_dir(), reason="data folder not present")
def test_real_keyframe_is_prepared_and_predicted(runs, tmp_path):
    _, diffbev = runs
    root = copy_real(tmp_path / "nuScenes")
    settings = ["split=train", "height=64", "width=96"]
    assert omma("prepare", "nuscenes-depth", f"root={root}", *settings) == 0
    assert len(list((root / "ann_bev_dir" / "train_depth").glob("*.npz"))) == 6
    assert omma("prepare", "nuscenes-bev-labels", f"root={root}", debug=False) == 3  # no map expansion
    words = ["--split", "train", "--set", f"data.root={tmp_path / 'nuscenes'}", "--indices", "0-5"]
    with pytest.warns(UserWarning, match="letter case"):
        assert omma("predict", diffbev, *words, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_any_number_of_denoising_steps_runs(runs, steps):
    _, diffbev = runs
    words = {"system.diffusion.sample_steps": steps}
    arrays = package.load(diffbev, **words).predict(0).arrays
    assert np.isfinite(arrays["logits"]).all()


@pytest.mark.parametrize(
    ("which", "inputs"), [(0, ["img", "intrinsics"]), (1, ["img", "intrinsics", "noise"])]
)
def test_export_is_checked_against_torch(runs, which, inputs):
    run = runs[which]
    for format in ("onnx", "pt2"):
        assert omma("export", run, "--format", format) == 0
        check = json.loads((run / "export" / "model.check.json").read_text(encoding="utf-8"))
        assert check["max_abs_difference"] < 1e-4
    assert list(check["inputs"]) == inputs


def test_reference_file_goes_out_and_comes_back(runs, tmp_path):
    baseline, _ = runs
    file = tmp_path / "iter_4.pth"
    assert omma("export", baseline, "--format", "reference", "--out", file) == 0
    network = load_reference(torch.load(file, weights_only=True))
    batch = package.load(baseline).task.example_batch(1)
    assert network((batch["image"].float() - 120) / 58, batch["intrinsics"]).shape == (1, 14, 98, 100)
    words = [word for word in TINY if not word.startswith(("train", "log", "validate"))]
    out = tmp_path / "imported"
    assert omma("import", "diffbev", file, "--recipe", "diffbev/demo_baseline", "--out", out, *words) == 0
    ours, theirs = package.load(baseline).task.state_dict(), package.load(out).task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_diffusion_starts_at_the_baseline(world):
    """Acceptance 6: the gain of the fusion is zero before the first step."""
    words = [*TINY, f"data.root={world}"]
    tasks = [_task(recipe, words) for recipe in ("diffbev/demo_baseline", "diffbev/demo")]
    shared = tasks[0].model.state_dict()
    tasks[1].model.load_state_dict(shared, strict=False)
    batch = tasks[0].example_batch(2)
    with torch.no_grad():
        torch.testing.assert_close(tasks[0].eval()(batch), tasks[1].eval()(batch), rtol=0, atol=0)


def _task(recipe, words):
    found = open_recipe(recipe, words)
    return found.system.load(found.system.task)(found.config)


def test_noise_of_a_sample_depends_on_neither_batch_nor_order(runs, world):
    _, diffbev = runs
    task = package.load(diffbev).task.eval()
    batch = task.example_batch(3)
    turned = {key: value.flip(0) if torch.is_tensor(value) else value[::-1] for key, value in batch.items()}
    with torch.no_grad():
        straight, back = task(batch), task(turned).flip(0)
    torch.testing.assert_close(straight, back, rtol=1e-4, atol=1e-5)


def test_stopped_and_resumed_run_has_the_same_weights(world, tmp_path):
    whole = train(world, tmp_path, "diffbev/demo", "whole", NARROW, "save.every=1")
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    for folder in (part / "checkpoints").iterdir():
        if folder.is_dir() and folder.name != "step_000002":
            shutil.rmtree(folder)
    (part / "checkpoints" / "last.txt").write_text("step_000002\n", encoding="utf-8")
    status = json.loads((part / "status.json").read_text(encoding="utf-8"))
    (part / "status.json").write_text(json.dumps(status | {"state": "preempted"}), encoding="utf-8")
    assert omma("resume", part, "train.length=4") == 0
    first, second = (package.load(f"{run}@final").task.state_dict() for run in (whole, part))
    assert all(torch.equal(first[name], second[name]) for name in first)
