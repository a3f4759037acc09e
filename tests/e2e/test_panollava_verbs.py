"""The main verbs on the three stages of PanoLLaVA, trained in a row on a few panoramas."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.commands import omma
from tests.unit.pano_files import ANSWERS, QUERY, TINY, write_panorama, write_set

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_report")]
STEPS = ["train.length=2", "validate.every=2", "save.every=2", "optim.lr=1e-3"]
PLAIN = ["system.projector.position=none"]  # as in the first pipeline
STAGES = ("vision", "resampler", "finetune")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "파노라마")


@pytest.fixture(scope="module")
def root(data, tmp_path_factory) -> Path:
    """Runs vlm_vision, vlm_resampler and vlm_finetune; the last two evaluated."""
    root = tmp_path_factory.mktemp("실행 runs")
    words = ["--name", "vlm", "--runs-dir", root, f"data.root={data}", *TINY, *PLAIN, *STEPS]
    assert omma("train", "panollava/all", *words, "resampler:optim.lr=1e-12") == 0
    assert all(omma("eval", root / f"vlm_{stage}") == 0 for stage in STAGES[1:])
    return root


def _best(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "best" / "model.safetensors")


def _about(run: Path) -> dict:
    return json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))


def test_stages_hand_over_their_best_weights(root):
    """The tower goes from stage to stage; what a stage has not is said in one line."""
    tower = _best(root / "vlm_vision")
    assert all(name.startswith("model.vision.") or name == "tokenizer" for name in tower)
    after = _best(root / "vlm_resampler")
    for name, value in tower.items():
        if name != "tokenizer":
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-8)
    said = (root / "vlm_resampler" / "log.txt").read_text(encoding="utf-8")
    assert (
        "weights only; not in it: resampler, projector, language model, which start as the recipe says"
        in said
    )
    said = (root / "vlm_finetune" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert next(line for line in said if "weights from" in line).endswith("vlm_resampler, weights only")
    assert all((root / f"vlm_{stage}" / "model_final.safetensors").is_file() for stage in STAGES)


def test_a_finished_chain_says_what_comes_next(root, capsys):
    assert omma("resume", "vlm", "--runs-dir", root, debug=False) == 2
    assert "omma eval vlm_finetune" in capsys.readouterr().err


def test_evaluation_scores_answers_and_says_what_is_unavailable(root):
    about = _about(root / "vlm_finetune")
    metrics = about["metrics"]
    assert about["samples"] == 3
    assert {"loss", "bleu4", "rouge_l", "cider", "single_ref_rows/bleu4", "human/cider"} <= metrics.keys()
    assert metrics["human/rouge_l"] > 0
    assert metrics["meteor"] is metrics["spice"] is None
    assert about["unavailable"]["meteor"].startswith("unavailable: ")
    assert "all references" in about["setting"]


def test_answers_are_written_as_table_and_as_lines(root):
    folder = root / "vlm_finetune" / "eval" / "val"
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3  # one answer a panorama and question, whatever the number of references
    assert {row["query"] for row in rows} == {QUERY}
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert [line["prediction"] for line in lines] == [row["prediction"] for row in rows]
    assert all(tuple(line["references"]) == ANSWERS for line in lines)
    assert {line["stage"] for line in lines} == {"finetune"}


def test_stage_vision_is_evaluated_by_how_views_agree(root, capsys):
    assert omma("eval", root / "vlm_vision") == 0
    metrics = _about(root / "vlm_vision")["metrics"]
    assert set(metrics) == {"loss", "overlap_cosine", "overlap_retrieval", "effective_rank", "token_std"}
    assert "overlap 0.5" in capsys.readouterr().out


def test_saved_answers_are_scored_again(root, tmp_path):
    """A person's own answer in place of the model's: all right."""
    run = Path(shutil.copytree(root / "vlm_resampler", tmp_path / "copy"))
    out = tmp_path / "out"
    assert omma("predict", run, "--indices", "all", "--out", out) == 0
    for file in out.glob("*.npz"):
        with np.load(file) as arrays:
            saved = dict(arrays)
        np.savez(file, **saved | {"answer": np.array(ANSWERS[0])})
    assert omma("eval", run, "--predictions", out) == 0
    assert _about(run)["metrics"]["exact_match"] == 1


def test_stages_are_compared_with_intervals(root, tmp_path, capsys):
    runs = [root / "vlm_resampler", root / "vlm_finetune"]
    assert omma("compare", *runs, "--out", tmp_path) == 0
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Interval of the difference" in text
    assert all(f"the mean of {name} over samples" in text for name in ("rouge_l", "cider"))
    assert "vlm_finetune is clearly better than vlm_resampler in" in text
    assert "vlm_finetune" in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_draws(root, tmp_path, stage):
    assert omma("predict", root / f"vlm_{stage}", "--indices", "1", "--out", tmp_path) == 0
    picture = np.asarray(Image.open(tmp_path / "sample_0001.png"))
    assert picture.std() > 10
    with np.load(tmp_path / "sample_0001.npz") as arrays:
        assert arrays["views"].shape == (8, 3, 16, 16)
        assert ("likeness" if stage == "vision" else "answer") in arrays


def test_a_photo_of_ones_own_with_its_question(root, tmp_path):
    photo = write_panorama(tmp_path / "거리.png", 77)
    (tmp_path / "거리.txt").write_text("What is behind you?\n", encoding="utf-8")
    assert omma("predict", root / "vlm_finetune", "--input", photo, "--out", tmp_path / "out") == 0
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == ["sample_0000.png"]


@pytest.mark.parametrize("stage", ["vision", "finetune"])
def test_export_is_checked_against_torch(root, stage):
    """The tower, or from views to words; the language model beside it as a folder."""
    run = root / f"vlm_{stage}"
    assert omma("export", run, "--format", "onnx") == 0
    check = json.loads((run / "export" / "model.check.json").read_text(encoding="utf-8"))
    assert check["max_abs_difference"] < 1e-4
    assert (run / "export" / "language" / "tokenizer.json").is_file() == (stage == "finetune")


def test_a_file_of_the_first_pipeline_becomes_a_run(root, data, tmp_path, capsys):
    """With Lightning's container; answers and losses are those of the run that it came from."""
    run = root / "vlm_finetune"
    assert omma("export", run, "--format", "reference") == 0
    assert "largest difference of" in capsys.readouterr().out
    weights = torch.load(run / "export" / "model.pt", weights_only=True)["model_state_dict"]
    assert "model.language_model.lm_head.weight" in weights
    file = tmp_path / "best.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": {"stage": "finetune"}}, file)
    words = [f"data.root={data}", *TINY, *PLAIN, "system.text.placement=placeholder"]
    recipe = ["--recipe", "panollava/finetune", "--out", tmp_path / "imported"]
    assert omma("import", "panollava", file, *recipe, *words) == 0
    assert omma("eval", tmp_path / "imported") == 0
    found, expected = _about(tmp_path / "imported")["metrics"], _about(run)["metrics"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_a_tower_alone_is_no_whole_network(root, tmp_path, capsys):
    run = root / "vlm_vision"
    assert omma("export", run, "--format", "reference") == 0
    words = [run / "export" / "model.pt", "--recipe", "panollava/resampler", "--out", tmp_path / "x", *TINY]
    assert omma("import", "panollava", *words, debug=False) == 3
    assert "has no resampler, projector, language model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [("vlm_nothing", 2, "no such run"), ("vlm_vision@step_9", 3, "there are best")],
)
def test_weights_that_are_not_there_leave_no_run_behind(root, data, capsys, source, code, text):
    words = ["--name", "none", "--runs-dir", root, f"data.root={data}", *TINY, "--init", source]
    assert omma("train", "panollava/finetune", *words, debug=False) == code
    assert text in capsys.readouterr().err
    assert not (root / "none").exists()
