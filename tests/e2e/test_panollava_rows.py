"""What a user is promised of PanoLLaVA's stages, row by row of the spec (R22 to R46)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.commands import omma, weights_of
from tests.unit.pano_files import TINY, write_set
from torch import Tensor

from omma.cli import _run
from omma.commands.build import build_task, run_recipe
from omma.engine.schedule import Length, warmup_steps
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics
from omma.systems.recipes import open_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_report")]
ONE_STEP = ["train.length=1", "optim.lr=1e-2", "schedule.warmup=0"]
PARTS = ("vision", "resampler", "projector", "language")


def _train(root: Path, name: str, data: Path, stage: str, *words: object) -> Path:
    options = ["--name", name, "--runs-dir", root, f"data.root={data}", *TINY, *words]
    assert omma("train", f"panollava/{stage}", *options) == 0
    return root / name


def _said(run: Path) -> str:
    return (run / "log.txt").read_text(encoding="utf-8")


def _changed(run: Path) -> dict[str, Tensor]:
    """Tensors that the training moved, with their new values."""
    start = build_task(run_recipe(RunFolder(run))).state_dict()
    end = weights_of(run)
    assert start.keys() >= end.keys()
    return {name: value for name, value in end.items() if not torch.equal(value, start[name])}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "파노라마 panoramas")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, Path]:
    """One step of each stage on its own."""
    root = tmp_path_factory.mktemp("runs")
    stages = ("vision", "resampler", "finetune", "lora")
    return {stage: _train(root, stage, data, stage, *ONE_STEP) for stage in stages}


@pytest.mark.parametrize(
    ("stage", "epochs", "batch", "rate", "length"),
    [("vision", 3, 32, 5e-6, 32), ("resampler", 5, 16, 2e-5, 64), ("finetune", 10, 8, 1e-5, 128)],
)
def test_guides_table(stage, epochs, batch, rate, length):
    """R30 to R36: what the guide promises, which the public code never applied."""
    config = open_recipe(f"panollava/{stage}").config
    assert config.system.stage == stage
    assert str(config.train.length) == f"{epochs} epochs"
    assert (config.train.batch_size, config.optim.lr, config.system.text.max_length) == (batch, rate, length)
    assert config.system.vision.name == "google/siglip-base-patch16-224"
    assert config.system.language.name == "Qwen/Qwen2.5-0.5B"
    assert config.system.resampler.name == "mlp"
    assert (config.optim.name, config.optim.betas, config.optim.weight_decay) == ("adamw", (0.9, 0.98), 0.05)
    assert config.optim.grad_clip == 0.5
    assert warmup_steps(config.schedule, Length(95, 10)) == 9
    assert (config.schedule.name, config.schedule.warmup_factor) == ("linear", 0)
    assert str(config.validation.every) == str(config.save.every) == "1 epoch"


def test_factors_of_the_overlap_losses():
    """R22 and section 5: 25, 25, 1; of the local form 1, 1, 0.01."""
    overlap = open_recipe("panollava/vision").config.system.overlap
    assert (overlap.name, overlap.factors()) == ("vicreg", (25, 25, 1))
    local = open_recipe("panollava/vision", ["system.overlap.name=vicreg_local"]).config.system.overlap
    assert local.factors() == (1, 1, 0.01)


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("vision", {"vision"}),
        ("resampler", {"vision", "resampler", "projector"}),
        ("finetune", {"resampler", "projector"}),
        ("lora", {"resampler", "projector", "language"}),
    ],
)
def test_a_stage_changes_its_own_parts(runs, stage, parts):
    """R22 to R24: exactly these groups; of a language model with adapters these alone."""
    changed = _changed(runs[stage])
    assert {name.split(".")[1] for name in changed} == parts
    language = [name for name in changed if name.startswith("model.language.")]
    assert all(".lora_" in name for name in language)
    rows = [row for row in read_metrics(runs[stage] / "metrics.csv") if row["phase"] == "train"]
    terms = {"invariance", "variance", "covariance"} if stage == "vision" else {"lm_loss"}
    assert terms <= rows[0].keys()


@pytest.mark.parametrize("stage", ["vision", "resampler", "lora"])
def test_final_file_is_written_though_weights_are_tied(runs, stage):
    """R5, R37 and section 8: once each, the network of final/, with what it takes to read it."""
    file = runs[stage] / "model_final.safetensors"
    assert not [path for path in runs[stage].iterdir() if path.name.endswith(".tmp")]
    final = {name: v for name, v in weights_of(runs[stage]).items() if name.startswith("model.")}
    found = load_file(file)
    assert found.keys() == final.keys()
    assert all(torch.equal(value, final[name]) for name, value in found.items())
    assert not any(name.endswith("lm_head.weight") for name in found)
    with safe_open(file, "pt") as opened:
        told = opened.metadata()
    assert told["stage"] == {"lora": "finetune"}.get(stage, stage)
    assert json.loads(told["mean"]) == [0.5, 0.5, 0.5]
    assert json.loads(told["system"])["vision"]["name"] == "random"
    assert (runs[stage] / "lora_weights" / "adapter_model.safetensors").is_file() == (stage == "lora")


def test_final_file_starts_a_training(runs, data, tmp_path):
    file = runs["resampler"] / "model_final.safetensors"
    run = _train(tmp_path, "on", data, "finetune", "--init", file, "optim.lr=1e-30", "train.length=1")
    before, after = weights_of(runs["resampler"]), weights_of(run)
    buffers = ("running_mean", "running_var", "num_batches_tracked")  # of batches; they move without a rate
    for name, value in before.items():
        if not name.endswith(buffers):
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-7)


def test_best_has_the_lowest_validation_loss(data, tmp_path):
    """R29: of every epoch; a rate that destroys makes the last one worse."""
    words = ["train.length=3 epochs", "optim.lr=0.5", "schedule.name=constant", "schedule.warmup=0"]
    run = _train(tmp_path, "best", data, "resampler", *words)
    losses = {row["step"]: row["loss"] for row in read_metrics(run / "metrics.csv") if row["phase"] == "val"}
    assert list(losses) == [2, 4, 6]
    meta = json.loads((run / "checkpoints" / "best" / "meta.json").read_text(encoding="utf-8"))
    assert meta["step"] == min(losses, key=losses.get)
    assert (run / "checkpoints" / "last.txt").read_text(encoding="utf-8").strip() == "step_000006"


def test_two_and_two_steps_are_four(data, tmp_path):
    """R25: within a stage the same bits, statistics of the resampler's batches included."""
    words = ["optim.lr=1e-2", "schedule.name=constant", "save.every=2", "validate.every=2"]
    whole = _train(tmp_path, "whole", data, "resampler", *words, "train.length=4")
    half = _train(tmp_path, "half", data, "resampler", *words, "train.length=2")
    assert omma("resume", half, "train.length=4") == 0
    expected, found = weights_of(whole), weights_of(half)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert [row["step"] for row in read_metrics(half / "metrics.csv") if row["phase"] == "train"] == [
        1,
        2,
        3,
        4,
    ]


