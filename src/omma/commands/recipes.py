"""`omma ls`, `show` and `cp`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omma.config.yaml import dump_yaml
from omma.errors import UsageError
from omma.runs.folder import runs_root
from omma.systems import System, get, systems
from omma.systems.recipes import ChainStage, chain_stages, find_recipe, open_recipe


def list_recipes(system: str | None = None) -> str:
    """Systems, each with its recipes and their first comment line."""
    chosen = [get(system)] if system else list(systems().values())
    return "\n\n".join(_list_one(item) for item in chosen)


def _list_one(system: System) -> str:
    recipes = system.recipes()
    width = max((len(name) for name in recipes), default=0) + len(system.name) + 1
    rows = [f"  {f'{system.name}/{name}':<{width}}  {_headline(file)}" for name, file in recipes.items()]
    return "\n".join([f"{system.name}: {system.summary}", *rows])


def _headline(file: Path) -> str:
    """The recipe's first comment line."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def show_recipe(recipe: str, overrides: Sequence[str], runs_dir: str | None = None) -> str:
    """The resolved config as YAML, the source of each value as a comment; of a chain its stages."""
    stages = chain_stages(recipe, runs_root(runs_dir))
    if stages:
        return "\n".join(_stage_line(stage) for stage in stages)
    found = open_recipe(recipe, overrides, runs_root=runs_root(runs_dir))
    rows = list(_rows(found.config.as_dict(), found.sources))
    width = min(max(len(text) for text, _ in rows), 60)
    return "\n".join(f"{text:<{width}}  # {source}" if source else text for text, source in rows)


def _stage_line(stage: ChainStage) -> str:
    start = f", from the best weights of {stage.init_from}" if stage.init_from else ""
    return f"{stage.name}: {stage.recipe}{start}  # omma show {stage.recipe}"


def _rows(tree: dict[str, Any], sources: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(YAML line, source) for each key; a section's own line has no source."""
    indent = "  " * prefix.count(".")
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", ""
            yield from _rows(value, sources, f"{path}.")
        else:
            yield f"{indent}{dump_yaml({key: value}).strip()}", sources.get(path, "default")


def copy_recipe(recipe: str, file: Path) -> str:
    """Write a recipe file that extends another; returns what to do next.

    Raises:
        UsageError: if the file exists or is no .yaml.
    """
    source, name = find_recipe(recipe)
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{file}: a recipe's file name ends in .yaml")
    if file.exists():
        raise UsageError(f"{file} exists already", "choose another name")
    parent = name if "/" in name else source.resolve().as_posix()
    file.parent.mkdir(parents=True, exist_ok=True)
    if chain_stages(recipe):
        file.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        return f"wrote {file}\nnext: edit its stages, then `omma train {file.as_posix()}`"
    file.write_text(
        f"# My own recipe.   omma train {file.as_posix()}\n"
        f"# Only what differs from {parent} stands here; `omma show {file.as_posix()}` prints the whole.\n"
        f"extends: {parent}\n\n"
        "# optim: {lr: 1.0e-4}\n# train: {length: 50 epochs, batch_size: 8}\n",
        encoding="utf-8",
    )
    return f"wrote {file}\nnext: edit it, then `omma train {file.as_posix()}`"
