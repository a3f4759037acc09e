"""`omma show --schema`: what an editor is told about recipe files."""

import json
import re

import pytest

from omma.cli import _run
from omma.config.yaml import read_yaml
from omma.systems import systems

FILES = [file for system in systems().values() for file in system.recipes().values()]
_KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def _problems(value, schema, root, at="") -> list[str]:
    """What of `value` does not fit, for the key words that pydantic writes."""
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        rest = {key: part for key, part in schema.items() if key != "$ref"}
        return _problems(value, target, root, at) + _problems(value, rest, root, at)
    found = []
    if "anyOf" in schema:
        tries = [_problems(value, branch, root, at) for branch in schema["anyOf"]]
        found += [] if [] in tries else min(tries, key=len)
    for branch in schema.get("allOf", ()):
        found += _problems(value, branch, root, at)
    kind = schema.get("type")
    if kind and (not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [*found, f"{at}: {value!r} is no {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} has not the form {schema['pattern']}")
    if isinstance(value, int | float):
        too_small = value < schema.get("minimum", value) or value <= schema.get("exclusiveMinimum", value - 1)
        found += [f"{at}: {value} is too small"] if too_small else []
    if isinstance(value, dict):
        found += _problems_of_keys(value, schema, root, at)
    if isinstance(value, list):
        items = schema.get("prefixItems", [schema.get("items", {})] * len(value))
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return [*found, f"{at}: {len(value)} elements"]
        for index, (item, branch) in enumerate(zip(value, items, strict=True)):
            found += _problems(item, branch, root, f"{at}.{index}")
    return found


def _problems_of_keys(value, schema, root, at) -> list[str]:
    found = [f"{at}: {key} is missing" for key in schema.get("required", ()) if key not in value]
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            found += _problems(item, known[key], root, f"{at}.{key}")
        elif others is False:
            found.append(f"{at}.{key}: unknown")
        elif isinstance(others, dict):
            found += _problems(item, others, root, f"{at}.{key}")
    return found


def _schema(capsys, *words) -> dict:
    assert _run(["show", *words, "--schema"], debug=True) == 0
    return json.loads(capsys.readouterr().out)


def test_every_recipe_file_fits_the_schema_of_all_systems(capsys):
    schema = _schema(capsys)
    assert set(schema["$defs"]) == {*systems(), "chain"}
    wrong = {str(file): _problems(read_yaml(file), schema, schema) for file in FILES}
    assert {file: found for file, found in wrong.items() if found} == {}


@pytest.mark.parametrize("system", systems())
def test_mistakes_do_not_fit_the_schema_of_one_system(system, capsys):
    schema = _schema(capsys, system)
    right = {"extends": f"{system}/base", "optim": {"lr": 1e-4}, "train": {"length": "2 epochs"}}
    assert _problems(right, schema, schema) == []
    mistakes = [
        {"optim": {"lrr": 1}},
        {"trian": {}},
        {"optim": {"lr": "fast"}},
        {"optim": {"lr": 0}},
        {"train": {"precision": "16"}},
        {"system": {"name": "another"}},
        {"schedule": {"name": "cosinus"}},
        {"chain": [{"name": "first"}]},
    ]
    for mistake in mistakes:
        assert _problems(mistake, schema, schema), mistake


def test_help_texts_reach_the_editor(capsys):
    text = json.dumps(_schema(capsys, "lss/base"))
    assert "learning rate after warm-up" in text
    assert "optimiser steps" in text


def test_a_system_that_is_not_there(capsys):
    assert _run(["show", "lsss", "--schema"], debug=False) == 2
    assert "did you mean lss?" in capsys.readouterr().err


def test_show_without_anything_asks_for_a_recipe(capsys):
    assert _run(["show"], debug=False) == 2
    assert "RECIPE" in capsys.readouterr().err