def test_resume_of_another_stage_takes_weights_only(runs, data, tmp_path, capsys):
    """R25: said in one line, and the training begins at its first step."""
    root = runs["resampler"].parent
    words = ["--name", "from_resume", "--runs-dir", root, f"data.root={data}", *TINY, *ONE_STEP]
    assert omma("train", "panollava/finetune", *words, "--resume", "resampler") == 0
    assert "its weights only" in capsys.readouterr().out
    assert "weights from resampler, weights only" in _said(root / "from_resume")
    status = json.loads((root / "from_resume" / "status.json").read_text(encoding="utf-8"))
    assert status["step"] == 1


def test_published_checkpoint_of_the_same_stage_goes_on(runs, data, tmp_path):
    """R25 for a file of the original: its step and optimiser; of another stage its weights."""
    source = _train(tmp_path, "source", data, "resampler", *ONE_STEP, "system.projector.position=none")
    assert omma("export", f"{source}@final", "--format", "reference") == 0
    weights = torch.load(source / "export" / "model.pt", weights_only=True)["model_state_dict"]
    content = {"state_dict": weights, "global_step": 5, "hyper_parameters": {"stage": "resampler"}}
    file = tmp_path / "last.ckpt"
    torch.save({**content, "optimizer_states": [{"state": {}}]}, file)
    words = ["system.projector.position=none", "--resume", file, "optim.lr=1e-4"]
    same = _train(tmp_path, "same", data, "resampler", *words, "train.length=6")
    assert [row["step"] for row in read_metrics(same / "metrics.csv") if row["phase"] == "train"] == [6]
    assert "at step 5" in _said(same)
    other = _train(tmp_path, "other", data, "finetune", *words, "train.length=1")
    assert "its weights only" in _said(other)


def test_flags_of_the_original_scripts(data, tmp_path, capsys):
    """R6, R34, R46: the table of section 6.4 sets what it names, and --stage chooses the recipe."""
    flags = ["--stage", "vision", "--epochs", 1, "--batch-size", 2, "--lr", "1e-4", "--data-dir", data]
    flags += ["--num-workers", 0, "--overlap-ratio", 0.6, "--image-size", "16x16", "--max_text_length", 99]
    small = [
        word
        for word in TINY
        if not word.startswith(("train.batch_size", "train.workers", "data.", "system.text"))
    ]
    words = ["--name", "flags", "--runs-dir", tmp_path, *small]
    assert omma("train", "panollava", *flags, *words) == 0
    assert "read --stage vision -> panollava/vision" in capsys.readouterr().out
    config = RunFolder(tmp_path / "flags").config()
    assert config["system"]["stage"] == "vision"
    assert config["system"]["text"]["max_length"] == 99
    assert config["train"]["length"] == "1 epoch"
    assert (config["train"]["batch_size"], config["optim"]["lr"]) == (2, 1e-4)
    assert (config["data"]["root"], config["data"]["views"]["overlap"]) == (str(data), 0.6)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["panollava", "--stage", "visoin"], "no such stage"),
        (["panollava/vision", "--stage", "resampler"], "two recipes"),
        (["panollava", "--stage"], "a value is missing"),
        (["panollava", "--stagee", "vision"], "did you mean --stage"),
    ],
)
def test_flags_that_cannot_be_read(tmp_path, capsys, words, text):
    assert _run(["train", *words, "--runs-dir", str(tmp_path)], debug=False) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
