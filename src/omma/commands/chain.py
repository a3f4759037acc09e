"""Trainings in a row: a recipe with a `chain:` section, one run folder a stage, started from earlier ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omma.commands.flags import read_words
from omma.commands.train import resume, train
from omma.config.explain import suggest
from omma.data.io import read_json
from omma.errors import UsageError
from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder, default_name, runs_root
from omma.systems.recipes import ChainStage, chain_stages, open_recipe

FILE = "chain.json"
_OF_STAGE = re.compile(r"([^=:]+):([A-Za-z_][\w.]*=.*)", re.DOTALL)  # STAGE:key=value, not C:\x


@dataclass(frozen=True)
class _Stage:
    """A stage of a chain that was started.

    Args:
        run: its run's name.
        recipe: what it trains.
        words: settings on top.
        init: run whose best weights it starts from.
    """

    run: str
    recipe: str
    words: list[str]
    init: str | None


def train_chain(
    recipe: str,
    words: Sequence[str] = (),
    *,
    name: str | None = None,
    smoke: int | None = None,
    overwrite: bool = False,
    runs_dir: str | None = None,
) -> RunFolder:
    """Train the stages of a chain recipe one after the other, as runs NAME_STAGE.

    Args:
        recipe: with a `chain:` section.
        words: settings of all stages; `STAGE:key=value` is one of a single stage.
        name: of the chain; default `<system>-<recipe>-<time>`.
        smoke: a trial of so many steps a stage.
        overwrite: move existing runs of these names aside.
        runs_dir: where the run folders are made.

    Returns:
        the last stage's run folder.

    Raises:
        OmmaError: as `train`; later stages are then not started, and `omma resume NAME` goes on.
    """
    root = runs_root(runs_dir)
    found = chain_stages(recipe)
    opened = [open_recipe(stage.recipe, runs_root=root) for stage in found]
    aliases = read_words([word for word in words if not _OF_STAGE.fullmatch(word)], opened[0].system)
    for line in aliases.read_as:
        print(f"read {line}")  # noqa: T201
    shared, own = aliases.overrides, _own_words(words, found)
    chain = name or aliases.options.get("name") or default_name(opened[0].system.name, Path(recipe).name)
    stages = [
        _Stage(
            f"{chain}_{stage.name}",
            stage.recipe,
            [*shared, *own[stage.name]],
            f"{chain}_{stage.init_from}" if stage.init_from else None,
        )
        for stage in found
    ]
    for stage in stages:  # a mistake in the last one is told before the first one trains
        open_recipe(stage.recipe, stage.words, runs_root=root)
    folder = root / chain
    if (folder / FILE).exists() and not overwrite:
        raise UsageError(
            f"{folder}: a chain of that name was started",
            f"`omma resume {chain}` goes on; --overwrite begins anew",
        )
    content = {
        "format_version": 1,
        "recipe": recipe,
        "smoke": smoke,
        "stages": [asdict(stage) for stage in stages],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / FILE, content)
    return _go(stages, root, smoke=smoke, overwrite=overwrite)


def is_chain(name: str, runs_dir: str | None = None) -> bool:
    """Whether a name is that of a chain that was started."""
    return _folder(name, runs_dir) is not None


def resume_chain(name: str, *, runs_dir: str | None = None) -> RunFolder:
    """Go on with the first stage of a chain that has not finished.

    Args:
        name: of the chain, or its folder.
        runs_dir: where names are looked up.

    Returns:
        the last stage's run folder.

    Raises:
        UsageError: all stages have finished.
    """
    folder = _folder(name, runs_dir)
    assert folder is not None, "the caller asks is_chain first"
    content: dict[str, Any] = read_json(folder / FILE)
    stages = [_Stage(**stage) for stage in content["stages"]]
    if all(_finished(folder.parent / stage.run) for stage in stages):
        raise UsageError(f"{name}: all stages have finished", f"`omma eval {stages[-1].run}`")
    return _go(stages, folder.parent, smoke=content["smoke"], overwrite=False)


def _go(stages: Sequence[_Stage], root: Path, *, smoke: int | None, overwrite: bool) -> RunFolder:
    """Train, resume or pass over each stage."""
    for number, stage in enumerate(stages, 1):
        folder = RunFolder(root / stage.run)
        if folder.is_run() and not overwrite:
            if _finished(folder.path):
                print(f"stage {number} of {len(stages)}: {stage.run} has finished")  # noqa: T201
                continue
            print(f"stage {number} of {len(stages)}: {stage.run} goes on")  # noqa: T201
            resume(stage.run, runs_dir=str(root))
            continue
        start = f", from the best weights of {stage.init}" if stage.init else ""
        print(f"stage {number} of {len(stages)}: {stage.run}{start}")  # noqa: T201
        train(
            stage.recipe,
            stage.words,
            name=stage.run,
            smoke=smoke,
            init=str(root / stage.init) if stage.init else None,
            overwrite=overwrite,
            runs_dir=str(root),
        )
    return RunFolder(root / stages[-1].run)


def _own_words(words: Sequence[str], stages: Sequence[ChainStage]) -> dict[str, list[str]]:
    """Stage -> the settings that are its alone."""
    own: dict[str, list[str]] = {stage.name: [] for stage in stages}
    for word in words:
        if not (match := _OF_STAGE.fullmatch(word)):
            continue
        stage, setting = match.groups()
        if stage not in own:
            raise UsageError(f"{word}: no such stage{suggest(stage, own)}", f"stages: {', '.join(own)}")
        own[stage].append(setting)
    return own


def _folder(name: str, runs_dir: str | None) -> Path | None:
    for folder in (Path(name), runs_root(runs_dir) / name):
        if (folder / FILE).is_file():
            return folder
    return None


def _finished(path: Path) -> bool:
    run = RunFolder(path)
    return run.is_run() and run.status()["state"] == "finished"
