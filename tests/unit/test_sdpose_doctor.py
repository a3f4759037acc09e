"""The doctor of people's annotations and of a planned training: each mistake is named, sound data pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import (
    DETECTIONS,
    PHOTO,
    config,
    content,
    detection,
    joints_of,
    person,
    photo,
    real,
    write_json,
    write_photo,
    write_split,
)
from PIL import Image

from omma.commands.flags import place_of, read_words
from omma.core.keypoints import FLIP_PAIRS
from omma.doctor.plan import Plan, check_disk, check_memory, check_plan
from omma.engine.estimate import MemoryEstimate
from omma.errors import Finding, UsageError
from omma.systems import get
from omma.systems.recipes import open_recipe
from omma.systems.sdpose import doctor

Records = list[dict[str, Any]]
BOXES = [(10, 20, 40, 90), (90, 30, 30, 80), (60, 10, 50, 100)]
SPLITS = {"train": range(100, 105), "val": range(200, 203)}


def people(images: range) -> Records:
    """Two people in each image, of which one faces the camera and is all there."""
    return [
        person(10 * image + place, image, BOXES[(image + place) % 3],
               joints=joints_of(BOXES[(image + place) % 3], absent=[15, 16] if place else []))
        for image in images for place in range(2)
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, images in SPLITS.items():
        write_split(tmp_path / "data", split, content(people(images), images=tuple(images)))
    return tmp_path / "data"


def annotations(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"person_keypoints_{split}2017.json"


def change(root: Path, edit: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    value = json.loads(annotations(root, split).read_text(encoding="utf-8"))
    edit(value)
    write_json(annotations(root, split), value)


def check(root: Path | None, out: Path | None = None, **sections: Any) -> list[Finding]:
    return doctor.check(config(root, **sections), out)


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in ("error", "warning")]


def find(findings: list[Finding], title: str) -> Finding:
    return next(finding for finding in findings if title in finding.title)


def test_sound_data_pass(root: Path) -> None:
    findings = check(root)
    assert wrong(findings) == []
    counts = find(findings, "train: 10 people in 5 images")
    assert counts.evidence == "2.0 an image with people, 2 at most; 0 images have none"
    assert "eyes 100%, ears 100%, shoulders 100%" in find(findings, "val: left is").evidence
    assert find(findings, "val is scored with annotated boxes").severity == "ok"
    assert find(findings, "effective batch 4").evidence.endswith("published: 512 (8 x 64) at 0.001")


def test_sheet_of_crops(root: Path, tmp_path: Path) -> None:
    findings = check(root, tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / doctor.SHEET))
    assert picture.shape[1] == 1200
    assert picture.std() > 20
    assert find(findings, "sheet").figure == str(tmp_path / "out" / doctor.SHEET)


def test_real_people_pass(tmp_path: Path) -> None:
    shutil.copytree(real(), tmp_path / "coco")
    findings = check(tmp_path / "coco", data={"boxes": DETECTIONS})
    assert [finding.title for finding in wrong(findings)] == ["val: the detector misses 37% of the people"]
    assert "63.2% of 19 people overlap" in find(findings, "misses").evidence
    assert "of 29 people who face the camera: eyes 100%" in find(findings, "train: left is").evidence


def _no_set(root: Path) -> str:
    shutil.rmtree(root)
    return f"{root}: no such folder"


def _no_annotations(root: Path) -> str:
    annotations(root).unlink()
    return f"{annotations(root)}: no such file"


def _no_folder(root: Path) -> str:
    shutil.rmtree(root / "val2017")
    return f"{root / 'val2017'}: no such folder"


def _no_keypoints(root: Path) -> str:
    def edit(value: dict[str, Any]) -> None:
        for one in value["annotations"]:
            del one["keypoints"]

    change(root, edit)
    return "none of its 10 annotations has keypoints"


def _damaged_json(root: Path) -> str:
    annotations(root).write_text("{", encoding="utf-8")
    return annotations(root).name


def _no_photo(root: Path) -> str:
    (root / "train2017" / f"{100:012d}.jpg").unlink()
    return f"1 of 5 images of people are not there, first {100:012d}.jpg (image 100)"


def _cut_photo(root: Path) -> str:
    file = root / "val2017" / f"{200:012d}.jpg"
    file.write_bytes(file.read_bytes()[:300])
    return file.name


def _resized_photo(root: Path) -> str:
    write_photo(root / "train2017" / f"{101:012d}.jpg", photo(1)[:60])
    return "is 60 x 160 pixels, its annotations are for 120 x 160"


def _edit_boxes(box: list[float], number: int) -> Callable[[dict[str, Any]], None]:
    def edit(value: dict[str, Any]) -> None:
        for one in value["annotations"][:number]:
            one["bbox"] = box

    return edit


def _box_outside(root: Path) -> str:
    change(root, _edit_boxes([100, 20, 90, 90], 2))
    return "train: 2 of 10 boxes lie outside their images"


def _box_of_corners(root: Path) -> str:
    change(root, _edit_boxes([50, 60, -10, 5], 1))
    return "train: 1 of 10 boxes have no width or height"


def _joints_outside_boxes(root: Path) -> str:
    change(root, _edit_boxes([10, 100, 20, 15], 4))
    return "train: many joints lie outside their boxes"


def _joints_outside_image(root: Path) -> str:
    def edit(value: dict[str, Any]) -> None:
        joints = np.array(value["annotations"][3]["keypoints"]).reshape(-1, 3)
        joints[5, 0] = PHOTO[1] + 40
        value["annotations"][3]["keypoints"] = joints.ravel().tolist()

    change(root, edit)
    return "train: 1 of 160 joints lie outside their images"


def _twice(root: Path) -> str:
    def edit(value: dict[str, Any]) -> None:
        value["annotations"].append({**value["annotations"][0], "id": 1})

    change(root, edit)
    return "train: 1 pairs of people have their joints in the same places"


def _swapped(root: Path) -> str:
    order = list(range(17))
    for left, right in FLIP_PAIRS:
        order[left], order[right] = right, left

    def edit(value: dict[str, Any]) -> None:
        for one in value["annotations"]:
            one["keypoints"] = np.array(one["keypoints"]).reshape(-1, 3)[order].ravel().tolist()

    change(root, edit)
    return "train: left and right are mixed up: eye, ear, shoulder"


def _no_areas(root: Path) -> str:
    def edit(value: dict[str, Any]) -> None:
        for one in value["annotations"]:
            del one["area"]

    change(root, edit, "val")
    return "6 people have no area"


def _shared_image(root: Path) -> str:
    shutil.rmtree(root / "train2017")
    shutil.copytree(root / "val2017", root / "train2017")
    shutil.copy(annotations(root, "val"), annotations(root))
    return "3 images of val are in train too"


DAMAGES = [
    _no_set, _no_annotations, _no_folder, _no_keypoints, _damaged_json, _no_photo, _cut_photo, _resized_photo,
    _box_outside, _box_of_corners, _joints_outside_boxes, _joints_outside_image, _twice, _swapped, _no_areas,
    _shared_image,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_each_mistake_is_named(root: Path, damage: Callable[[Path], str]) -> None:
    title = damage(root)
    found = wrong(check(root))
    finding = find(found, title)
    assert finding.evidence or finding.fix


def test_a_detectors_boxes(root: Path) -> None:
    boxes = [
        detection(image, BOXES[(image + place) % 3], 0.9) for image in SPLITS["val"] for place in range(2)
    ]
    file = write_json(root / "boxes.json", boxes)
    findings = check(root, data={"boxes": "boxes.json"})
    assert wrong(findings) == []
    assert "100.0% of 6 people overlap one by half" in find(findings, "a detector's boxes").evidence
    write_json(file, boxes[:2])
    missed = find(check(root, data={"boxes": "boxes.json"}), "the detector misses 67% of the people")
    assert "2 images with people have no box" in missed.evidence
    write_json(file, [detection(999, BOXES[0], 0.9)])
    assert "the annotation file does not list, first image 999" in wrong(
        check(root, data={"boxes": "boxes.json"}))[0].title  # fmt: skip


@pytest.mark.parametrize(
    ("distill", "title"),
    [
        ({"loss_weight": 1e-3}, "weight 0.001 of the visual tokens' loss is unusual"),
        ({"loss_weight": 1e-7}, "weight 1e-07 of the visual"),
        ({"loss": "masked", "mask_ratio": 0.7}, "mask ratio 0.7 of the visual"),
        ({"keypoint": {"loss": "masked", "mask_ratio": 0.1}}, "mask ratio 0.1 of the keypoint"),
    ],
)
def test_unusual_distillation_is_a_warning(distill: dict[str, Any], title: str) -> None:
    finding = find(wrong(check(None, system={"distill": distill})), title)
    assert finding.severity == "warning"


def test_usual_distillation_passes() -> None:
    for weight in (1e-6, 1e-4):
        distill = {"loss": "masked", "mask_ratio": 0.5, "loss_weight": weight}
        findings = check(None, system={"distill": distill})
        assert find(findings, "distilled between 2 cycles").severity == "ok"
    assert find(check(None, system={"cycles": 1}), "nothing is distilled").severity == "warning"


def test_rate_and_batch_against_the_published_ones() -> None:
    train = {"batch_size": 64, "devices": 8}
    assert find(check(None, train=train), "effective batch 512").severity == "ok"
    other = find(check(None, train={"batch_size": 64}), "effective batch 64 at a learning rate of 0.001")
    assert other.severity == "info"
    assert "optim.lr=0.000125" in other.fix


def plan(root: Path, *words: str, **fields: Any) -> Plan:
    made = open_recipe("sdpose/base", [f"data.root={root}", "train.batch_size=2", *words]).config
    return Plan(made, root / "runs", **({"num_samples": 10} | fields))


def test_a_new_run_of_ordinary_length_passes(tmp_path: Path) -> None:
    findings = check_plan(plan(tmp_path, name="new"))
    assert wrong(findings) == []
    assert find(findings, "training of 300 epochs").evidence.startswith("1500 steps of 2 samples, 5 steps")
    assert find(findings, "learning rate x 0.1 at 200 epochs, 260 epochs").severity == "ok"


def _used(folder: Path) -> dict[str, str]:
    (folder / "runs" / "old").mkdir(parents=True)
    (folder / "runs" / "old" / "log.txt").write_text("x", encoding="utf-8")
    return {"name": "old"}


@pytest.mark.parametrize(
    ("words", "fields", "title"),
    [
        ([], {"name": "a:b"}, "cannot be part of a run's name"),
        ([], {"init": "nowhere"}, "--init nowhere cannot be used"),
        ([], {"resume": "nowhere"}, "--resume nowhere cannot be used"),
        ([], {"init": "a", "resume": "b"}, "--init a and --resume b exclude each other"),
        ([], {"num_samples": 1}, "fewer than the 2 of one step"),
        (["train.length=0"], {}, "nothing is trained"),
        (["train.length=100 epochs"], {}, "2 of 2 steps of the learning rate lie beyond the training"),
        (["train.length=1000"], {}, "2 of 2 steps of the learning rate"),
        (["train.length=210 epochs"], {}, "1 of 2 steps of the learning rate"),
        (["schedule.warmup=200 epochs"], {}, "the warm-up takes more than half"),
    ],
)
def test_each_mistake_of_a_plan(tmp_path: Path, words: list[str], fields: dict[str, Any], title: str) -> None:
    found = find(wrong(check_plan(plan(tmp_path, *words, **fields))), title)
    assert found.fix


def test_a_name_in_use(tmp_path: Path) -> None:
    found = find(check_plan(plan(tmp_path, **_used(tmp_path))), "is in use by an earlier run")
    assert found.severity == "error"
    assert not [one for one in check_plan(plan(tmp_path, resume="old")) if "in use" in one.title]


def test_a_file_to_start_from_is_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    (found,) = wrong(check_plan(plan(tmp_path, init=str(file))))
    assert (found.severity, found.title) == ("error", f"--init {file} is empty")
    file.write_bytes(b"weights")
    assert wrong(check_plan(plan(tmp_path, init=str(file)))) == []


def test_a_run_of_another_system_is_no_start(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "status.json").write_text("{}", encoding="utf-8")
    (run / "config.yaml").write_text("system: {name: other}\n", encoding="utf-8")
    (found,) = wrong(check_plan(plan(tmp_path, init="first")))
    assert found.title == "--init first is a run of other"


def test_clipping_and_loading_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omma.doctor.plan.cores", lambda: 4)
    few, many = (check_plan(plan(tmp_path, f"train.workers={number}")) for number in (4, 5))
    assert find(few, "gradients are clipped: optim.grad_clip=1").severity == "ok"
    assert find(check_plan(plan(tmp_path, "optim.grad_clip=null")), "gradients are not clipped").fix
    assert not [one for one in few if "processes load data" in one.title]
    assert find(many, "more processes load data than there are cores").fix == "train.workers=4"


def test_late_steps_are_moved_along(tmp_path: Path) -> None:
    found = find(check_plan(plan(tmp_path, "train.length=100 epochs")), "lie beyond")
    assert found.fix == 'move them along: schedule.at="[67 epochs, 87 epochs]"'
    words = ["train.length=100 epochs", "schedule.at=[67 epochs, 87 epochs]"]
    assert wrong(check_plan(plan(tmp_path, *words, num_samples=1000))) == []


def test_fast_recipe_has_its_steps_moved(tmp_path: Path) -> None:
    made = open_recipe("sdpose/fast", [f"data.root={tmp_path}"]).config
    assert wrong(check_plan(Plan(made, tmp_path, 149813))) == []


def estimate(weights: int, per_sample: int) -> MemoryEstimate:
    return MemoryEstimate(weights, 0, weights, 2 * weights, 0, per_sample)


def test_disk_and_memory(tmp_path: Path) -> None:
    ordinary = plan(tmp_path)
    assert check_disk(ordinary, estimate(2**20, 2**20)).severity == "ok"
    full = check_disk(ordinary, estimate(2**50, 1))
    assert (full.severity, full.title) == ("error", "the planned checkpoints do not fit the disk")
    assert check_memory(ordinary, estimate(10, 10), 60, ()).severity == "ok"
    found = check_memory(ordinary, estimate(10, 15), 60, ("train.precision=bf16-mixed",))
    assert (found.severity, found.title) == ("error", "a batch of 2 does not fit the memory")
    assert found.fix == "train.batch_size=1 train.accumulate=2 or train.precision=bf16-mixed"
    six = plan(tmp_path, "train.batch_size=6", "train.accumulate=2")
    equal = check_memory(six, estimate(10, 4), 60, ())  # five would fit, and change the training
    assert equal.fix == "train.batch_size=3 train.accumulate=4"
    nothing = check_memory(ordinary, estimate(100, 15), 60, ())
    assert nothing.fix == "a device with more memory"


GUIDE = (
    "--data-root D --samples-per-gpu 64 --workers-per-gpu 2 --lr 1e-3 --step [200,260] --total-epochs 300 "
    "--max-norm 1.0 --log-interval 50 --evaluation-interval 10 --checkpoint-interval 10 --max-keep-ckpts 3 "
    "--save-best AP --loss-weight 1e-5 --mask-ratio 0.3 --mask-strategy random --warmup-iters 500 "
    "--warmup-ratio 0.001 --seed 3 --deterministic --bbox-file B.json"
)
READ = [
    "data.root=D", "train.batch_size=64", "train.workers=2", "optim.lr=1e-3", "schedule.name=step",
    "schedule.at=[200 epochs, 260 epochs]", "train.length=300 epochs", "optim.grad_clip=1.0", "log.every=50",
    "validate.every=10 epochs", "save.every=10 epochs", "save.keep_last=3", "save.best=val/AP",
    "system.distill.loss_weight=1e-5", "system.distill.loss=masked", "system.distill.mask_ratio=0.3",
    "system.distill.loss=masked", "system.distill.mask_strategy=random", "schedule.warmup=500",
    "schedule.warmup_factor=0.001", "seed=3", "deterministic=true", "data.boxes=B.json",
]  # fmt: skip


def test_flags_of_the_guide() -> None:
    """With dashes and with underscores."""
    underscored = " ".join(
        "--" + word[2:].replace("-", "_") if word.startswith("--") else word for word in GUIDE.split()
    )
    for text in (GUIDE, underscored):
        assert read_words(text.split(), get("sdpose")).overrides == READ
    made = open_recipe("sdpose/base", READ).config
    assert made.system.distill.loss == "masked"
    assert (made.save.best, made.deterministic) == ("val/AP", True)
    assert [str(time) for time in made.schedule.at] == ["200 epochs", "260 epochs"]


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--grad-clip", "None"], "optim.grad_clip", "null"),
        (["--grad_clip", "dict(max_norm=1.0)"], "optim.grad_clip", "1.0"),
        (["--use-gt-bbox", "True"], "data.boxes", "ground_truth"),
        (["--soft-nms", "False"], "evaluation.nms", "oks"),
        (["--flip-test=true"], "evaluation.flip", "true"),
        (["--no-validate"], "validate.every", "0"),
        (["--gpu-ids", "1"], "train.device", "cuda:1"),
        (["--num-cycles", "3"], "system.cycles", "3"),
    ],
)
def test_flags_with_values_of_their_own(words: list[str], key: str, value: str) -> None:
    read = read_words(words, get("sdpose"))
    assert read.overrides == [f"{key}={value}"]
    open_recipe("sdpose/base", read.overrides)


def test_what_needs_no_setting_is_said() -> None:
    read = read_words(["--eval", "mAP", "--save_last", "True"], get("sdpose"))
    assert read.overrides == []
    assert [line.split(":")[0] for line in read.read_as] == [
        "--eval mAP -> nothing to set", "--save_last True -> nothing to set",
    ]  # fmt: skip


def test_where_a_run_goes() -> None:
    """R1, R2: --name before --work-dir before --exp-name before the recipe's own name."""
    read = read_words(["--exp-name", "x"], get("sdpose"))
    assert place_of(read.options, None, "runs") == ("x", "runs")
    both = read_words(["--work-dir", "a/b", "--exp_name", "x"], get("sdpose"))
    assert place_of(both.options, None, "runs") == ("b", "a")
    assert place_of(both.options, "mine", "runs") == ("mine", "runs")
    assert place_of({}, None, None) == (None, None)
    read = read_words(["--resume-from", "r.pth", "--load-from", "w.pth"], get("sdpose"))
    assert read.options == {"resume": "r.pth", "init": "w.pth"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--autoscale-lr"], "optim.lr=1.25e-4"),
        (["--autoscale-lr=1"], "without a value"),
        (["--launcher", "pytorch"], "train.devices=8"),
        (["--interval", "10"], "--evaluation-interval"),
        (["--out-dir", "x"], "--runs-dir"),
        (["--cfg-options", "a=1"], "key.path=value"),
        (["--use-gt-bbox", "false"], "--bbox-file FILE"),
        (["--use-gt-bbox", "perhaps"], "neither true nor false"),
        (["--save-last", "false"], "always saved"),
        (["--eval", "PCK"], "no such metric"),
        (["--samples-per-gpus", "1"], "--samples-per-gpu"),
        (["--lr"], "a value is missing"),
    ],
)
def test_flags_without_a_counterpart_say_why(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_words(words, get("sdpose"))
    assert text in str(caught.value)
