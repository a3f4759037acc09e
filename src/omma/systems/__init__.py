"""The systems: one folder each, found by looking; listing them imports no torch.

A system's folder has an `__init__.py` with `SYSTEM = System(...)`, whose values are "module:attribute"
strings relative to the folder, so that a command imports just what it needs. A system outside this package
lies in a folder that OMMA_SYSTEMS names, or registers its package under the entry point group `omma.systems`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omma.config.base import RunConfig
from omma.config.explain import suggest
from omma.errors import UsageError

# folders of further systems, separated as in PATH: a system can be used before it has a package of its own
_FOLDERS = os.environ.get("OMMA_SYSTEMS", "").split(os.pathsep)
_ELSEWHERE = [str(Path(folder).absolute()) for folder in _FOLDERS if folder]
__path__ += _ELSEWHERE


@dataclass(frozen=True)
class Demo:
    """What `omma demo` makes and trains for a system.

    Args:
        recipe: name of the recipe.
        world: format of the procedural data set (`omma world FORMAT`).
        options: scenes, val_scenes, frames and image_size of the data set.
        default: whether `omma demo` without a system takes this one.
    """

    recipe: str
    world: str
    options: Mapping[str, Any]
    default: bool = False


@dataclass(frozen=True)
class Alias:
    """What a flag of the original tool means here.

    Args:
        key: the config key that it sets; empty for an option of the command, and where nothing is to be set.
        read: turns the flag's value into the key's.
        option: the command's own option that it stands for: "name" (the run's folder), "exp_name" (its name
            in the folder of the runs), "resume", "init" or "recipe" (which of the system's recipes).
        with_it: overrides without which the key does not exist, such as "schedule.name=step".
        switch: the value of a flag that is written without one.
    """

    key: str = ""
    read: Callable[[str], str] = str
    option: str = ""
    with_it: tuple[str, ...] = ()
    switch: str | None = None


@dataclass(frozen=True)
class System:
    """One system: names of its parts, nothing imported.

    Args:
        name: folder name and first part of every recipe's name.
        summary: one line for `omma ls`.
        config: run config class, a RunConfig.
        task: Task class, built from the run config.
        data: `build(config, split, *, augment) -> (Samples, collate)`.
        best: metric of best/ and its direction, "max" or "min"; the column is "val/<metric>".
        inputs: `build_inputs(config, files) -> (Samples, collate)` for `omma predict --input`.
        sparse_inputs: whether `inputs` also takes `sparse=`, a file of known depth for each file
            (`omma predict --sparse`).
        convert: module with load_reference, from_reference, to_reference; where a file tells its network,
            settings_of: the file's content -> `key=value` words; and where a written file needs a check of
            its own, read_back: network, the file's content -> largest difference.
        training_files: module with write_training_file and read_training_file, the original script's files.
        viz: `draw(predictions) -> (H, W, 3) uint8`, one picture from several runs.
        diagnose: `run(task, data, collate, options) -> Diagnosis` for `omma diagnose`.
        doctor: `check(config, out) -> list[Finding]` for `omma doctor RECIPE`.
        prepare: step as `omma prepare` calls it -> function with keyword arguments and a docstring.
        studies: study name -> function for `omma eval --study`, such as robustness curves.
        aliases: table of the original tool's flags, `ALIASES`.
        originals: table of the original project's commands, `PROGRAMS`; see `omma.systems.originals`.
        scored_by: settings without whose equality scores mean different things, such as whose boxes people
            are cut out by: `omma compare` refuses runs that differ there.
        eval_settings: overrides that `omma eval` puts under the user's own.
        stage_key: setting that divides a training into stages: `--resume RUN` of another stage takes weights.
        pretrained_key: setting of the pretrained weights; "none" there starts from random ones.
        pretrained: module for networks that are made of others by name: `keep(config, folder)` writes what a
            run has to know of these, `recall(config, folder, bare)` gives the config that builds from that.
        memory_keys: overrides that lower memory, in order of effect, for the out-of-memory message.
        demo: what `omma demo` runs.
    """

    name: str
    summary: str
    config: str
    task: str
    data: str
    best: tuple[str, str]
    inputs: str | None = None
    sparse_inputs: bool = False
    convert: str | None = None
    training_files: str | None = None
    viz: str | None = None
    diagnose: str | None = None
    doctor: str | None = None
    prepare: Mapping[str, str] = field(default_factory=dict)
    studies: Mapping[str, str] = field(default_factory=dict)
    aliases: str | None = None
    originals: str | None = None
    scored_by: tuple[str, ...] = ()
    eval_settings: tuple[str, ...] = ()
    stage_key: str | None = None
    pretrained_key: str | None = None
    pretrained: str | None = None
    memory_keys: tuple[str, ...] = ()
    demo: Demo | None = None
    package: str = ""

    def load(self, target: str) -> Any:
        """Import "module:attribute" of the system's folder, or the module alone."""
        module_name, _, attribute = target.partition(":")
        module = importlib.import_module(f"{self.package or f'{__name__}.{self.name}'}.{module_name}")
        return getattr(module, attribute) if attribute else module

    def load_config(self) -> type[RunConfig]:
        """The system's config class."""
        return self.load(self.config)

    @property
    def folder(self) -> Path:
        """The folder on disk."""
        module = importlib.import_module(self.package or f"{__name__}.{self.name}")
        return Path(next(iter(module.__path__)))

    def recipes(self) -> dict[str, Path]:
        """Recipe name -> file, sorted; a name may hold a sub-folder (`literature/paper`)."""
        root = self.folder / "recipes"
        files = sorted(root.rglob("*.yaml"))
        return {file.relative_to(root).with_suffix("").as_posix(): file for file in files}


@cache
def systems() -> dict[str, System]:
    """Every system by name: the folders beside this file, those of OMMA_SYSTEMS, then entry points.

    Raises:
        UsageError: a folder that OMMA_SYSTEMS names is not there.
    """
    for folder in _ELSEWHERE:
        if not Path(folder).is_dir():
            raise UsageError(f"OMMA_SYSTEMS: {folder}: no such folder", "it names folders that hold systems")
    found = {}
    packages = [f"{__name__}.{item.name}" for item in pkgutil.iter_modules(__path__) if item.ispkg]
    packages += [point.value for point in importlib.metadata.entry_points(group="omma.systems")]
    for package in packages:
        system: System = importlib.import_module(package).SYSTEM
        found[system.name] = System(**{**system.__dict__, "package": package})
    return dict(sorted(found.items()))


def get(name: str) -> System:
    """The system of that name.

    Raises:
        UsageError: with the nearest names if there is none.
    """
    try:
        return systems()[name]
    except KeyError:
        raise UsageError(
            f"{name}: no such system{suggest(name, systems())}", "`omma ls` lists systems and recipes"
        ) from None
