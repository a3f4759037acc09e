"""Messages about keys: all problems at once, each with its place and the nearest real key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def suggest(name: str, candidates: Iterable[str]) -> str:
    """The question "did you mean a, b?" with up to three near names, or nothing."""
    near = nearest(name, candidates)
    return f"; did you mean {', '.join(near)}?" if near else ""


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Up to three candidates near a misspelt name, best first.

    Whole keys and their last parts are compared, so that `lr` and `optm.lr` find `optim.lr`.
    """
    keys = list(candidates)
    scores = {key: _similarity(name, key) for key in keys}
    best = sorted((key for key in keys if scores[key] >= 0.6), key=lambda key: -scores[key])
    return best[:3]


def _similarity(name: str, key: str) -> float:
    whole = difflib.SequenceMatcher(None, name, key).ratio()
    head, _, tail = name.rpartition(".")
    key_head, _, key_tail = key.rpartition(".")
    parts = difflib.SequenceMatcher(None, tail, key_tail).ratio()
    heads = difflib.SequenceMatcher(None, head, key_head).ratio() if head else 0.9
    return max(whole, 0.7 * parts + 0.3 * heads)


def section_types(annotation: Any) -> list[type[BaseModel]]:
    """The Section classes that an annotation admits (several for a tagged union)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in section_types(argument)]


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    """Key name -> annotation, under the names that recipes use."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a config class, over all variants of its tagged sections."""
    keys: dict[str, None] = {}
    for name, annotation in fields_of(model).items():
        keys[prefix + name] = None
        for section in section_types(annotation):
            keys.update(dict.fromkeys(all_keys(section, f"{prefix}{name}.")))
    return list(keys)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    sources: Mapping[str, str],
    hints: Mapping[str, str],
) -> list[str]:
    """One line a problem: key, what is wrong, the nearest key or the accepted values, and where it was set.

    Args:
        error: pydantic's collected errors.
        model: the config class, for the real keys.
        sources: dotted key -> where it was set.
        hints: name in an original tool -> key here.
    """
    keys = all_keys(model)
    lines = []
    for item in error.errors():
        key = _dotted(item["loc"], model)
        place = next((f" (in {sources[k]})" for k in (key, *_parents(key)) if k in sources), "")
        reason = _elsewhere(item, key, model) or _reason(item, key, keys, hints)
        lines.append(f"{key}: {reason}{place}")
    return lines


def _elsewhere(item: Any, key: str, model: type[BaseModel]) -> str:
    """That a key belongs to variants of its section which are not chosen; empty where that is not so."""
    section, _, leaf = key.rpartition(".")
    models: list[type[BaseModel]] = [model]
    for part in section.split("."):
        fields = {name: kind for candidate in models for name, kind in fields_of(candidate).items()}
        models = section_types(fields[part]) if part in fields else []
    names = [name for variant in models if leaf in fields_of(variant) for name in _tags(variant)]
    if item["type"] != "extra_forbidden" or not names:
        return ""
    return f"goes with {section}.name={' or '.join(names)}, which is not what is chosen"


def _reason(item: Any, key: str, keys: list[str], hints: Mapping[str, str]) -> str:
    kind, leaf = item["type"], key.rpartition(".")[2]
    if kind == "extra_forbidden":
        if leaf in hints:
            return f"no such option; here it is {hints[leaf]}"
        return f"no such option{suggest(key, keys)}"
    if kind == "missing":
        return f"required; give {key}=VALUE"
    if kind.startswith("union_tag"):
        return f"{item['msg'][0].lower()}{item['msg'][1:]}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "should be")
    message = f"{message[0].lower()}{message[1:]}"
    # a whole section as the value at fault says nothing that the message does not
    return message if isinstance(item["input"], dict) else f"{message}, not {item['input']!r}"


def _dotted(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Pydantic's location without the tags of unions, which are no keys."""
    parts: list[str] = []
    models: list[type[BaseModel]] = [model]
    for item in loc:
        fields = {name: kind for candidate in models for name, kind in fields_of(candidate).items()}
        tagged = [m for m in models if item in _tags(m)]
        if len(models) > 1 and item not in fields and tagged:
            models = tagged
            continue
        parts.append(str(item))
        models = section_types(fields[str(item)]) if str(item) in fields else []
    return ".".join(parts)


def _tags(model: type[BaseModel]) -> list[str]:
    """What the section's `name` can be."""
    field = model.model_fields.get("name")
    return [str(value) for value in get_args(field.annotation)] if field else []


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
