"""Flags of the original tools, read as overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omma.config.explain import suggest
from omma.errors import UsageError
from omma.systems import Alias, System


@dataclass(frozen=True)
class Words:
    """The words after a recipe, sorted.

    Args:
        overrides: `key.path=value` words, those of aliases included.
        options: options of the command that aliases stand for, such as {"name": ...}.
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
        if not equals:
            if not rest:
                raise UsageError(f"{flag}: a value is missing")
            value = rest.pop(0)
        _read(flag, aliases[flag], value, result)
    return result


def _read(flag: str, alias: Alias, value: str, result: Words) -> None:
    if alias.option:
        result.options[alias.option] = value
        result.read_as.append(f"{flag} {value} -> --{alias.option} {value}")
        return
    overrides = [*alias.with_it, f"{alias.key}={alias.read(value)}"]
    result.overrides.extend(overrides)
    result.read_as.append(f"{flag} {value} -> {' '.join(overrides)}")
