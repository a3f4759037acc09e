"""Wrong people and settings of SDPose: one clear line with the place and the remedy, and the exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commands import user_omma as omma
from tests.unit import coco_files as files

pytestmark = pytest.mark.e2e
TINY = [
    "system.dim=24", "system.depth=1", "system.heads=2", "data.image_size=[64, 48]", "train.workers=0",
    "train.batch_size=2", "train.device=cpu", "log.tensorboard=false",
]  # fmt: skip
FIRST = "000000000003.jpg"


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    """The machine's own check imports every package anew, and reports are not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omma.commands.doctor.check_environment", lambda root: [])
        patch.setattr("omma.commands.train._finish", lambda run, recipe, console: None)
        yield


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return files.write_set(tmp_path_factory.mktemp("data") / "people")


@pytest.fixture
def broken(people, tmp_path) -> Path:
    """A copy of the set to damage."""
    return Path(shutil.copytree(people, tmp_path / "data"))


def _train(root: Path, runs: Path, *words: object, recipe: str = "sdpose/s_v1") -> int:
    settings = [f"data.root={root}", *TINY, *words]
    return omma("train", recipe, "--name", "x", "--smoke", 1, "--runs-dir", runs, *settings)


def _annotations(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"person_keypoints_{split}2017.json"


def _change(root: Path, edit: Callable[[list[dict[str, Any]]], None], split: str = "train") -> None:
    value = json.loads(_annotations(root, split).read_text(encoding="utf-8"))
    edit(value["annotations"])
    files.write_json(_annotations(root, split), value)


def _without_keypoints(root: Path) -> list[str]:
    _change(root, lambda people: [one.pop("keypoints") for one in people])
    return ["none of its 5 annotations has keypoints", "person_keypoints_*.json, not instances_*.json"]


def _wrong_count(root: Path) -> list[str]:
    _change(root, lambda people: people[0].update(keypoints=[1, 2, 2] * 14))
    return ["annotation 11: keypoints has 42 numbers, expected 51", "only COCO's 17 joints"]


def _text_for_numbers(root: Path) -> list[str]:
    _change(root, lambda people: people[1].update(bbox=["a", 1, 2, 3]))
    return ["annotation 12: bbox is ['a', 1, 2, 3], expected 4 finite numbers"]


def _all_boxes_outside(root: Path) -> list[str]:
    _change(root, lambda people: [one.update(bbox=[500, 500, 20, 20]) for one in people])
    return ["nobody in it has joints, a box in the image and an area above 0"]


def _unlisted_image(root: Path) -> list[str]:
    _change(root, lambda people: people[0].update(image_id=99))
    return ["1 annotations are of images that it does not list, first annotation 11 of image 99"]


def _no_file(root: Path) -> list[str]:
    (root / "train2017" / FIRST).unlink()
    return [f"1 of 2 images of people are not there, first {FIRST} (image 3)", "load or unpack the photos"]


def _no_folder(root: Path) -> list[str]:
    shutil.rmtree(root / "train2017")
    return [f"{root / 'train2017'}: no such folder", "person_keypoints_train2017.json belong there"]


def _no_annotations(root: Path) -> list[str]:
    _annotations(root, "val").unlink()
    return [f"{_annotations(root, 'val')}: no such file", "person_keypoints_train2017.json"]


def _cut_photo(root: Path) -> list[str]:
    for photo in (root / "train2017").iterdir():
        photo.write_bytes(photo.read_bytes()[:400])
    return ["train2017", "token 0000000000"]


def _two_of_one_id(root: Path) -> list[str]:
    _change(root, lambda people: people[0].update(id=12))
    return ["annotation id 12 is there 2 times"]


def _no_area(root: Path) -> list[str]:
    _change(root, lambda people: people[0].pop("area"), "val")
    return ["1 people have no area, first annotation 11", "OKS and so AP need it"]


def _damaged_json(root: Path) -> list[str]:
    _annotations(root).write_text(_annotations(root).read_text(encoding="utf-8")[:100], encoding="utf-8")
    return [_annotations(root).name]


def _a_list(root: Path) -> list[str]:
    files.write_json(_annotations(root), [])
    return ["holds list, expected images and annotations", "give it as data.boxes"]


DAMAGES = [
    _without_keypoints, _wrong_count, _text_for_numbers, _all_boxes_outside, _unlisted_image, _no_file,
    _no_folder, _no_annotations, _cut_photo, _two_of_one_id, _no_area, _damaged_json, _a_list,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_data_set(broken, tmp_path, capsys, damage):
    texts = damage(broken)
    assert _train(broken, tmp_path / "runs") == 3
    error = capsys.readouterr().err
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    for text in texts:
        assert text in error
    assert "Traceback" not in error


BOX = (1, 1, 20, 40)
DETECTORS = {
    "another set": ([files.detection(99, BOX, 0.9)], "does not list, first image 99"),
    "no person": ([files.detection(3, BOX, 0.9, 18)], "no box of category 1, person; categories: 18"),
    "no score": ([{"image_id": 3, "category_id": 1, "bbox": [1, 1, 20, 40]}], "box 0: score is missing"),
    "low scores": ([files.detection(3, BOX, 0.1)], "none of its 1 boxes of people has a score of 0.5"),
    "annotations": ({"images": []}, "holds dict, expected a list of"),
}  # fmt: skip


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_file_that_does_not_fit(broken, tmp_path, capsys, name):
    content, text = DETECTORS[name]
    files.write_json(broken / "boxes.json", content)
    assert _train(broken, tmp_path / "runs", "data.boxes=boxes.json", "data.box_score=0.5") == 3
    error = capsys.readouterr().err
    assert text in error
    assert "boxes.json" in error
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["data.imagesize=[64, 48]"], 2, ["data.imagesize", "did you mean data.image_size"]),
        (["system.distill.mask_ration=0.3"], 2, ["system.distill.mask_ratio"]),
        (["system.distill.mask_ratio=1"], 2, ["system.distill.mask_ratio", "less than 1"]),
        (["system.distill.loss=maskd"], 2, ["system.distill.loss", "masked"]),
        (["data.image_size=[60, 48]"], 2, ["height 60 is not a multiple of 16"]),
        (["system.heads=5"], 2, ["system.dim 24 is not a multiple of system.heads 5"]),
        (["system.distill.visual.importance=peak"], 2, ["visual tokens have no peak", "attention or norm"]),
        (["data.root=nowhere"], 3, ["nowhere: no such folder (data.root)"]),
        (["data.boxes=nowhere.json"], 3, ["nowhere.json: no such file (data.boxes)"]),
        (["data.val_split=test"], 3, ["person_keypoints_test2017.json: no such file"]),
        (["train.batch_size=64"], 3, ["3 samples, fewer than the 64"]),
        (["--samples-per-gpus", "2"], 2, ["--samples-per-gpus: no such option", "--samples-per-gpu"]),
        (["--autoscale-lr"], 2, ["--autoscale-lr: the rate stays as given", "leave --autoscale-lr out"]),
        (["--resume-from", "a.pth", "--load-from", "b.pth"], 2, ["--init b.pth and --resume a.pth exclude"]),
        (["--resume", "a", "--init", "b"], 2, ["--init b and --resume a exclude", "give one of them"]),
        (["--load-from", "nowhere.pth"], 2, ["nowhere.pth: no such run"]),
    ],
)
def test_settings_that_cannot_work(people, tmp_path, capsys, words, code, texts):
    assert _train(people, tmp_path / "runs", *words) == code
    error = capsys.readouterr().err
    for text in texts:
        assert text in error
    assert "Traceback" not in error


