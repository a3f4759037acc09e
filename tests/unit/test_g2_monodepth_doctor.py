"""The doctor of RGB-D data and the diagnosis of predictions: each mistake is named first, sound ones pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rgbd_files import real, scene, write, write_pairs

from omma.commands.flags import read_words
from omma.engine.diagnosis import Diagnosis, Options
from omma.errors import Finding, UsageError
from omma.systems import get
from omma.systems.g2_monodepth import doctor
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.diagnose import run
from omma.systems.g2_monodepth.prediction_checks import Seen, loss_balance
from omma.systems.g2_monodepth.task import G2Task
from omma.systems.recipes import open_recipe

SIZE = (48, 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_pairs(root / "train", 4)
    write_pairs(root / "val", 2, first=4)
    (root / "rgbd.json").write_text(json.dumps({"units_per_metre": 1000, "max_depth": 10}), "utf-8")
    return root


def config(root: Path, *words: str) -> G2Config:
    settings = [f"data.root={root}", "data.image_size=[32, 48]", *words]
    return open_recipe("g2_monodepth/demo", settings).config


def check(root: Path, *words: str, out: Path | None = None) -> list[Finding]:
    return doctor.check(config(root, *words), out)


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def find(findings: list[Finding], title: str) -> Finding:
    return next(finding for finding in findings if title in finding.title)


def coded(depth_m: np.ndarray, units: float = 1000.0) -> np.ndarray:
    return np.rint(depth_m * units).astype(np.uint16)


def test_sound_data_pass(root: Path) -> None:
    findings = check(root)
    assert {finding.severity for finding in findings} == {"ok"}
    titles = [finding.title for finding in findings]
    assert titles.index("split val") < titles.index("no pictures of val are in train")
    assert titles.index("train: depths are in metres and fit max_depth") < len(titles) - 1
    assert titles[-1] == "training covers the sparsity of validation"


def test_sheet_and_histograms(root: Path, tmp_path: Path) -> None:
    findings = check(root, out=tmp_path / "out")
    for name in (doctor.SHEET, doctor.DEPTHS, doctor.GIVEN):
        picture = np.asarray(Image.open(tmp_path / "out" / name))
        assert picture.std() > 10
    assert find(findings, "sheet").figure == str(tmp_path / "out" / doctor.SHEET)


@pytest.mark.parametrize(("units", "factor"), [(1000.0, "1000"), (256.0, "3.9")])
def test_wrong_units_are_named_with_their_factor(root: Path, units: float, factor: str) -> None:
    """Millimetres read as metres, or with KITTI's coding."""
    read = {"1000": "1", "3.9": "256"}[factor]
    first = errors(check(root, f"data.units_per_metre={read}", "data.max_depth=10"))[0]
    assert "exceed max_depth" in first.title
    assert f"factor {factor}" in first.fix
    assert "data.units_per_metre to 1000" in first.fix


def _eight_bits(root: Path) -> str:
    write(root / "train" / "depth" / "002.png", (scene(2)[1] * 40).astype(np.uint8))
    return "002.png"


def _cut_short(root: Path) -> str:
    file = root / "train" / "depth" / "003.png"
    file.write_bytes(file.read_bytes()[:200])
    return "003.png"


def _other_size(root: Path) -> str:
    write(root / "val" / "depth" / "005.png", coded(scene(5)[1][:40]))
    return "depth is 40 x 64"


def _no_partner(root: Path) -> str:
    (root / "train" / "depth" / "001.png").unlink()
    return "1 of 4 images have no depth, first 001"


def _not_a_number(root: Path) -> str:
    (root / "train" / "depth" / "001.png").unlink()
    np.save(root / "train" / "depth" / "001.npy", np.full(SIZE, np.nan, np.float32))
    return "001.npy"


def _all_zero(root: Path) -> str:
    write(root / "val" / "depth" / "004.png", np.zeros(SIZE, np.uint16))
    return "1 of 2 pictures have no known depth, first"


def _small(root: Path) -> str:
    image, depth = scene(9, (30, 64))
    write(root / "train" / "rgb" / "z.png", image)
    write(root / "train" / "depth" / "z.png", coded(depth))
    return "smaller than the crop of 32 x 48, first train/z"


def _leaking(root: Path) -> str:
    for split in ("train", "val"):
        shutil.copytree(root / split / "depth", root / split / "raw")
    return "input depth is the true depth itself"


def _raw_in_other_units(root: Path) -> str:
    for index in range(4):
        write(root / "train" / "raw" / f"{index:03d}.png", coded(scene(index)[1] + 0.02, 256))
    return "off by factor 0.256"


def _twice(root: Path) -> str:
    for kind in ("rgb", "depth"):
        shutil.copy(root / "train" / kind / "002.png", root / "val" / kind / "copy.png")
    return "1 pictures of val are in train too"


