"""From a recipe or a run to task, data and weights: what several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from omma.config.load import Layer
from omma.data.dataset import Collate, Samples, Subset
from omma.engine.checkpoint import find_checkpoint, load_weights
from omma.engine.setup import pick_device
from omma.engine.task import Task
from omma.errors import CheckpointError, UsageError
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.systems import get
from omma.systems.recipes import Recipe, resolve_recipe

KEPT = "pretrained"  # in a run folder


@dataclass(frozen=True)
class Loaded:
    """A run with the weights of one of its checkpoints.

    Args:
        run: the run folder.
        label: what pictures and files call it: the run's name, with `@which` if that was asked for.
        recipe: its config, with overrides.
        task: the task with weights, in eval mode.
        checkpoint: the checkpoint's folder.
    """

    run: RunFolder
    label: str
    recipe: Recipe
    task: Task
    checkpoint: Path


def build_task(recipe: Recipe, *, fresh: bool = True) -> Task:
    """The system's task with the weights of a training's start; the same for a seed.

    Args:
        recipe: what to build.
        fresh: False where a checkpoint's weights follow: then no pretrained ones are fetched.
    """
    if not fresh and recipe.system.pretrained_key:
        settings = Layer("settings", recipe.config.as_dict())
        words = [f"{recipe.system.pretrained_key}=none"]
        recipe = resolve_recipe(recipe.name, recipe.system, [settings], words)
    config = recipe.config
    if not fresh and recipe.system.pretrained:
        config = recipe.system.load(recipe.system.pretrained).recall(config, recipe.kept, bare=True)
    torch.manual_seed(config.seed)
    return recipe.system.load(recipe.system.task)(config)


def build_data(recipe: Recipe, split: str, *, augment: bool) -> tuple[Samples, Collate]:
    """One split of the recipe's data."""
    data, collate = recipe.system.load(recipe.system.data)(recipe.config, split, augment=augment)
    data.seed = recipe.config.seed
    return data, collate


def build_training_data(recipe: Recipe, overfit: int | None = None) -> tuple[Samples, Samples, Collate]:
    """Training and validation data; `overfit` takes the same first samples, unaugmented, for both."""
    config = recipe.config
    if overfit:
        data, collate = build_data(recipe, config.data.train_split, augment=False)
        if overfit > len(data):
            raise UsageError(f"--overfit {overfit}: the training data has {len(data)} samples")
        few = Subset(data, range(overfit))
        return few, few, collate
    train, collate = build_data(recipe, config.data.train_split, augment=True)
    if config.data.limit and config.data.limit < len(train):
        train = Subset(train, range(config.data.limit))
    return train, build_data(recipe, config.data.val_split, augment=False)[0], collate


def run_recipe(run: RunFolder, overrides: Sequence[str] = ()) -> Recipe:
    """A run's config as a recipe, with overrides on top."""
    values = run.config()
    system = get(str(values.get("system", {}).get("name")))
    layer = Layer(str(run.path / "config.yaml"), values)
    recipe = resolve_recipe(run.name, system, [layer], overrides)
    if system.pretrained is None:
        return recipe
    kept = run.path / KEPT
    config = system.load(system.pretrained).recall(recipe.config, kept, bare=False)
    return replace(recipe, config=config, kept=kept)


def load_run(
    reference: str,
    overrides: Sequence[str] = (),
    *,
    runs_dir: str | None = None,
    which: str = "best",
    evaluating: bool = False,
) -> Loaded:
    """Open `RUN`, `RUN@best|last|final|step_N` or a checkpoint folder or file inside a run.

    Args:
        reference: what to open.
        overrides: settings on top of the run's own.
        runs_dir: where run names are looked up.
        which: the checkpoint of a bare RUN.
        evaluating: put the system's settings of an evaluation under the overrides.

    Raises:
        UsageError: if there is no such run.
        CheckpointError: if it has no such checkpoint.
    """
    name, chosen = split_reference(reference)
    inside = checkpoint_inside(Path(reference))
    if inside is not None:
        run, folder = inside
    else:
        run = RunFolder.open(name, runs_root(runs_dir))
        folder = find_checkpoint(run, chosen or which)
    recipe = run_recipe(run, overrides)
    if evaluating and recipe.system.eval_settings:
        recipe = run_recipe(run, [*recipe.system.eval_settings, *overrides])
    task = build_task(recipe, fresh=False)
    load_weights(task, folder, system=recipe.system.name, settings=recipe.config.as_dict()["system"])
    label = f"{run.name}@{chosen}" if chosen else run.name
    return Loaded(run, label, recipe, task.eval(), folder)


def checkpoint_inside(path: Path) -> tuple[RunFolder, Path] | None:
    """The run and checkpoint that a path inside `RUN/checkpoints/` belongs to."""
    folder = path.parent if path.is_file() else path
    if folder.parent.name == "checkpoints" and (folder / "meta.json").is_file():
        return RunFolder(folder.parent.parent), folder
    if path.is_file():
        raise CheckpointError(
            f"{path}: this file is not part of a run",
            "`omma import SYSTEM FILE --recipe R --out DIR` makes a run of an original project's file",
        )
    return None


def device_of(recipe: Recipe) -> torch.device:
    """The device that the recipe asks for; where it is not there, says so once and takes the CPU."""
    return pick_device(recipe.config.train.device, _say_once)


@cache
def _say_once(line: str) -> None:
    """A command may ask for its device several times."""
    print(line, file=sys.stderr)  # noqa: T201
