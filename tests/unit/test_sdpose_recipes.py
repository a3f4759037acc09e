"""Recipes of SDPose: the guide's numbers and presets, the published variants, and that each one trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omma.cli import _run
from omma.engine.optim import build_optimizer
from omma.engine.schedule import Length, lr_factor
from omma.engine.task import StepInfo
from omma.systems import get, sdpose
from omma.systems.recipes import open_recipe
from omma.systems.sdpose.config import AugmentSection
from omma.systems.sdpose.task import SDPoseTask

RECIPES = Path(sdpose.__file__).parent / "recipes"
NETWORK = ["data.image_size=[64, 48]", "system.dim=24", "system.depth=1", "system.heads=2"]


def _omma(*words: object) -> int:
    return _run([str(word) for word in words], debug=True)


def _task(*words: str, recipe: str = "sdpose/s_v1") -> SDPoseTask:
    torch.manual_seed(0)
    return SDPoseTask(open_recipe(recipe, [*NETWORK, *words]).config)


def test_guides_numbers():
    """R9, R10, R17 to R24, R26: what the guide's file says, under our names."""
    config = open_recipe("sdpose").config
    optim, schedule, train = config.optim, config.schedule, config.train
    assert (train.batch_size, train.workers, str(train.length)) == (64, 2, "300 epochs")
    assert (optim.name, optim.lr, optim.weight_decay, optim.grad_clip) == ("adam", 1e-3, 0, 1.0)
    assert (optim.betas, optim.eps) == ((0.9, 0.999), 1e-8)
    assert ([str(at) for at in schedule.at], schedule.gamma) == (["200 epochs", "260 epochs"], 0.1)
    assert (str(schedule.warmup), schedule.warmup_factor) == ("500", 0.001)
    assert (str(config.save.every), config.save.keep_last, config.log.every) == ("10 epochs", 3, 50)
    assert (str(config.validation.every), config.save.reference) == ("10 epochs", True)
    assert get("sdpose").best == ("AP", "max")


@pytest.mark.parametrize(
    ("recipe", "batch", "tokens", "depth", "cycles", "backbone"),
    [
        ("t", 64, (4, 3), 6, 3, "stemnet"),
        ("s_v1", 64, (4, 3), 12, 2, "stemnet"),
        ("s_v2", 24, (2, 2), 12, 2, "stemnet"),
        ("b", 32, (4, 3), 12, 2, "hrnet_w32"),
    ],
)
def test_published_variants(recipe, batch, tokens, depth, cycles, backbone):
    """Section 3.1, R17, D1, D2, D4: nothing detached, no clipping, both token losses 5e-6."""
    config = open_recipe(f"sdpose/{recipe}").config
    system = config.system
    assert (config.train.batch_size, system.patch, system.depth) == (batch, tokens, depth)
    assert (system.cycles, system.backbone.name) == (cycles, backbone)
    assert (system.dim, system.heads, system.mlp_ratio, system.position) == (192, 8, 3, "sine-full")
    distill = system.distill
    assert (distill.loss, distill.loss_weight, distill.detach_teacher) == ("plain", 5e-6, False)
    assert config.optim.grad_clip is None


@pytest.mark.parametrize(
    ("recipe", "changed"),
    [
        ("maskedkd_v2", {}),
        ("maskedkd_ratio_0.5", {"mask_ratio": 0.5}),
        ("maskedkd_weight_1e4", {"loss_weight": 1e-4}),
        ("maskedkd_importance", {"mask_strategy": "importance"}),
    ],
)
def test_guides_presets(recipe, changed):
    """R4, R27 to R30."""
    expected = {"loss": "masked", "loss_weight": 1e-5, "mask_ratio": 0.3, "mask_strategy": "random"} | changed
    config = open_recipe(f"sdpose/{recipe}").config
    assert {name: getattr(config.system.distill, name) for name in expected} == expected
    assert (config.optim.grad_clip, config.system.distill.detach_teacher) == (1.0, True)


def test_fast_preset():
    """R37, D6: the steps of the learning rate move along with the length."""
    config = open_recipe("sdpose/fast").config
    assert (str(config.train.length), str(config.validation.every)) == ("100 epochs", "5 epochs")
    assert [at.count for at in config.schedule.at] == [round(200 / 3), round(260 / 3)]


def test_augmentation():
    """D5: SDPose's own, not mmpose's."""
    expected = {
        "shift": 0.16, "shift_chance": 0.3, "flip_chance": 0.5, "half_body_chance": 0.3,
        "half_body_draw": "published", "scale": 0.35, "rotation_deg": 45, "rotation_chance": 0.6,
    }  # fmt: skip
    assert AugmentSection().model_dump() == expected
    assert open_recipe("sdpose").config.data.augment == AugmentSection()


@pytest.mark.parametrize(
    ("epoch", "step", "rate"),
    [
        *[(0, 0, 1e-6), (0, 250, 1e-3 * (1 - 0.5 * 0.999)), (1, 207, 1e-3)],
        *[(199, 292, 1e-3), (200, 0, 1e-4), (259, 292, 1e-4), (260, 0, 1e-5), (299, 292, 1e-5)],
    ],
)
def test_learning_rate(epoch, step, rate):
    """R20, R22: warm-up by steps, drops at the start of the 201st and the 261st epoch."""
    config = open_recipe("sdpose").config
    found = config.optim.lr * lr_factor(config.schedule, 293 * epoch + step, Length(293 * 300, 293))
    assert found == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_every_recipe_trains(name):
    """R19, section 11: each one builds and takes a step that changes the weights."""
    words = ["system.backbone.pretrained=none", "optim.lr=1e-3"]
    task = _task(*words, recipe=f"sdpose/{name}").train()
    assert task.train_terms[0] == "heatmap_loss"
    optimizer = build_optimizer(task.config.optim, task.param_groups(1e-3, task.config.optim.weight_decay))
    before = task.model.head.keypoint_token.detach().clone()
    terms = task.training_step(task.example_batch(2), StepInfo(0, 0, 0.0))
    assert set(task.train_terms) == set(terms) - {"loss"}
    terms["loss"].backward()
    optimizer.step()
    assert all(torch.isfinite(value) for value in terms.values())
    assert not torch.equal(before, task.model.head.keypoint_token)


def test_sweep_lists_its_runs(capsys):
    """R31: three ratios, three weights, two strategies."""
    assert _omma("sweep", "sdpose/sweep", "--name", "grid", "--dry-run") == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("grid-")]
    assert len(listed) == len({row[0] for row in listed}) == 18
    assert len({tuple(row[1:]) for row in listed}) == 18


def test_a_share_of_one_cannot_be_masked(capfd):
    """R29."""
    words = ["train", "sdpose/maskedkd_v2", "system.distill.mask_ratio=1", "--runs-dir", "nowhere"]
    assert _run(words, debug=False) == 2
    assert "system.distill.mask_ratio" in capfd.readouterr().err


def test_terms_of_each_kind_of_token():
    """R27: visual and keypoint tokens with a loss, a weight, a ratio and a strategy of their own."""
    words = ["system.distill.loss=masked", "system.distill.keypoint.loss=none"]
    words += ["system.distill.visual={loss_weight: 1.0e-4, mask_ratio: 0.5, mask_strategy: importance}"]
    task = _task(*words)
    assert task.train_terms == ("heatmap_loss", "vis_dist_loss", "acc_pose")
    (term,) = task.loss.terms
    assert (term.loss_weight, term.mask_ratio, term.mask_strategy) == (1e-4, 0.5, "importance")
