"""A run of models with names needs them once: evaluation and resume work where hub and folders are gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.unit.pano_files import TINY, write_set

from omma.cli import _run
from omma.systems.panollava.config import LanguageSection
from omma.systems.panollava.text import load_tokenizer
from omma.systems.recipes import open_recipe

pytestmark = pytest.mark.e2e


def _omma(*words: object) -> int:
    return _run([str(word) for word in words], debug=False)


def _write_models(folder: Path) -> list[str]:
    """A tower and a language model with its tokenizer as folders of transformers, and settings for them."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    settings = open_recipe("panollava/finetune", TINY).config.as_dict()["system"]
    tokenizer = load_tokenizer(LanguageSection(name="random"))
    made = {"vision": AutoModel, "language": AutoModelForCausalLM}
    for part, kind in made.items():
        values = dict(settings[part]["config"])
        more = {"vocab_size": len(tokenizer)} if part == "language" else {}
        config = AutoConfig.for_model(values.pop("model_type"), **values, **more)
        kind.from_config(config).save_pretrained(folder / part)
    tokenizer.save_pretrained(folder / "language")
    names = [f"system.{part}.name={(folder / part).as_posix()}" for part in made]
    return [*names, "system.vision.config={}", "system.language.config={}"]


def test_what_a_run_was_made_of_may_be_gone(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("omma.commands.train._finish", lambda *args: None)
    data, models = write_set(tmp_path / "data"), tmp_path / "models"
    words = [*TINY, *_write_models(models), f"data.root={data}", "train.length=2", "save.every=2"]
    run = tmp_path / "runs" / "named"
    assert _omma("train", "panollava/finetune", "--name", "named", "--runs-dir", run.parent, *words) == 0
    assert _omma("eval", run) == 0
    metrics = run / "eval" / "val" / "metrics.json"
    before = json.loads(metrics.read_text(encoding="utf-8"))["metrics"]
    shutil.move(models, tmp_path / "elsewhere")
    metrics.unlink()
    capsys.readouterr()
    assert _omma("eval", run) == 0, capsys.readouterr().err
    assert json.loads(metrics.read_text(encoding="utf-8"))["metrics"] == before
    assert _omma("resume", run, "train.length=4") == 0, capsys.readouterr().err
    assert _omma("eval", run, "system.language.name=no/such") == 2
    assert "no/such" in capsys.readouterr().err
    assert _omma("train", run, "--name", "again", "--runs-dir", run.parent) == 2
    assert "cannot be had" in capsys.readouterr().err
