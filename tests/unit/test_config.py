"""Recipes: layers, overrides, sources, and what a mistake is answered with."""

import json
import random
import string

import pytest
import yaml

from omma.commands.recipes import copy_recipe
from omma.config.base import Period, RunConfig
from omma.config.explain import all_keys, nearest
from omma.config.load import hash_config
from omma.config.sweep import expand_grid
from omma.config.yaml import dump_yaml, parse_yaml, read_yaml
from omma.errors import ConfigError, UsageError
from omma.systems import systems
from omma.systems.lss.config import LSSConfig
from omma.systems.recipes import chain_stages, open_recipe


def test_every_recipe_resolves_and_says_where_each_value_is_from():
    for system in systems().values():
        for name in system.recipes():
            stages = chain_stages(f"{system.name}/{name}")
            if stages:  # its stages are recipes of their own, which this loop meets too
                assert {stage.recipe.partition("/")[0] for stage in stages} == {system.name}
                assert {stage.recipe.partition("/")[2] for stage in stages} <= set(system.recipes())
                continue
            recipe = open_recipe(f"{system.name}/{name}")
            assert recipe.config.system.name == system.name
            assert set(recipe.sources.values()) >= {"default"}
            assert any(source == f"recipe {system.name}/{name}" for source in recipe.sources.values())


