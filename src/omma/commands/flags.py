"""Flags of the original tools, read as overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omma.config.explain import suggest
from omma.errors import UsageError
from omma.systems import Alias, System

_OPTIONS = {"exp_name": "name"}  # of an alias -> as omma calls them


@dataclass(frozen=True)
class Words:
    """The words after a recipe, sorted.

    Args:
        overrides: `key.path=value` words, those of aliases included.
        options: options of the command that aliases stand for, see `Alias.option`.
        read_as: one line for each alias: what it was read as.
    """

    overrides: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    read_as: list[str] = field(default_factory=list)


def read_words(words: Sequence[str], system: System, own_options: Sequence[str] = ()) -> Words:
    """Sort overrides and flags of the original tool (`--bsz 8` or `--bsz=8`).

    Args:
        words: what stands after the recipe and is no option of omma's.
        system: whose table of flags holds.
        own_options: omma's options of this command, for suggestions.

    Raises:
        UsageError: for an unknown flag or a flag without value.
    """
    aliases: dict[str, Alias] = system.load(system.aliases) if system.aliases else {}
    result = Words()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            result.overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag not in aliases:
            raise UsageError(
                f"{flag}: no such option{suggest(flag, [*aliases, *own_options])}",
                f"settings are key.path=value words; `omma show {system.name}` lists them",
            )
        alias = aliases[flag]
        if alias.switch is not None:
            if equals:
                raise UsageError(f"{word}: {flag} is written without a value")
            value = alias.switch
        elif not equals:
            if not rest:
                raise UsageError(f"{flag}: a value is missing")
            value = rest.pop(0)
        _read(flag if alias.switch is not None else f"{flag} {value}", alias, value, result)
    return result


def _read(typed: str, alias: Alias, value: str, result: Words) -> None:
    if alias.option:
        value = alias.read(value)
        result.options[alias.option] = value
        result.read_as.append(f"{typed} -> --{_OPTIONS.get(alias.option, alias.option)} {value}")
        return
    value = alias.read(value)
    if not alias.key:
        result.read_as.append(f"{typed} -> {value}")
        return
    overrides = [*alias.with_it, f"{alias.key}={value}"]
    result.overrides.extend(overrides)
    result.read_as.append(f"{typed} -> {' '.join(overrides)}")


def pick_recipe(recipe: str, words: Sequence[str], system: System) -> tuple[str, list[str]]:
    """The recipe that a flag such as `--stage vision` names, and the other words.

    Args:
        recipe: as typed; the flag chooses among the system's where this is the system alone.
        words: as for `read_words`.
        system: of the recipe.

    Raises:
        UsageError: the recipe as typed is another one.
    """
    aliases: dict[str, Alias] = system.load(system.aliases) if system.aliases else {}
    flags = {flag: alias for flag, alias in aliases.items() if alias.option == "recipe"}
    rest, typed = list(words), None
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in flags:
            continue
        if not equals and place + 1 == len(words):
            raise UsageError(f"{flag}: a value is missing")
        value = value if equals else words[place + 1]
        typed = f"{system.name}/{flags[flag].read(value)}"
        del rest[place : place + (1 if equals else 2)]
        if recipe not in (system.name, typed):
            raise UsageError(f"{flag} {value} and {recipe} are two recipes", f"`omma train {typed}`")
        print(f"read {flag} {value} -> {typed}")  # noqa: T201
        break
    return typed or recipe, rest


def place_of(
    flags: Mapping[str, str], name: str | None, runs_dir: str | None
) -> tuple[str | None, str | None]:
    """Name and parent folder of a run: as given, else by a flag for its folder, else by one for its name.

    Args:
        flags: "name" and "exp_name" of `Words.options`.
        name: the value of --name.
        runs_dir: the value of --runs-dir.
    """
    if name:
        return name, runs_dir
    if "name" in flags:
        folder = Path(flags["name"])
        return folder.name, str(folder.parent)
    return flags.get("exp_name"), runs_dir
