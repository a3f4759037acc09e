"""Real COCO photos: training, annotated against detected boxes, result files in COCO's tool, comparison."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.commands import omma
from tests.unit import coco_files as files

from omma.cli import _run
from omma.core.coco_eval import NUMBERS
from omma.runs.metrics import read_metrics

pytestmark = pytest.mark.e2e
SMALL = [
    "data.image_size=[64, 48]", "system.dim=48", "system.depth=2", "system.heads=2", "train.length=20",
    "train.batch_size=6", "train.workers=0", "train.device=cpu", "schedule.warmup=5", "validate.every=20",
    "save.every=20", "save.reference=false", "log.every=1", "log.tensorboard=false",
]  # fmt: skip
ANNOTATIONS = "annotations/person_keypoints_val2017.json"
DETECTED_IMAGES = {785, 40083, 196141, 197388}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return Path(shutil.copytree(files.real(), tmp_path_factory.mktemp("data") / "coco"))


@pytest.fixture(scope="module")
def run(coco, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omma.commands.train._finish", lambda *args: None)  # a report takes longer than this
        words = ["--name", "real", "--runs-dir", root, f"data.root={coco}", *SMALL]
        assert omma("train", "sdpose/s_v1", *words) == 0
    return root / "real"


def _evaluate(run: Path, *words: str) -> dict[str, object]:
    assert omma("eval", f"{run}@final", *words) == 0
    return json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))


def _coco_numbers(coco: Path, results: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco / ANNOTATIONS))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value >= 0 else float("nan") for value in evaluation.stats]


def test_a_few_steps_lower_the_loss(run):
    losses = [row["loss"] for row in read_metrics(run / "metrics.csv") if row["phase"] == "train"]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("boxes", ["ground_truth", files.DETECTIONS])
def test_numbers_say_which_boxes_and_are_those_of_cocos_tool(run, coco, boxes):
    """All images of the annotation file count, also those that the detector has not seen."""
    about = _evaluate(run, f"data.boxes={boxes}")
    detected = boxes != "ground_truth"
    assert about["setting"].startswith(f"detector's boxes {boxes}" if detected else "annotated boxes")
    annotated = json.loads((coco / ANNOTATIONS).read_text(encoding="utf-8"))["annotations"]
    labelled = [one for one in annotated if one["num_keypoints"] and not one["iscrowd"]]
    assert about["samples"] == (118 if detected else len(labelled))
    file = run / "eval" / "val" / "result_keypoints.json"
    people = json.loads(file.read_text(encoding="utf-8"))
    assert 0 < len(people) <= about["samples"]
    assert all(len(person["keypoints"]) == 51 and person["category_id"] == 1 for person in people)
    images = {person["image_id"] for person in people}
    assert images == (DETECTED_IMAGES if detected else {one["image_id"] for one in labelled})
    found = np.array([about["metrics"][name] for name in NUMBERS], np.float64)
    np.testing.assert_allclose(found, _coco_numbers(coco, file), rtol=1e-9)


def test_numbers_of_other_boxes_are_not_compared(run, tmp_path, coco, capsys):
    other = Path(shutil.copytree(run, tmp_path / "detected"))
    _evaluate(run, "data.boxes=ground_truth")
    _evaluate(other, f"data.boxes={files.DETECTIONS}")
    capsys.readouterr()
    words = [str(word) for word in ("compare", run, other, "--out", tmp_path / "out")]
    assert _run(words, debug=False) == 2
    said = capsys.readouterr().err
    assert f"data.boxes=ground_truth, detected with data.boxes={files.DETECTIONS}" in said
    assert "omma eval detected data.boxes=ground_truth" in said
    assert not (tmp_path / "out").exists()
