"""The main verbs on a run of SDPose over a few drawn people."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands import omma
from tests.fake_runs import fake_run
from tests.unit import coco_files as files

import omma as package
from omma.cli import _run
from omma.core.coco_eval import NUMBERS
from omma.core.keypoints import JOINTS
from omma.runs.metrics import read_metrics
from omma.systems.sdpose.convert import load_reference

pytestmark = pytest.mark.e2e
SYSTEM = ["system.dim=24", "system.depth=2", "system.heads=2", "data.image_size=[64, 48]"]
TINY = [*SYSTEM, "train.workers=0", "train.batch_size=2", "train.device=cpu", "log.tensorboard=false"]
RESULTS = "result_keypoints.json"


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return files.write_set(tmp_path_factory.mktemp("data") / "사람 people")


@pytest.fixture(scope="module")
def run(people, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("실행 runs")
    words = ["--name", "first", "--smoke", 4, "--runs-dir", root, f"data.root={people}", *TINY]
    assert omma("train", "sdpose/s_v1", *words, "save.reference=true") == 0
    return root / "first"


def _evaluated(run: Path) -> tuple[dict[str, float], list[dict]]:
    folder = run / "eval" / "val"
    about = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert "annotated boxes" in about["setting"]
    assert about["scored_by"] == {"data.boxes": "ground_truth"}
    return about["metrics"], json.loads((folder / RESULTS).read_text(encoding="utf-8"))


def test_loss_is_the_sum_of_its_terms(run):
    rows = [row for row in read_metrics(run / "metrics.csv") if row["phase"] == "train"]
    assert len(rows) == 4
    for row in rows:
        parts = row["heatmap_loss"] + row["vis_dist_loss"] + row["kpt_dist_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
        assert min(row["heatmap_loss"], row["vis_dist_loss"], row["kpt_dist_loss"]) > 0


def test_evaluation_gives_the_same_ten_numbers_each_time(run, capsys):
    found = []
    for _ in range(2):
        assert omma("eval", f"{run}@final") == 0
        found.append(_evaluated(run))
    assert str(found[0]) == str(found[1])  # as text, as NaN equals NaN
    assert set(NUMBERS) <= set(found[0][0])
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in NUMBERS)


def _coco_numbers(annotations: Path, results: Path) -> list[float]:
    """As anyone would compute them from the two files."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value >= 0 else float("nan") for value in evaluation.stats]


def test_boxes_of_two_sources_are_not_compared(tmp_path, capsys):
    annotated = fake_run(tmp_path, "annotated", system="sdpose", boxes="ground_truth")
    detected = fake_run(tmp_path, "detected", system="sdpose", boxes="detector.json")
    words = ["compare", annotated.path, detected.path, "--out", tmp_path / "out"]
    assert _run([str(word) for word in words], debug=False) == 2
    said = capsys.readouterr().err
    assert "data.boxes=ground_truth" in said
    assert "omma eval detected data.boxes=ground_truth" in said
    evaluation = detected.path / "eval" / "val" / "metrics.json"
    about = json.loads(evaluation.read_text(encoding="utf-8"))
    evaluation.write_text(json.dumps(about | {"scored_by": {"data.boxes": "ground_truth"}}), encoding="utf-8")
    assert omma(*words) == 0


def test_saved_people_are_scored_and_written_as_coco_has_them(run, people, tmp_path):
    """Two of three people where they are, one elsewhere: COCO's tool finds the same numbers in the file."""
    assert omma("predict", f"{run}@final", "--indices", "0-2", "--out", tmp_path) == 0
    truth = {annotation["id"]: annotation for annotation in files.three_people()}
    for index, number in enumerate((12, 11, 13)):
        file = tmp_path / f"sample_{index:04d}.npz"
        with np.load(file) as arrays:
            saved = dict(arrays)
        joints = np.array(truth[number]["keypoints"]).reshape(-1, 3)
        saved["joints"] = joints[:, :2] + (60 if index == 2 else 0)
        saved["scores"] = np.full(len(JOINTS), 0.9)
        np.savez(file, **saved)
    assert omma("eval", f"{run}@final", "--predictions", tmp_path) == 0
    metrics, results = _evaluated(run)
    assert {result["image_id"] for result in results} == {3, 7}
    expected = _coco_numbers(
        people / "annotations" / "person_keypoints_val2017.json", run / "eval" / "val" / RESULTS
    )
    found = np.array([metrics[name] for name in NUMBERS], np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert 0.5 < metrics["AP"] < 1
    assert metrics["AR"] == pytest.approx(2 / 3)


def test_prediction_is_drawn_and_kept(run, tmp_path):
    assert omma("predict", f"{run}@final", "--indices", "0-1", "--out", tmp_path) == 0
    picture = np.asarray(Image.open(tmp_path / "sample_0001.png"))
    assert picture.shape[2] == 3
    assert picture.std() > 20
    with np.load(tmp_path / "sample_0001.npz") as arrays:
        assert arrays["joints"].shape == (len(JOINTS), 2)
        assert np.isfinite(arrays["joints"]).all()
        assert arrays["scores"].shape == (len(JOINTS),)


def test_people_in_a_photo_of_ones_own(run, tmp_path):
    """As many people as boxes; their joints are in pixels of the photo."""
    photo = files.write_photo(tmp_path / "거리.jpg", files.photo(5))
    boxes = [[10, 10, 40, 90], [90, 20, 50, 80]]
    files.write_json(tmp_path / "거리.json", {"boxes": boxes})
    assert omma("predict", f"{run}@final", "--input", photo, "--out", tmp_path / "out") == 0
    drawn = sorted(file.name for file in (tmp_path / "out").glob("*.png"))
    assert drawn == ["sample_0000.png", "sample_0001.png"]
    for index, (x, y, width, height) in enumerate(boxes):
        with np.load(tmp_path / "out" / f"sample_{index:04d}.npz") as arrays:
            assert "true_in_crop" not in arrays
            found = arrays["joints"][arrays["scores"] > 0]
            assert arrays["box"].tolist() == boxes[index]
        assert len(found) > 0
        assert (np.abs(found - (x + width / 2, y + height / 2)) < 1.3 * max(width, height)).all()


def test_export_is_checked_against_torch(run):
    assert omma("export", f"{run}@final", "--format", "onnx") == 0
    check = json.loads((run / "export" / "model.check.json").read_text(encoding="utf-8"))
    assert check["max_abs_difference"] < 1e-5


def test_training_file_holds_the_network_in_its_published_names(run):
    content = torch.load(run / "latest.pth", weights_only=True)
    assert set(content) == {"meta", "state_dict", "optimizer"}
    task = package.load(f"{run}@final").task
    network = load_reference(content["state_dict"], heads=2)
    image = task.example_inputs()[0]
    with torch.no_grad():
        torch.testing.assert_close(network(image), task.model(image))


def test_a_file_of_the_original_becomes_a_run(run, people, tmp_path):
    """With prefixes of a wrapper and nothing but weights; scores are those of the run that it came from."""
    weights = torch.load(run / "latest.pth", weights_only=True)["state_dict"]
    file = tmp_path / "sdpose_s_v1.pth"
    torch.save({"meta": {}, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, file)
    words = ["--recipe", "sdpose/s_v1", "--out", tmp_path / "imported", f"data.root={people}", *TINY]
    assert omma("import", "sdpose", file, *words) == 0
    for name in (tmp_path / "imported", f"{run}@final"):
        assert omma("eval", name) == 0
    assert str(_evaluated(tmp_path / "imported")) == str(_evaluated(run))
