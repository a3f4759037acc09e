"""Recipes: `system/recipe`, a .yaml file or a run folder, with one parent each, and overrides on top."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omma.config.base import RunConfig
from omma.config.explain import suggest
from omma.config.load import Layer, parse_overrides, resolve
from omma.config.yaml import read_yaml
from omma.errors import ConfigError, UsageError
from omma.systems import System, get, systems


@dataclass(frozen=True)
class ChainStage:
    """One training of a chain.

    Args:
        name: of the stage.
        recipe: what it trains, as a recipe argument.
        init_from: earlier stage whose best weights it starts from.
    """

    name: str
    recipe: str
    init_from: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Args:
        name: "lss/base", or the stem of a user's file.
        system: its system.
        config: the validated config.
        sources: dotted key -> where its value came from.
        kept: folder of a run with what its network is made of; see `System.pretrained`.
    """

    name: str
    system: System
    config: RunConfig
    sources: Mapping[str, str]
    kept: Path | None = None


def open_recipe(argument: str, overrides: Sequence[str] = (), *, runs_root: Path | None = None) -> Recipe:
    """Find, merge and validate a recipe.

    Args:
        argument: `system`, `system/recipe`, a `.yaml` file, or a run (its folder, or a name under runs_root).
        overrides: `key.path=value` words.
        runs_root: where run names are looked up.

    Raises:
        UsageError: if there is no such recipe.
        ConfigError: with all problems of the recipe and the overrides at once.
    """
    file, name = find_recipe(argument, runs_root)
    layers = _layers(file, [])
    system = get(_system_name(layers, file))
    return resolve_recipe(name, system, layers, overrides)


def resolve_recipe(name: str, system: System, layers: Sequence[Layer], overrides: Sequence[str]) -> Recipe:
    """Put overrides and the data root from outside on top of recipe layers and validate the whole."""
    model = system.load_config()
    hints = flag_hints(system)
    over = Layer("override", parse_overrides(overrides, model, hints))
    stack = [*layers, over]
    if not any((layer.values.get("data") or {}).get("root") for layer in stack):
        stack.insert(0, _data_root_layer(system.name))
    resolved = resolve(stack, model, hints, what=f"{name} + overrides" if overrides else name)
    return Recipe(name, system, resolved.config, resolved.sources)


def find_recipe(argument: str, runs_root: Path | None = None) -> tuple[Path, str]:
    """The file of a recipe argument and the recipe's name.

    Raises:
        UsageError: naming the nearest recipes.
    """
    path = Path(argument)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"{argument}: no such recipe file", "`omma cp RECIPE FILE` makes one")
        return path, path.stem
    for folder in (path, *([runs_root / argument] if runs_root else [])):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml", folder.name
    system_name, _, recipe = argument.partition("/")
    if system_name in systems():
        files = systems()[system_name].recipes()
        if (recipe or "base") in files:
            return files[recipe or "base"], f"{system_name}/{recipe or 'base'}"
    known = [f"{system.name}/{name}" for system in systems().values() for name in system.recipes()]
    raise UsageError(f"{argument}: no such recipe{suggest(argument, known)}", "`omma ls` lists all recipes")


def grid_words(argument: str, runs_root: Path | None = None) -> list[str]:
    """The recipe file's own grid, its `sweep:` section, as `key=a,b` words; empty where it has none.

    Raises:
        UsageError: there is no such recipe.
        ConfigError: the section is no mapping of keys to lists of values.
    """
    file, _ = find_recipe(argument, runs_root)
    grid = read_yaml(file).get("sweep") or {}
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise ConfigError(f"{file}: sweep: gives each key a list, such as optim.lr: [1e-3, 1e-4]")
    return [f"{key}={','.join(map(_word, values))}" for key, values in grid.items()]


def chain_stages(argument: str, runs_root: Path | None = None) -> list[ChainStage]:
    """The stages of a recipe with a `chain:` section; empty for any other recipe or run.

    Raises:
        UsageError: there is no such recipe.
        ConfigError: the section is no list of stages, or a stage starts from none before it.
    """
    file, _ = find_recipe(argument, runs_root)
    content = read_yaml(file)
    if "chain" not in content:
        return []
    try:
        stages = [ChainStage(**stage) for stage in content["chain"]]
    except TypeError:
        stages = []
    known: set[str] = set()
    for stage in stages:
        if stage.init_from is not None and stage.init_from not in known:
            raise ConfigError(
                f"{file}: chain: stage {stage.name} starts from {stage.init_from}, no stage before it"
            )
        known.add(stage.name)
    if not stages or len(content) > 1 or len(known) < len(stages):
        raise ConfigError(
            f"{file}: chain: is a list of {{name, recipe, init_from}} with different names, and stands alone",
            "settings belong into the stages' own recipes",
        )
    return stages


def _word(value: Any) -> str:
    """A value as it is typed after `key=`."""
    return value if isinstance(value, str) else json.dumps(value)


def flag_hints(system: System) -> dict[str, str]:
    """Name of a flag of the original tool -> key here."""
    if system.aliases is None:
        return {}
    return {flag.lstrip("-"): alias.key for flag, alias in system.load(system.aliases).items() if alias.key}


def _layers(file: Path, seen: list[Path]) -> list[Layer]:
    """The file's layers with its parents' below them."""
    if file.resolve() in seen:
        raise ConfigError(f"{file}: extends itself through {' -> '.join(p.name for p in seen)}")
    values = read_yaml(file)
    parent = values.pop("extends", None)
    values.pop("sweep", None)  # the grid belongs to `omma sweep`; see grid_words
    layer = Layer(_shown(file), values)
    if parent is None:
        return [layer]
    if not isinstance(parent, str):
        raise ConfigError(f"{file}: extends: names one recipe, such as lss/base")
    beside = file.parent / parent
    parent_file = beside if beside.suffix and beside.is_file() else find_recipe(parent)[0]
    return [*_layers(parent_file, [*seen, file.resolve()]), layer]


def _system_name(layers: Sequence[Layer], file: Path) -> str:
    for layer in reversed(layers):
        section = layer.values.get("system")
        if isinstance(section, dict) and "name" in section:
            return str(section["name"])
    chain = next((layer.values["chain"] for layer in layers if "chain" in layer.values), None)
    if chain is not None:
        stages = [str(stage.get("recipe")) for stage in chain if isinstance(stage, dict)]
        raise ConfigError(f"{file}: is a chain of trainings", f"give a stage's recipe: {', '.join(stages)}")
    raise ConfigError(f"{file}: system.name is missing", "start the file with `extends: SYSTEM/RECIPE`")


def _shown(file: Path) -> str:
    """A recipe of the package by its name, a user's file by its path."""
    for system in systems().values():
        for name, path in system.recipes().items():
            if path == file:
                return f"recipe {system.name}/{name}"
    return str(file)


def _data_root_layer(system: str) -> Layer:
    """The data root from the environment or the user's data.yaml (empty if neither has one)."""
    variable = f"OMMA_DATA_{system.upper()}"
    if os.environ.get(variable):
        return Layer(variable, {"data": {"root": os.environ[variable]}})
    file = user_data_file()
    root = read_yaml(file).get(system) if file.is_file() else None
    return Layer(str(file), {"data": {"root": str(root)}} if root else {})


def user_data_file() -> Path:
    """The user's own table system -> data root."""
    base = os.environ.get("APPDATA") or os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "omma" / "data.yaml"
