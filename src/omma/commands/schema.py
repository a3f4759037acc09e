"""`omma show --schema`: the JSON schema by which an editor completes and checks recipe files."""

from __future__ import annotations

import json
from typing import Any

from omma.systems import System, get, systems

Node = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OWN: Node = {  # what a recipe file may hold besides settings
    "extends": {"type": "string", "description": "the recipe that this one changes, such as SYSTEM/base"},
    "sweep": {
        "type": "object",
        "description": "a grid for `omma sweep`: key -> list of values",
        "additionalProperties": {"type": "array", "minItems": 1},
    },
}
_CHAIN: Node = {
    "type": "object",
    "additionalProperties": False,
    "required": ["chain"],
    "properties": {
        "chain": {
            "type": "array",
            "minItems": 1,
            "description": "trainings in a row",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "recipe"],
                "properties": {
                    "name": {"type": "string"},
                    "recipe": {"type": "string"},
                    "init_from": {
                        "type": "string",
                        "description": "an earlier stage; its best weights",
                    },
                },
            },
        }
    },
}


def show_schema(argument: str | None = None) -> str:
    """The JSON schema of recipe files as text.

    Args:
        argument: a system, or one of its recipes; without it, of all systems.
    """
    chosen = [get(argument.partition("/")[0])] if argument else list(systems().values())
    return json.dumps(recipe_schema(chosen), indent=1, ensure_ascii=False)


def recipe_schema(chosen: list[System]) -> Node:
    """The schema of recipe files of some systems; a file need not repeat what its parent gives."""
    below = {system.name: _of_system(system) for system in chosen}
    branches = [{"$ref": f"#/$defs/{name}"} for name in below]
    return {
        "$schema": _DIALECT,
        "title": "omma recipe",
        "$defs": {**below, "chain": _CHAIN},
        "anyOf": [*branches, {"$ref": "#/$defs/chain"}],
    }


def _of_system(system: System) -> Node:
    schema = _relaxed(system.load_config().model_json_schema(by_alias=True), f"#/$defs/{system.name}/$defs/")
    return {**schema, "properties": {**_OWN, **schema["properties"]}}


def _relaxed(node: Any, place: str) -> Any:
    """Nothing is required, as a parent may give it, and so a section may fit several forms."""
    if isinstance(node, list):
        return [_relaxed(item, place) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key not in {"discriminator", "required"}}
    if "oneOf" in kept:
        kept["anyOf"] = kept.pop("oneOf")
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = place + kept["$ref"].rpartition("/")[2]
    return {key: _relaxed(value, place) for key, value in kept.items()}
