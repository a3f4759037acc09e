"""E1, E6, E7 and E11 for every system: light verbs, typos, configs that come back, code that is no copy."""

import difflib
import itertools
import json
import random
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

import omma.systems
from omma.config.explain import all_keys
from omma.config.load import hash_config
from omma.config.yaml import dump_yaml, parse_yaml
from omma.errors import ConfigError
from omma.systems import System, systems
from omma.systems.recipes import chain_stages, open_recipe

EVERY = pytest.mark.parametrize("system", systems().values(), ids=lambda system: system.name)
TABLE = Path(__file__).parents[1] / "acceptance.md"
LIGHT = """
import contextlib, io, json, sys
from omma.cli import _run
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert _run(words, debug=True) == 0, words
    assert out.getvalue()
print([name for name in ("torch", "lightning", "matplotlib", "timm", "transformers") if name in sys.modules])
"""


def test_help_lists_and_shows_of_every_system_import_nothing_heavy():
    """E1."""
    shows = [["show", f"{system.name}/base"] for system in systems().values()]
    schemas = [["show", system.name, "--schema"] for system in systems().values()]
    words = [["--help"], ["train", "--help"], ["ls"], *shows, *schemas]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _leaves(system: System) -> list[str]:
    keys = all_keys(system.load_config())
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def _changed(key: str, taken: set[str], draw: random.Random) -> str:
    """The key with one letter of its last part replaced, so that it is no other key."""
    head, dot, leaf = key.rpartition(".")
    while True:
        place = draw.randrange(len(leaf))
        typo = f"{head}{dot}{leaf[:place]}{draw.choice(string.ascii_lowercase)}{leaf[place + 1 :]}"
        if typo not in taken:
            return typo


def _typos(system: System) -> dict[str, str]:
    """Misspelt key -> the key that was meant; one for every leaf."""
    draw, leaves = random.Random(7), _leaves(system)
    taken = set(all_keys(system.load_config()))
    return {_changed(key, taken, draw): key for key in leaves}


@EVERY
def test_one_wrong_letter_in_any_key_is_rejected_with_the_key_that_was_meant(system):
    """E6, as overrides: all of them in one command, each with its line."""
    typos = _typos(system)
    assert len(typos) > 60
    with pytest.raises(ConfigError) as caught:
        open_recipe(f"{system.name}/base", [f"{typo}=1" for typo in typos])
    lines = {line.strip().partition(": ")[0]: line for line in str(caught.value).splitlines()[1:]}
    assert set(lines) == set(typos)
    wrong = {
        typo: lines[typo]
        for typo, key in typos.items()
        if not re.search(rf"\b{re.escape(key)}\b", lines[typo])
    }
    assert wrong == {}


@EVERY
def test_one_wrong_letter_in_a_recipe_file_is_rejected_too(system, tmp_path):
    """E6, in a file: every section holds one misspelt key beside the right ones."""
    config = open_recipe(f"{system.name}/base").config.as_dict()
    draw, meant = random.Random(3), {}
    taken = set(all_keys(system.load_config()))
    for section, values in config.items():
        if isinstance(values, dict):
            key = draw.choice([f"{section}.{name}" for name in values if len(name) > 3 and name != "name"])
            typo = _changed(key, taken, draw)
            config[section] = {**values, typo.rpartition(".")[2]: 1}
            meant[typo] = key
    file = tmp_path / "내 recipe.yaml"
    file.write_text(dump_yaml(config), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        open_recipe(str(file))
    lines = {line.strip().partition(": ")[0]: line for line in str(caught.value).splitlines()[1:]}
    assert set(lines) == set(meant)
    for typo, key in meant.items():
        assert "no such option" in lines[typo]
        assert key in lines[typo], lines[typo]
        assert str(file) in lines[typo]


@EVERY
def test_every_recipe_written_out_and_read_back_is_the_same(system, tmp_path):
    """E7: the resolved config is a recipe of the same values and the same hash."""
    for number, name in enumerate(system.recipes()):
        if chain_stages(f"{system.name}/{name}"):
            continue
        first = open_recipe(f"{system.name}/{name}", ["data.root=D:\\Daten 데이터", "seed=3"]).config
        text = dump_yaml(first.as_dict())
        file = tmp_path / f"{number}.yaml"
        file.write_text(text, encoding="utf-8")
        second = open_recipe(str(file)).config
        assert hash_config(second) == hash_config(first), name
        assert second == first
        assert dump_yaml(second.as_dict()) == text
        assert parse_yaml(text, name) == second.as_dict()


def test_no_file_of_a_system_is_a_copy_of_another():
    """E11: no two files above 60 %; the records in `__init__.py` fill in the same form and do not count."""
    root = Path(omma.systems.__file__).parent
    files = {file: file.read_text(encoding="utf-8").split("\n") for file in root.rglob("*.py")}
    long = {
        file: [line.strip() for line in lines if line.strip()]
        for file, lines in files.items()
        if len(lines) > 20 and file.name != "__init__.py"
    }
    assert len(long) > 50
    alike = []
    for one, other in itertools.combinations(long, 2):
        matcher = difflib.SequenceMatcher(None, long[one], long[other], autojunk=False)
        if all(ratio() > 0.6 for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)):
            alike.append((one.relative_to(root), other.relative_to(root), round(matcher.ratio(), 2)))
    assert alike == []


def test_the_table_names_tests_that_exist_for_each_check():
    """Tests/acceptance.md: E1 to E17, each with at least one test or benchmark that is there."""
    rows = re.findall(r"^\| (E\d+) \|(.*)\|(.*)\|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _, _ in rows] == [f"E{number}" for number in range(1, 18)]
    for name, _, places in rows:
        found = re.findall(r"`([\w/.]+?\.py)(?:::(\w+))?`", places)
        assert found, name
        for file, function in found:
            path = TABLE.parents[1] / file
            assert path.is_file(), f"{name}: {file}"
            assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), (
                f"{name}: {function}"
            )