def test_crowds_in_runs_of_lengths_and_boxes_over_the_edge_are_accepted(broken, tmp_path, capsys):
    """One box sticks out of its image: it is cut off there; one lies outside: its person is left out."""

    def edit(people: list[dict[str, Any]]) -> None:
        people[0]["bbox"] = [130, 20, 90, 90]
        people[2]["bbox"] = [400, 30, 30, 80]

    _change(broken, edit)
    assert any(one["iscrowd"] for one in json.loads(_annotations(broken).read_text("utf-8"))["annotations"])
    assert _train(broken, tmp_path / "runs") == 0
    assert "data: 2 training and 3 validation samples" in capsys.readouterr().out
    assert omma("doctor", "sdpose/s_v1", f"data.root={broken}", *TINY) == 3
    assert "ERROR    train: 2 of 3 boxes lie outside their images" in capsys.readouterr().out


def test_doctor_of_a_sound_set_and_of_a_planned_training(people, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMMA_RUNS", str(tmp_path / "runs"))
    words = [f"data.root={people}", *TINY, "data.val_split=val"]
    code = omma("doctor", "sdpose/fast", *words, "--out", tmp_path / "out", "--name", "new")
    said = capsys.readouterr().out
    assert "images of val are in train too" in said  # the drawn set has the same photos twice
    assert code == 3
    assert f"{tmp_path / 'runs' / 'new'} is a new run" in said
    assert "training of 100 epochs" in said
    assert "the planned checkpoints fit the disk" in said
    assert "a batch of 2 fits the memory" in said
    assert (tmp_path / "out" / "sdpose_crops.png").is_file()
    (tmp_path / "runs" / "new").mkdir(parents=True)
    (tmp_path / "runs" / "new" / "a").write_text("", encoding="utf-8")
    more = [
        "--exp-name",
        "new",
        "train.length=10 epochs",
        "train.batch_size=3000000",
        "--load-from",
        "nowhere",
    ]
    assert omma("doctor", "sdpose/fast", *words, *more) == 3
    said = capsys.readouterr().out
    for text in (
        "new is in use by an earlier run",
        "--init nowhere cannot be used",
        "fewer than the 3000000 of one step",
        "2 of 2 steps of the learning rate lie beyond the training",
        "a batch of 3000000 does not fit the memory",
    ):
        assert text in said


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(people, tmp_path, capsys):
    words = ["optim.lr=1e30", "optim.name=sgd", "save.every=1", "schedule.name=constant", "train.length=20"]
    settings = [f"data.root={people}", *TINY, *words]
    assert omma("train", "sdpose/s_v1", "--name", "y", "--runs-dir", tmp_path, *settings) == 5
    error = capsys.readouterr().err
    assert "is not finite at step 2" in error
    assert f"the last good checkpoint is {tmp_path / 'y' / 'checkpoints' / 'step_000001'}" in error


@pytest.fixture(scope="module")
def run(people, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert _train(people, root) == 0
    return root / "x"


def test_diagnose_names_people_with_swapped_labels(run, broken):
    def swap(people: list[dict[str, Any]]) -> None:
        for one in people:
            joints = [one["keypoints"][3 * place : 3 * place + 3] for place in range(17)]
            order = [0, *(place + 1 if place % 2 else place - 1 for place in range(1, 17))]
            one["keypoints"] = [value for place in order for value in joints[place]]

    _change(broken, swap, "val")
    assert omma("diagnose", run, "--vis-num", 1, f"data.root={broken}") == 0
    found = json.loads((run / "diagnose" / "findings.json").read_text(encoding="utf-8"))
    titles = [one["title"] for one in found]
    assert "the labels of 3 people look mirrored" in titles
    assert found[titles.index("the labels of 3 people look mirrored")]["severity"] == "warning"
    summary = (run / "diagnose" / "summary.txt").read_text(encoding="utf-8")
    for title in ("config sanity", "GT distribution", "prediction distribution", "metrics", "loss terms"):
        assert f"\n{title}\n---" in summary
    for name in ("peaks.png", "joints.png"):
        assert (run / "diagnose" / name).is_file()


def test_each_cycle_is_measured(run, capsys):
    assert omma("eval", run, "--study", "cycles") == 0
    assert "PCK@0.1 of each cycle: 1: " in capsys.readouterr().out
    curve = json.loads((run / "eval" / "val" / "studies" / "cycles.json").read_text(encoding="utf-8"))
    assert curve["x"] == [1, 2, 3]
