"""Real panoramas with people's captions: doctor, all three stages, evaluation, studies, with tiny towers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.commands import omma

from omma.core.caption_meter import CaptionMeter
from omma.runs.metrics import read_metrics
from omma.systems.panollava.config import ViewsSection
from omma.systems.panollava.samples import read_panorama
from omma.systems.panollava.views import ViewCutter

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "pano"
TRAINED, HELD_OUT = 3, 2  # panoramas
TINY = [
    "data.views.image_size=[32, 32]", "system.resampler={name: mlp, width: 32, norm: layer}",
    "system.vision={name: random, config: {model_type: siglip_vision_model, hidden_size: 32, "
    "intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, image_size: 32, patch_size: 8}}",
    "system.language={name: random, config: {model_type: qwen2, hidden_size: 48, intermediate_size: 96, "
    "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, tie_word_embeddings: true}}",
    "train.precision=32", "train.workers=0", "train.device=cpu", "optim.lr=1e-3", "schedule.warmup=2",
    "train.batch_size=3", "validate.batch_size=4", "train.length=20", "validate.every=20", "save.every=20",
    "log.every=1", "log.tensorboard=false", "system.generate.max_new_tokens=8",
]  # fmt: skip
TEXT = ["system.text.max_length=256"]

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not REAL.is_dir(), reason="needs real data")]


@pytest.fixture(scope="module")
def pano(tmp_path_factory) -> Path:
    """The real captions, split by panorama into training and validation."""
    root = tmp_path_factory.mktemp("data") / "pano"
    shutil.copytree(REAL / "images", root / "images")
    with (REAL / "quic360_test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = list(dict.fromkeys(row["url"] for row in rows))
    assert len(images) >= TRAINED + HELD_OUT
    for split, own in (("train", images[:TRAINED]), ("valid", images[TRAINED:])):
        with (root / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(row for row in rows if row["url"] in own)
    return root


def _train(pano: Path, runs: Path, stage: str, *words: object) -> Path:
    names = ["--name", stage, "--runs-dir", runs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omma.commands.train._finish", lambda *args: None)  # a report takes longer than this
        assert omma("train", f"panollava/{stage}", *names, f"data.root={pano}", *TINY, *words) == 0
    return runs / stage


@pytest.fixture(scope="module")
def runs(pano, tmp_path_factory) -> dict[str, Path]:
    """The three stages, each from the one before."""
    root = tmp_path_factory.mktemp("runs")
    vision = _train(pano, root, "vision")
    resampler = _train(pano, root, "resampler", "--init", vision, *TEXT, "system.train=[vision, resampler, "
                       "projector, language]")  # fmt: skip
    finetune = _train(pano, root, "finetune", "--init", resampler, *TEXT)
    return {"vision": vision, "resampler": resampler, "finetune": finetune}


def _losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.csv") if row["phase"] == "train"]


@pytest.fixture
def no_environment(monkeypatch) -> None:
    """Without the checks of the machine, which are tested elsewhere."""
    monkeypatch.setattr("omma.commands.doctor.check_environment", lambda root: [])


@pytest.mark.usefixtures("no_environment")
def test_doctor_passes_and_draws(pano, tmp_path, capsys):
    words = [f"data.root={pano}", *TINY, *TEXT, "--out", tmp_path]
    assert omma("doctor", "panollava/resampler", *words) == 0
    said = capsys.readouterr().out
    assert "ok       train: the edges of 3 panoramas join" in said
    assert "ok       train: 3 panoramas are there, twice as wide as high" in said
    assert "valid.csv: 5." in said
    assert "references a question" in said
    assert np.asarray(Image.open(tmp_path / "panollava_views.png")).std() > 20


@pytest.mark.usefixtures("no_environment")
def test_short_texts_are_warned_of(pano, capsys):
    words = [f"data.root={pano}", *TINY, "system.text.max_length=64"]
    assert omma("doctor", "panollava/resampler", *words) == 0
    assert "answers are cut off" in capsys.readouterr().out


def test_every_stage_learns(runs):
    for stage, run in runs.items():
        losses = _losses(run)
        assert len(losses) == 20
        assert np.isfinite(losses).all()
        if stage != "finetune":  # starts where the stage before ended
            assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert np.mean(_losses(runs["finetune"])[:5]) < np.mean(_losses(runs["resampler"])[:5])


def test_evaluation_groups_the_references(runs, pano):
    assert omma("eval", runs["finetune"], "--study", "rotation", "--study", "view_drop") == 0
    folder = runs["finetune"] / "eval" / "val"
    about = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with (pano / "valid.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = {(row["url"], row["query"]) for row in rows}
    assert about["samples"] == len(pairs) < len(rows) / 4
    metrics = about["metrics"]
    assert metrics["avg_ref_length"] == pytest.approx(_mean_words(rows, pairs), rel=0.02)
    assert metrics["clip_s"] is None
    assert "system.generate.clip" in about["unavailable"]["clip_s"]
    assert 0.02 < metrics["human/bleu4"] < 0.2  # people among themselves: 0.078 on the whole test set
    assert metrics["bleu4"] < metrics["human/bleu4"]
    answers = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert {(Path(a["image_path"]).name, a["query"]) for a in answers} == {
        (Path(u).name, q) for u, q in pairs
    }
    assert min(len(answer["references"]) for answer in answers) >= 4
    for name in ("rotation_loss.png", "view_drop_00.png"):
        assert np.asarray(Image.open(folder / "studies" / name)).std() > 5


def _mean_words(rows: list[dict[str, str]], pairs: set[tuple[str, str]]) -> float:
    """Of the references, a repeated one of a question once."""
    texts = {(row["url"], row["query"], row["annotation"].strip()) for row in rows}
    assert {text[:2] for text in texts} == pairs
    return float(np.mean([len(text[2].split()) for text in texts]))


def test_people_agree_as_in_the_meter(pano):
    """The row of human agreement is the first caption of each question against its others."""
    with (pano / "valid.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row["url"], row["query"]), []).append(row["annotation"])
    whole, alone = CaptionMeter(), CaptionMeter()
    for meter, skipped in ((whole, 0), (alone, 1)):
        batch = {
            "token": [str(key) for key in groups],
            "image_path": [key[0] for key in groups],
            "query": [key[1] for key in groups],
            "references": [texts[skipped:] for texts in groups.values()],
        }
        meter.update([texts[0] for texts in groups.values()], batch)
    assert whole.compute()["human/rouge_l"] == pytest.approx(alone.compute()["rouge_l"])
    assert 0.15 < alone.compute()["rouge_l"] < 0.45


def test_the_tower_alone_is_evaluated_and_diagnosed(runs):
    assert omma("eval", runs["vision"]) == 0
    metrics = json.loads((runs["vision"] / "eval" / "val" / "metrics.json").read_text("utf-8"))["metrics"]
    assert 0.5 < metrics["overlap_cosine"] <= 1
    assert metrics["effective_rank"] > 1
    for stage in ("vision", "finetune"):
        assert omma("diagnose", runs[stage], "--vis-num", 1, "--num-samples", 6) == 0
        findings = json.loads((runs[stage] / "diagnose" / "findings.json").read_text("utf-8"))
        assert not [one for one in findings if "cannot be read" in one["title"]]


def test_predictions_of_own_pictures(runs, pano, tmp_path):
    photo = pano / "images" / "pannellum_jordan_pond.jpg"
    photo.with_suffix(".txt").write_text("What is in front of you?", encoding="utf-8")
    assert omma("predict", runs["finetune"], "--input", photo, "--out", tmp_path) == 0
    meta = json.loads((tmp_path / "sample_0000.json").read_text(encoding="utf-8"))
    assert meta["query"] == "What is in front of you?"
    assert isinstance(meta["answer"], str)
    assert np.asarray(Image.open(tmp_path / "sample_0000.png")).std() > 20


@pytest.mark.parametrize("face", range(6))
def test_views_are_the_photographers_own_cube_faces(face):
    """Front, right, back, left at the horizon, then up and down, as the author cut them."""
    yaws = {0: 0, 1: 2, 2: 4, 3: 6}
    pitch = {4: 90.0, 5: -90.0}.get(face, 0.0)
    settings = ViewsSection(image_size=(128, 128), pitches_deg=[pitch])
    panorama = read_panorama(REAL / "images" / "pannellum_jordan_pond.jpg", settings)
    views = ViewCutter(settings)(panorama)
    with Image.open(REAL / "jordan_pond_cube" / f"face{face}.jpg") as picture:
        true = np.asarray(picture.convert("L").resize((128, 128)), np.float64)
    likeness = [np.corrcoef(true.ravel(), view.mean(-1).ravel())[0, 1] for view in views]
    assert int(np.argmax(likeness)) == yaws.get(face, 0)
    assert max(likeness) > 0.9
