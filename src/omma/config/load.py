"""From YAML layers and `key.path=value` overrides to one frozen config with the source of every value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from omma.config.base import RunConfig
from omma.config.explain import all_keys, explain, fields_of, section_types, suggest
from omma.config.yaml import parse_yaml
from omma.errors import ConfigError

Tree = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """Values from one place; later layers win.

    Args:
        source: file name, "override" or the like, for messages and `omma show`.
        values: nested keys.
    """

    source: str
    values: Tree


@dataclass(frozen=True)
class Resolved:
    """A validated config and where each of its values came from (dotted key -> source)."""

    config: RunConfig
    sources: dict[str, str]


def parse_overrides(items: Sequence[str], model: type[BaseModel], hints: Mapping[str, str]) -> Tree:
    """Nested values of `key.path=value` words; values are YAML (`[1, 2]`, `1e-3`, `null`, text).

    A number as a part addresses a list element: `data.image_size.0=96`.

    Raises:
        ConfigError: listing every word that is no override or names no key.
    """
    tree: Tree = {}
    problems = []
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            problems.append(f"{item}: expected key.path=value")
            continue
        problem = _unknown(key, model, hints)
        if problem:
            problems.append(problem)
            continue
        _place(tree, key.split("."), parse_yaml(text, item) if text else None)
    if problems:
        raise ConfigError(_list_problems(problems, "the overrides"))
    return tree


def resolve(
    layers: Iterable[Layer], model: type[RunConfig], hints: Mapping[str, str], *, what: str
) -> Resolved:
    """Merge layers and validate them.

    Args:
        layers: lowest first.
        model: the system's config class.
        hints: name in an original tool -> key here.
        what: the recipe's name, for messages.

    Raises:
        ConfigError: with all problems at once.
    """
    merged: Tree = {}
    sources: dict[str, str] = {}
    for layer in layers:
        merged = _merge(merged, layer.values, [model], model, "")
        sources.update(dict.fromkeys(_leaves(layer.values), layer.source))
    try:
        config = model.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        raise ConfigError(_list_problems(explain(error, model, sources, hints), what)) from None
    resolved = list(_leaves(config.as_dict()))
    return Resolved(config, {key: _source(key, sources) for key in resolved})


def hash_config(config: RunConfig) -> str:
    """A short identity of a config: twelve hexadecimal digits over its sorted values."""
    import hashlib

    text = json.dumps(config.as_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _list_problems(problems: Sequence[str], what: str) -> str:
    if len(problems) == 1:
        return f"{what}: {problems[0]}"
    return "\n  ".join([f"{len(problems)} problems in {what}:", *problems])


def _unknown(key: str, model: type[BaseModel], hints: Mapping[str, str]) -> str | None:
    """The message for a key that does not exist, or None."""
    models: list[type[BaseModel]] = [model]
    for part in key.split("."):
        fields = {name: kind for candidate in models for name, kind in fields_of(candidate).items()}
        if part in fields:
            models = section_types(fields[part])
            if not models:
                return None  # the rest addresses an element inside the value
        else:
            leaf = key.rpartition(".")[2]
            if leaf in hints:
                return f"{key}: no such option; here it is {hints[leaf]}"
            return f"{key}: no such option{suggest(key, all_keys(model))}"
    return None


def _place(tree: Tree, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        nested = tree.get(part)
        tree[part] = nested if isinstance(nested, dict) else {}
        tree = tree[part]
    tree[path[-1]] = value


def _merge(base: Tree, over: Tree, models: list[type[BaseModel]], root: type[BaseModel], prefix: str) -> Tree:
    """Sections merge key by key; any other value is replaced. A section whose `name` changes starts anew."""
    fields = {name: kind for model in models for name, kind in fields_of(model).items()}
    changed = "name" in over and over["name"] != base.get("name", over["name"]) and len(models) > 1
    result = {} if changed else dict(base)
    for key, value in over.items():
        below = section_types(fields.get(key))
        if isinstance(value, dict) and below:
            old = result.get(key)
            if len(below) > 1 and "name" not in {**value, **(old if isinstance(old, dict) else {})}:
                value = {"name": _default(models, key).name, **value}
            value = _merge(old if isinstance(old, dict) else {}, value, below, root, f"{prefix}{key}.")
        elif isinstance(value, dict) and value and all(str(part).isdigit() for part in value):
            value = _with_elements(result.get(key, _default(models, key)), value, f"{prefix}{key}")
        result[key] = value
    return result


def _with_elements(old: Any, elements: Tree, key: str) -> list[Any]:
    items = list(old) if isinstance(old, (list, tuple)) else []
    for index, value in elements.items():
        if int(index) >= len(items):
            raise ConfigError(f"{key}.{index}: the list has {len(items)} elements, counted from 0")
        items[int(index)] = value
    return items


def _default(models: list[type[BaseModel]], key: str) -> Any:
    for model in models:
        for name, field in model.model_fields.items():
            if (field.alias or name) == key:
                return field.get_default(call_default_factory=True)
    return None


def _leaves(tree: Tree, prefix: str = "") -> Iterable[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key)


def _source(key: str, sources: Mapping[str, str]) -> str:
    """The source of a key, of an element inside it, or of the value that it is an element of."""
    if key in sources:
        return sources[key]
    for known, source in reversed(list(sources.items())):
        if known.startswith(f"{key}.") or key.startswith(f"{known}."):
            return source
    return "default"