def test_resolved_config_is_a_recipe_of_the_same_hash(tmp_path):
    """E7: config.yaml given back to omma yields the same config."""
    first = open_recipe("lss/demo", ["optim.lr=3e-5", "data.root=D:\\Daten 데이터"])
    file = tmp_path / "again.yaml"
    file.write_text(dump_yaml(first.config.as_dict()), encoding="utf-8")
    second = open_recipe(str(file))
    assert hash_config(second.config) == hash_config(first.config)
    assert second.config.optim.lr == 3e-5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        ("12", 12),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        (".5", 0.5),
        ("1_0", 10),
    ],
)
def test_yaml_reads_numbers_and_words_as_people_expect(text, value):
    parsed = parse_yaml(f"key: {text}", "test")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_yaml_names_line_of_a_mistake_and_double_keys(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("optim:\n  lr: 1\n  lr: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 3.*'lr' stands twice"):
        read_yaml(file)


def test_all_problems_are_reported_at_once_with_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        open_recipe("lss/base", ["optim.lrr=1", "trian.batch_size=2", "bsz=3"])
    message = str(caught.value)
    assert "3 problems" in message
    assert "optim.lrr: no such option; did you mean optim.lr" in message
    assert "train.batch_size" in message
    assert "bsz: no such option; here it is train.batch_size" in message


def test_all_bad_values_are_reported_at_once_with_their_source(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: lss/base\noptim: {lr: -1, momentun: 0.5}\ntrain: {length: soon}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        open_recipe(str(file))
    message = str(caught.value)
    assert "3 problems" in message
    assert "optim.momentun: no such option; did you mean optim.momentum" in message
    assert "optim.lr: should be greater than 0, not -1" in message
    assert "train.length: a period is" in message
    assert message.count(str(file)) == 3


def _typo(key: str, rng: random.Random) -> str:
    """One edit in a random place: delete, insert, replace or swap."""
    place = rng.randrange(len(key))
    letter = rng.choice(string.ascii_lowercase)
    return rng.choice(
        [
            key[:place] + key[place + 1 :],
            key[:place] + letter + key[place:],
            key[:place] + letter + key[place + 1 :],
            key[:place] + key[place : place + 2][::-1] + key[place + 2 :],
        ]
    )


def test_single_edit_typos_are_rejected_and_the_right_key_suggested():
    """E6: of 200 random typos every one is rejected and 95 % name the right key."""
    keys, rng = all_keys(LSSConfig), random.Random(0)
    tried = found = 0
    while tried < 200:
        key = rng.choice(keys)
        typo = _typo(key, rng)
        if typo in keys or any(typo.startswith(f"{real}.") for real in keys) or "=" in typo:
            continue
        tried += 1
        with pytest.raises(ConfigError):
            open_recipe("lss/base", [f"{typo}=1"])
        found += key in nearest(typo, keys)
    assert found >= 190


def test_override_of_one_list_element():
    assert open_recipe("lss/base", ["data.image_size.0=96"]).config.data.image_size == (96, 352)
    with pytest.raises(ConfigError, match=r"data.image_size.7: the list has 2 elements"):
        open_recipe("lss/base", ["data.image_size.7=96"])


def test_a_tagged_section_starts_anew_when_its_name_changes():
    config = open_recipe("lss/demo", ["schedule.name=step", "schedule.every=2 epochs"]).config
    assert config.schedule.every == Period(2, "epochs")
    with pytest.raises(ConfigError, match=r"final_factor: goes with schedule.name=cosine"):
        open_recipe("lss/demo", ["schedule.name=step", "schedule.final_factor=0.1"])


def test_a_key_of_another_variant_names_the_variant():
    with pytest.raises(ConfigError, match=r"schedule.every: goes with schedule.name=step, which is not"):
        open_recipe("lss/base", ["schedule.every=3"])


def test_a_tagged_section_without_a_name_is_the_default_one():
    assert open_recipe("lss/base", ["schedule.warmup=7"]).config.schedule.warmup == Period(7)
    assert open_recipe("lss/base", ["system.loss.pos_weight=3"]).config.system.loss.pos_weight == 3


def test_a_mapping_value_is_replaced_not_merged():
    config = open_recipe("lss/base", ["system.targets.road=[road]"]).config
    assert config.system.targets == {"road": ["road"]}


@pytest.mark.parametrize(
    ("value", "steps"), [(500, 500), ("500", 500), ("2 epochs", 14), ("1 epoch", 7), ("30 steps", 30)]
)
def test_period_counts_in_steps_or_epochs(value, steps):
    assert Period.parse(value).steps(7) == steps


@pytest.mark.parametrize("value", [-1, 1.5, True, "two epochs", "5 days", None])
def test_period_refuses_other_forms(value):
    with pytest.raises(ValueError, match="2 epochs"):
        Period.parse(value)


def test_data_root_is_found_in_order(tmp_path, monkeypatch):
    """Override, recipe, environment, user file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("APPDATA", raising=False)
    monkeypatch.delenv("OMMA_DATA_LSS", raising=False)
    (tmp_path / "omma").mkdir()
    (tmp_path / "omma" / "data.yaml").write_text("lss: from_user_file\n", encoding="utf-8")
    assert open_recipe("lss/base").config.data.root == "from_user_file"
    monkeypatch.setenv("OMMA_DATA_LSS", "from_environment")
    recipe = open_recipe("lss/base")
    assert (recipe.config.data.root, recipe.sources["data.root"]) == ("from_environment", "OMMA_DATA_LSS")
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: lss/base\ndata: {root: from_recipe}\n", encoding="utf-8")
    assert open_recipe(str(mine)).config.data.root == "from_recipe"
    assert open_recipe(str(mine), ["data.root=from_override"]).config.data.root == "from_override"


def test_a_recipe_that_extends_itself_is_refused(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("extends: two.yaml\n", encoding="utf-8")
    two.write_text("extends: one.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="extends itself"):
        open_recipe(str(one))


def test_a_chain_where_one_training_is_meant_names_its_stages(tmp_path):
    with pytest.raises(ConfigError, match=r"chain of trainings\n.*panollava/resampler, panollava/finetune"):
        open_recipe("panollava/all")
    copy_recipe("panollava/all", tmp_path / "mine.yaml")  # an `extends:` would be no chain
    assert [stage.name for stage in chain_stages(str(tmp_path / "mine.yaml"))] == [
        "vision",
        "resampler",
        "finetune",
    ]


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean lss/base"):
        open_recipe("lss/bse")


def test_schema_is_json_and_knows_all_sections():
    schema = json.loads(json.dumps(LSSConfig.model_json_schema()))
    assert set(schema["properties"]) >= {
        "system",
        "data",
        "optim",
        "schedule",
        "train",
        "validate",
        "save",
        "log",
    }


def test_dumped_yaml_reads_the_same_with_any_yaml_reader():
    values = RunConfig.model_validate_json('{"system": {"name": "x"}, "data": {}}').as_dict() | {
        "tiny": 1e-7,
        "text": "1e3",
        "no": "no",
    }
    assert yaml.safe_load(dump_yaml(values)) == values
    assert parse_yaml(dump_yaml(values), "test") == values


def test_grid_expansion():
    assert expand_grid(["a=1,2", "b=[1, 2]", "c=x"]) == [
        ["a=1", "b=[1, 2]", "c=x"],
        ["a=2", "b=[1, 2]", "c=x"],
    ]
