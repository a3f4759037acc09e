"""Recipes of Lift-Splat-Shoot hold the documented defaults, and wrong settings are named."""

from __future__ import annotations

import pytest

from omma.config.base import Period
from omma.errors import ConfigError
from omma.systems import get
from omma.systems.lss.config import LSSConfig
from omma.systems.recipes import open_recipe

RECIPES = sorted(get("lss").recipes())


def _open(recipe: str, *overrides: str) -> LSSConfig:
    config = open_recipe(f"lss/{recipe}", overrides).config
    assert isinstance(config, LSSConfig)
    return config


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_and_says_how_to_start_it(recipe: str) -> None:
    _open(recipe)
    head = get("lss").recipes()[recipe].read_text(encoding="utf-8").splitlines()[:3]
    assert all(line.startswith("#") for line in head[:2])
    assert any("omma " in line for line in head)


def test_defaults_are_those_of_the_original_guide() -> None:
    config = _open("base")
    assert (config.train.length, config.train.batch_size, config.train.workers) == (
        Period(100, "epochs"),
        4,
        4,
    )
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-3, 1e-7)
    assert config.optim.grad_clip == 5.0
    assert (config.validation.every, config.save.every) == (Period(500), Period(1000))
    assert config.log.every == 10
    assert (config.data.source_size, config.data.image_size) == ((224, 480), (128, 352))
    assert config.data.num_cameras == 6
    grid = config.system.grid
    assert (grid.x, grid.y, grid.z, grid.depth) == ((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20), (4, 45, 1))
    assert config.system.targets == {"vehicle": ["car", "truck", "bus"]}
    assert config.system.loss.name == "bce"
    assert config.data.augment.rotate_deg == (-5.4, 5.4)
    assert not config.data.invert_extrinsics


def test_small_is_the_quick_test() -> None:
    config = _open("small")
    assert (config.train.length, config.train.batch_size, config.train.workers) == (
        Period(10, "epochs"),
        2,
        2,
    )
    assert (config.validation.every, config.save.every) == (Period(50), Period(100))
    assert config.optim.weight_decay == 1e-7, "the rest comes from base"


def test_problems_name_the_key_and_what_would_do() -> None:
    with pytest.raises(ConfigError) as error:
        _open(
            "base",
            "data.image_size=[100, 352]",
            "system.grid.x=[-50, 50, 0.7]",
            "system.grid.y=[-50, 50, 1]",
            "system.grid.depth=[0, 45, 1]",
        )
    text = str(error.value)
    assert "data.image_size: the height must be a multiple of 32, such as 96" in text
    assert "system.grid.x: -50.0 to 50.0 m holds 142.857 cells of 0.7 m" in text
    assert "system.grid.y: holds 100 cells; the network needs a multiple of 8" in text
    assert "system.grid.depth" in text


def test_class_weights_must_name_targets() -> None:
    assert _open("base", "system.loss.class_weights={vehicle: 2.0}").system.loss.class_weights == {
        "vehicle": 2.0
    }
    with pytest.raises(ConfigError, match="class_weights names car, which is no target"):
        _open("base", "system.loss.class_weights={car: 2.0}")


def test_targets_are_replaced_not_merged() -> None:
    assert _open("base", "system.targets={road: [road]}").system.targets == {"road": ["road"]}


def test_a_loss_of_another_kind_starts_from_its_own_defaults() -> None:
    loss = _open("base", "system.loss.name=focal").system.loss
    assert loss.name == "focal"
    assert loss.gamma == 2.0
    assert _open("base", "system.loss.pos_weight=3").system.loss.pos_weight == 3.0


def test_height_and_width_are_set_one_by_one() -> None:
    assert _open("base", "data.image_size.0=96", "data.image_size.1=256").data.image_size == (96, 256)


def test_config_is_a_recipe_again() -> None:
    config = _open("literature/nuscenes", "data.root=/data")
    assert LSSConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config
