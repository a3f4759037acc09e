"""PanoLLaVA learns: colours in four directions, a tower without text, and questions about the world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.pano_toy import Squares

from omma.data.dataset import Samples
from omma.engine.loop import fit
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder
from omma.systems.panollava.checks import question_only
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.data import build
from omma.systems.panollava.samples import Collate
from omma.systems.panollava.task import PanoTask
from omma.systems.recipes import open_recipe
from omma.world.build import build as build_world

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
LANGUAGE = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
SQUARES = {
    "train": ["vision", "resampler", "projector", "language"],
    "vision": {"name": "random", "config": TOWER},
    "language": {"name": "random", "config": LANGUAGE},
    "resampler": {"name": "mlp", "width": 64},
    "generate": {"answers": True, "max_new_tokens": 4},
}
PANORAMAS = {"stage": "vision", "vision": {"name": "random", "config": {**TOWER, "image_size": 48}}}


def recipe(steps: int, system: dict[str, Any], data: dict[str, Any]) -> PanoConfig:
    """A recipe of so many steps of batch 32, validated at the end."""
    values = {
        "system": system,
        "data": data,
        "optim": {"name": "adamw", "lr": 1e-3, "grad_clip": 0.5},
        "schedule": {"name": "constant", "warmup": 20},
        "train": {"length": steps, "batch_size": 32, "workers": 0, "device": "cpu"},
        "validate": {"every": steps},
        "save": {"every": steps},
        "log": {"every": 25, "tensorboard": False},
    }
    return PanoConfig.model_validate_json(json.dumps(values))


def learn(root: Path, config: PanoConfig, data: tuple[Samples, Samples, Collate]) -> PanoTask:
    """The task of a recipe after its steps."""
    torch.manual_seed(0)
    task, threads = PanoTask(config), torch.get_num_threads()
    run = RunFolder.create(root, "learning", config=config.as_dict(), command=["omma", "train"])
    torch.set_num_threads(1)  # of networks as small as these, a second one only gets in the way
    try:
        fit(task, *data, config, run, best=("val/loss", "min"), console=RunLog(run.log_file, quiet=True))
    finally:
        torch.set_num_threads(threads)
    return task


@torch.no_grad()
def measured(task: PanoTask, samples: Samples, collate: Collate) -> dict[str, float]:
    """All metrics of a set."""
    meters = task.eval().meters()
    for start in range(0, len(samples), 64):
        indices = range(start, min(start + 64, len(samples)))
        task.validation_step(collate([samples[index] for index in indices]), meters)
    return {name: value for meter in meters.values() for name, value in meter.compute().items()}


@pytest.mark.parametrize("rendered", [False, True], ids=["painted", "rendered"])
def test_the_colour_in_a_direction(tmp_path, rendered) -> None:
    """Chance is 1/6; who sees the colours and not where they are reaches about one half."""
    config = recipe(600, SQUARES, {"views": {"image_size": [16, 16], "overlap": 0.0}})
    train = Squares(range(600 * 32), config, rendered=rendered)
    test = Squares(range(100_000, 100_512), config, rendered=rendered)
    collate = Collate(train.talk.pad_id)
    task = learn(tmp_path, config, (train, test, collate))
    assert measured(task, test, collate)["exact_match"] >= 0.95


def test_a_tower_without_text_does_not_collapse(tmp_path) -> None:
    """VICReg between overlapping views of the world's panoramas, from random weights."""
    world = tmp_path / "data"
    build_world("quic360", world, scenes=16, val_scenes=4, frames=4, seed=2, image_size=(96, 192))
    config = recipe(100, PANORAMAS, {"root": str(world), "views": {"image_size": [48, 48]}})
    (train, collate), (test, _) = (
        build(config, split, augment=split == "train") for split in ("train", "val")
    )
    torch.manual_seed(0)
    start = measured(PanoTask(config), test, collate)
    end = measured(learn(tmp_path, config, (train, test, collate)), test, collate)
    assert end["loss"] < start["loss"]
    assert end["effective_rank"] >= 0.5 * start["effective_rank"]
    assert end["overlap_retrieval"] > 1.1 * start["overlap_retrieval"]


def test_colours_of_cars_in_the_world(tmp_path) -> None:
    """The first part of the world's recipe: what it begins with is learned far beyond guessing."""
    world = tmp_path / "data"
    build_world("quic360", world, scenes=80, val_scenes=10, frames=6, image_size=(96, 192), workers=2)
    words = [f"data.root={world}", "data.begin_with.epochs=100", "schedule.name=constant"]
    words += ["train.length=600", "train.device=cpu", "train.workers=0", "validate.every=600"]
    config = open_recipe("panollava/world", words).config
    (train, collate), (test, _) = (
        build(config, split, augment=split == "train") for split in ("train", "val")
    )
    test.questions = [one for one in test.questions if one.query.startswith("Which colour")]
    guessed = question_only(train.questions, test.questions)
    assert guessed < 0.35
    task = learn(tmp_path, config, (train, test, collate))
    assert measured(task, test, collate)["exact_match"] >= guessed + 0.25