DAMAGES: list[Callable[[Path], str]] = [
    _eight_bits, _cut_short, _other_size, _no_partner, _not_a_number, _all_zero, _small, _leaking,
    _raw_in_other_units, _twice,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_mistakes_are_named_first_and_with_a_fix(root: Path, damage: Callable[[Path], str]) -> None:
    text = damage(root)
    first = errors(check(root))[0]
    assert text in first.title
    assert first.fix


def test_warnings_about_settings(root: Path) -> None:
    titles = str(check(root, "data.measured=0.5", 'data.val_patterns=["none", "measured"]'))
    assert "no training picture has measured depth" in titles
    assert "asks for measured depth, which 100% of the pictures lack" in titles
    same = find(check(root, "data.val_split=train"), "same split")
    assert same.severity == "warning"
    never = find(
        check(root, "data.degradation.pattern=full", "data.val_patterns=[none]"), "without input depth"
    )
    assert "data.degradation.pattern" in never.fix


def test_depths_without_pictures_are_told(root: Path) -> None:
    write(root / "train" / "depth" / "alone.png", coded(scene(0)[1]))
    finding = find(check(root), "belong to no picture")
    assert "alone.png" in finding.evidence


def test_pictures_of_several_sizes_need_batches_of_one(root: Path) -> None:
    write_pairs(root / "val", 1, first=8, size=(40, 52))
    finding = errors(check(root, "validate.batch_size=2"))[0]
    assert "differ in size" in finding.title
    assert "data.val_image_size" in finding.fix
    assert not errors(check(root, "validate.batch_size=1"))


def test_cameras(root: Path) -> None:
    (root / "intrinsics.txt").write_text("60 0 32 0 60 24 0 0 1", encoding="utf-8")
    assert find(check(root), "intrinsics fit").severity == "ok"
    (root / "intrinsics.txt").write_text("600 0 320 0 600 240 0 0 1", encoding="utf-8")
    assert find(check(root), "another image size").severity == "warning"
    (root / "intrinsics.txt").write_text("0 0 32 0 60 24 0 0 1", encoding="utf-8")
    assert find(check(root), "no camera matrix").severity == "error"


def test_missing_data_end_the_check(tmp_path: Path) -> None:
    findings = check(tmp_path / "nowhere")
    assert [finding.severity for finding in findings] == ["error"]
    assert "omma world" in findings[0].fix
    write_pairs(tmp_path / "bare" / "train", 1)
    write_pairs(tmp_path / "bare" / "val", 1, first=2)
    bare = check(tmp_path / "bare")
    assert len(bare) == 1
    assert "units and largest depth are unknown" in bare[0].title
    assert "data.layout=nyu_folder" in bare[0].fix
    assert not errors(check(tmp_path / "bare", "data.layout=nyu_folder"))


def test_real_pictures_pass(tmp_path: Path) -> None:
    for split, name, image in (("train", "nyu_dining", "rgb.png"), ("val", "tum_desk", "rgb.png")):
        for kind, file in (("rgb", image), ("depth", "depth.png")):
            place = tmp_path / split / kind / f"{name}.png"
            place.parent.mkdir(parents=True)
            shutil.copy(real(name) / file, place)
    assert not errors(check(tmp_path, "data.layout=nyu_folder"))
    wrong = errors(check(tmp_path, "data.units_per_metre=1", "data.max_depth=10"))
    assert "factor 1000" in wrong[0].fix


@pytest.fixture
def task(root: Path) -> G2Task:
    torch.manual_seed(0)
    words = ["system.network.layers=3", "system.network.features=4", "validate.batch_size=1"]
    return G2Task(config(root, *words)).eval()


def diagnose(task: G2Task, out: Path, **options: Any) -> Diagnosis:
    data, collate = build(task.config, "val", augment=False)
    return run(task, data, collate, Options(run="r", out=out, **options))


def predictor(monkeypatch: pytest.MonkeyPatch, forward: Callable[[dict], torch.Tensor]) -> None:
    monkeypatch.setattr(G2Task, "forward", lambda task, batch: forward(batch))


PREDICTORS: dict[str, tuple[Callable[[dict], torch.Tensor], str]] = {
    "one depth": (lambda batch: torch.full_like(batch["depth"], 0.4), "constant prediction: one depth"),
    "one map": (
        lambda batch: torch.linspace(0.1, 0.6, SIZE[1]).expand_as(batch["depth"]),
        "constant prediction: the same map",
    ),
    "millimetres": (lambda batch: 1000 * batch["depth"], "1e+03 times too large; near 1000"),
    "too small": (lambda batch: batch["depth"] / 1.5, "1.5 times too small"),
    "not finite": (lambda batch: batch["depth"] / 0, "not finite"),
    "negative": (
        lambda batch: torch.where(torch.arange(SIZE[1]) % 8 == 0, -0.1, batch["depth"]),
        "are below 0",
    ),
    "points ignored": (
        lambda batch: batch["depth"] + 0.1 * torch.sin(7 * torch.arange(SIZE[0])[:, None]),
        "given depths are hardly used",
    ),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_first_finding_about_predictions(
    task: G2Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    forward, title = PREDICTORS[name]
    predictor(monkeypatch, forward)
    monkeypatch.setattr(type(task.model), "alphas", lambda model: [0.1] * 9)
    found = diagnose(task, tmp_path, vis_num=0).model
    assert title in found[0].title
    assert found[0].fix


def test_a_perfect_predictor_has_no_complaint(
    task: G2Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor(monkeypatch, lambda batch: batch["depth"])
    monkeypatch.setattr(type(task.model), "alphas", lambda model: [0.1] * 9)
    result = diagnose(task, tmp_path, vis_num=1)
    assert [one for one in (*result.data, *result.model) if one.severity in ("error", "warning")] == []
    assert "median of prediction / truth: 1.000" in result.sections["prediction distribution"]
    assert (tmp_path / "patterns.png").is_file()
    assert len(list(tmp_path.glob("worst_*.png"))) == 4
    assert len(list(tmp_path.glob("0*.png"))) == 1


def test_blocks_that_never_grew(task: G2Task, tmp_path: Path) -> None:
    result = diagnose(task, tmp_path, vis_num=0)
    assert "blocks do nothing" in " ".join(finding.title for finding in result.model)
    assert result.sections["blocks"][0].startswith("|alpha| of ")
    assert not list(tmp_path.glob("0*.png"))


def test_nearest_fill_is_the_mark_to_beat(
    task: G2Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor(
        monkeypatch, lambda batch: torch.where(batch["point"] > 0, batch["depth"], batch["depth"] * 0.8)
    )
    titles = [finding.title for finding in diagnose(task, tmp_path, vis_num=0).model]
    assert "worse than repeating the nearest given depth with 1 of 2 patterns" in titles


def test_unreadable_samples_do_not_stop_the_others(root: Path, task: G2Task, tmp_path: Path) -> None:
    write(root / "val" / "depth" / "005.png", np.zeros((3, 3), np.uint8))
    result = diagnose(task, tmp_path, probe_only=True)
    assert result.data[0].title == "3 of 6 samples cannot be read"
    assert "005.png" in result.data[0].evidence
    assert result.sections["metrics"] == ["the network was not run"]


def test_a_gradient_term_that_drowns_the_others() -> None:
    seen = Seen(weights={"adepth": 1.0, "rgrad": 0.5})
    seen.terms |= {"adepth": [0.1], "rgrad": [2.0]}
    assert seen.loss_shares() == pytest.approx({"adepth": 1 / 11, "rgrad": 10 / 11})
    drowned = loss_balance(seen, "r")
    assert drowned is not None
    assert drowned.title == "the gradient term is 91% of the loss"
    assert "system.loss.gradient" in drowned.fix
    seen.terms["rgrad"] = [0.2]
    balanced = loss_balance(seen, "r")
    assert balanced is not None
    assert balanced.severity == "ok"


def test_flags_of_the_guide() -> None:
    """R25, with underscores and dashes."""
    words = (
        "--data_root D --img_size 480,640 --layers 7 --features 64 --batch_size 8 --learning_rate 1e-4 "
        "--weight_decay 0 --epochs 100 --lr_step_size 20 --lr_gamma 0.5 --grad_clip 0 --log_interval 100 "
        "--val_interval 1 --save_interval 5 --num_workers 4"
    )
    expected = [
        "data.root=D", "data.image_size=[480, 640]", "system.network.layers=7", "system.network.features=64",
        "train.batch_size=8", "optim.lr=1e-4", "optim.weight_decay=0", "train.length=100 epochs",
        "schedule.name=step", "schedule.every=20 epochs", "schedule.name=step", "schedule.gamma=0.5",
        "optim.grad_clip=null", "log.every=100", "validate.every=1 epochs", "save.every=5 epochs",
        "train.workers=4",
    ]  # fmt: skip
    for text in (words, words.replace("_", "-")):
        assert read_words(text.split(), get("g2_monodepth")).overrides == expected
    for recipe in ("base", "nyuv2"):
        made = open_recipe(f"g2_monodepth/{recipe}", expected).config
        assert (made.schedule.name, made.schedule.gamma) == ("step", 0.5)
        assert str(made.schedule.every) == "20 epochs"
        assert made.data.image_size == (480, 640)
        assert made.optim.grad_clip is None
    read = read_words(["--checkpoint_dir", "./checkpoints", "--resume", "a.pth"], get("g2_monodepth"))
    assert read.options == {"name": "./checkpoints", "resume": "a.pth"}


@pytest.mark.parametrize(
    ("text", "size"), [("320", "[320, 320]"), ("(48, 64)", "[48, 64]"), ("48x64", "[48, 64]")]
)
def test_sizes_in_any_writing(text: str, size: str) -> None:
    assert read_words(["--img_size", text], get("g2_monodepth")).overrides == [f"data.image_size={size}"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--port", "12355"], "free port"),
        (["--start-epoch", "3"], "omma resume"),
        (["--in_channels=5"], "5 channels"),
        (["--img_size", "large"], "not a size"),
        (["--learning_rat", "1"], "--learning_rate"),
    ],
)
def test_flags_without_a_counterpart_say_why(words: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read_words(words, get("g2_monodepth"))
