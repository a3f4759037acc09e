"""`omma train` and `omma resume` as typed: flags of the original tools, chains of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omma.commands.chain import is_chain, resume_chain, train_chain
from omma.commands.flags import pick_recipe, place_of, read_words
from omma.commands.train import RESUME_KEYS, RESUME_SECTIONS, resume, train
from omma.errors import UsageError
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.systems import System, get, systems
from omma.systems.recipes import chain_stages, find_recipe, open_recipe

_OWN_OPTIONS = tuple("--name --smoke --overfit --init --partial --resume --overwrite --runs-dir".split())


def train_words(
    recipe: str, words: Sequence[str], *, resume_from: str | None = None, **options: Any
) -> RunFolder:
    """`omma train` as typed: flags of the original tools become settings, `--resume RUN` resumes."""
    name = recipe.partition("/")[0]
    if name in systems():
        recipe, words = pick_recipe(recipe, words, get(name))
    if not resume_from and chain_stages(recipe, runs_root(options.get("runs_dir"))):
        return _train_chain(recipe, words, options)
    system = system_of(recipe, options.get("runs_dir"))
    read = read_words(words, system, _OWN_OPTIONS)
    for line in read.read_as:
        print(f"read {line}")  # noqa: T201
    find_recipe(recipe, runs_root(options.get("runs_dir")))
    source = resume_from or read.options.get("resume")
    options["init"] = options.get("init") or read.options.get("init")
    if source and options["init"]:
        from omma.doctor.plan import both_given

        finding = both_given(options["init"], source)
        raise UsageError(finding.title, finding.fix)
    options["name"], options["runs_dir"] = place_of(
        read.options, options.get("name"), options.get("runs_dir")
    )
    if source and not Path(source).is_file() and _is_other_stage(source, recipe, read.overrides, options):
        return train(recipe, read.overrides, **{**options, "init": source})
    if source and not Path(source).is_file():
        return resume(source, read.overrides, runs_dir=options.get("runs_dir"))
    folder = Path(source).parent if source else None
    if folder and RunFolder(folder).is_run() and options.get("name") == folder.name:
        print(f"{folder} is a run: it goes on from its last checkpoint")  # noqa: T201
        return resume(str(folder), _changeable(read.overrides))
    return train(recipe, read.overrides, resume_file=source, **options)


def _is_other_stage(source: str, recipe: str, overrides: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether RUN is of another stage than the recipe; says so."""
    root = runs_root(options.get("runs_dir"))
    opened = open_recipe(recipe, overrides, runs_root=root)
    key = opened.system.stage_key
    run = RunFolder.open(split_reference(source)[0], root)
    if key is None or run.config()["system"]["name"] != opened.system.name:
        return False
    found: list[Any] = [opened.config.as_dict(), run.config()]
    for part in key.split("."):
        found = [values[part] for values in found]
    if found[0] == found[1]:
        return False
    print(f"{source} has {key}={found[1]}, {recipe} has {found[0]}: its weights only")  # noqa: T201
    return True


def resume_words(run: str, overrides: Sequence[str] = (), *, runs_dir: str | None = None) -> RunFolder:
    """`omma resume` as typed: a run, or a chain of trainings by its name."""
    if not is_chain(run, runs_dir):
        return resume(run, overrides, runs_dir=runs_dir)
    if overrides:
        raise UsageError(
            f"{run} is a chain of trainings; {overrides[0]} cannot be changed for all of them",
            "resume the stage's own run with it, then the chain",
        )
    return resume_chain(run, runs_dir=runs_dir)


def _train_chain(recipe: str, words: Sequence[str], options: dict[str, Any]) -> RunFolder:
    single = [f"--{option}" for option in ("overfit", "init", "partial") if options.get(option)]
    if single:
        raise UsageError(
            f"{single[0]}: {recipe} is a chain of trainings", "give it with a stage's own recipe"
        )
    kept = {key: options[key] for key in ("name", "smoke", "overwrite", "runs_dir") if key in options}
    return train_chain(recipe, words, **kept)


def _changeable(overrides: Sequence[str]) -> list[str]:
    """Of the words of the start, those that a resume may repeat or change."""
    return [word for word in overrides if word.startswith((*RESUME_KEYS, *RESUME_SECTIONS))]


def system_of(recipe: str, runs_dir: str | None = None) -> System:
    """The system of a recipe argument, whose flags are understood."""
    name = recipe.partition("/")[0]
    return get(name) if name in systems() else open_recipe(recipe, runs_root=runs_root(runs_dir)).system
