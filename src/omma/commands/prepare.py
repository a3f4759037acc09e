"""`omma prepare`: the preparation steps of all systems."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omma.config.explain import suggest
from omma.config.yaml import parse_yaml
from omma.errors import UsageError
from omma.runs.console import RunLog
from omma.systems import systems

_VOICES = ("progress", "say")  # not settings: a step tells how far it is and says lines by them


def steps() -> dict[str, tuple[Any, str]]:
    """Step -> (system, its function's place)."""
    return {
        step: (system, target) for system in systems().values() for step, target in system.prepare.items()
    }


def run_prepare(step: str | None, words: Sequence[str]) -> None:
    """Run one step with `key=value` or `--key value` words; without a step list all.

    Raises:
        UsageError: for an unknown step or setting, or a missing one.
    """
    known = steps()
    if step is None:
        for name in known:
            print(f"{name}: {_summary(_function(name))}")  # noqa: T201
        return
    if step not in known:
        raise UsageError(f"{step}: no such step{suggest(step, known)}", "`omma prepare` lists all steps")
    function = _function(step)
    arguments = _arguments(function, step, words)
    console = RunLog(None)
    with console.progress(1, label=step) as bar:
        voices = {"progress": lambda done, total: bar.update(done, total=str(total)), "say": console.line}
        taken = inspect.signature(function).parameters
        result = function(**arguments, **{name: voices[name] for name in _VOICES if name in taken})
    console.line(f"{step}: {result}")


def _function(step: str) -> Callable[..., Any]:
    system, target = steps()[step]
    return system.load(target)


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def _arguments(function: Callable[..., Any], step: str, words: Sequence[str]) -> dict[str, Any]:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _VOICES
    }
    given = dict(_pairs(words))
    for name in given:
        if name not in parameters:
            raise UsageError(f"{step}: {name}: no such setting{suggest(name, parameters)}")
    missing = [name for name, item in parameters.items() if item.default is item.empty and name not in given]
    if missing:
        raise UsageError(f"{step}: give {' '.join(f'{name}=VALUE' for name in missing)}", _summary(function))
    return {
        name: Path(text) if "Path" in str(parameters[name].annotation) else parse_yaml(text, f"{name}={text}")
        for name, text in given.items()
    }


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`key=value`, `--key value` and `--key=value` words."""
    pairs, rest = [], list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not equals:
            if not name.startswith("--") or not rest:
                raise UsageError(f"{name}: expected {name.lstrip('-')}=VALUE")
            value = rest.pop(0)
        pairs.append((name.lstrip("-").replace("-", "_"), value))
    return pairs
