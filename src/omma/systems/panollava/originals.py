"""train.py and eval_comprehensive.py of the original, by omma (rows R1 to R10, R21, R25, R26, R34 to R47)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omma.config.yaml import read_yaml
from omma.errors import UsageError
from omma.systems.originals import Command, Flag, Program, Typed, training_flags
from omma.systems.panollava.aliases import ALIASES
from omma.systems.panollava.original_evaluation import DATA_IS_USAGE, EVALUATION
from omma.systems.panollava.original_places import (
    PLACES,
    STAGES,
    now,
    run_folder,
    run_reference,
    stage_name,
)
from omma.systems.recipes import open_recipe

_ALL = "all"
# what the shared config sets for each
_BY_STAGE = ("epochs", "batch-size", "lr", "max-text-length", "vicreg-loss-weight")
_SHOWN = {flag[2:]: alias.key for flag, alias in ALIASES.items() if alias.key and "_" not in flag}
_SYNONYMS = ("workers", "wandb-project", "csv")  # of names that are shown
_ON_RESUME = ("train.length=", "train.workers=", "data.root=", "validate.", "save.", "log.")
_OPTIONS = ("--smoke", "--overfit", "--overwrite", "--partial")  # as omma train has them
_LETTERS = {
    "-s": "--stage",
    "-e": "--epochs",
    "-b": "--batch-size",
    "-l": "--lr",
    "-r": "--resume",
    "-d": "--data-dir",
    "-w": "--num-workers",
    "-p": "--project",
    "-n": "--name",
}


def _train(typed: Typed) -> Iterator[Command]:
    """One stage, or all in a row; each from the best weights of the one before."""
    stages = _stages(typed)
    if "--dry-run" in typed.flags:
        for stage in stages:
            print(_resolved(stage, typed))  # noqa: T201
        print(f"log  {_log_file(typed) or 'none'}")  # noqa: T201
        return
    yield _chain(typed) if len(stages) > 1 else _single(stages[0], typed)


def _stages(typed: Typed) -> tuple[str, ...]:
    named = typed.flags.get("--stages") or [typed.value("--stage") or _ALL]
    if named in ([_ALL], list(STAGES)):
        return STAGES
    stages = tuple(stage_name("--stage", name, _ALL) for name in named)
    if len(stages) > 1:
        raise UsageError(f"--stages {' '.join(stages)}: one stage, or all three in a row", "--stage ONE")
    return stages


def _words(stage: str, typed: Typed) -> dict[str, str]:
    """Settings of a stage: key -> `key=value`.

    --vision-lr, which is the shared config's, comes behind --lr, and that behind `optim.lr=`.
    """
    flags = {flag.replace("_", "-"): values for flag, values in typed.flags.items()}
    for name in _BY_STAGE:
        own = flags.get(f"--{stage}-{name}")
        if own is not None:
            flags.setdefault(f"--{name}", own)
    words: dict[str, str] = {}
    for flag, values in flags.items():
        alias = ALIASES.get(flag)
        if alias is not None and not alias.option and flag != "--stages":
            value = alias.read(alias.switch if alias.switch is not None else values[0])
            words[alias.key] = f"{alias.key}={value}"
    return words | {word.partition("=")[0]: word for word in typed.settings}


def _single(stage: str, typed: Typed) -> Command:
    words = list(_words(stage, typed).values())
    folder = run_folder(stage, typed)
    start = ["train", f"panollava/{stage}", "--name", folder.name, "--runs-dir", str(folder.parent)]
    source = typed.value("--resume") or typed.value("--resume-from")
    if source is None:
        return [*start, *_init(stage, typed), *_options(typed), *words]
    run = run_reference(source, typed)
    if run is None:
        return [*start, "--resume", source, *_options(typed), *words]
    path = Path(run.partition("@")[0])
    if read_yaml(path / "config.yaml").get("system", {}).get("stage") == stage:
        print(f"{path} is of this stage: it goes on from its last checkpoint, as it was set")  # noqa: T201
        return ["resume", str(path), *(word for word in words if word.startswith(_ON_RESUME))]
    print(f"{source} is of another stage: its weights only")  # noqa: T201
    return [*start, "--init", run, *_options(typed), *words]


def _init(stage: str, typed: Typed) -> Command:
    """What a stage starts from: as typed, else the best weights of the stage before.

    Raises:
        UsageError: there are none.
    """
    init = typed.value("--init")
    if init is not None:
        return ["--init", run_reference(init, typed) or init]
    if stage == STAGES[0]:
        return []
    before = STAGES[STAGES.index(stage) - 1]
    best = run_folder(before, typed) / "checkpoints" / "best"
    if not best.is_dir():
        raise UsageError(
            f"{best}: no such checkpoint, which stage {stage} starts from",
            f"train stage {before} first, or say what to start from: --resume FILE",
        )
    return ["--init", str(best.parent.parent)]


def _chain(typed: Typed) -> Command:
    """All stages; what differs between them is said for each."""
    folder = run_folder("", typed)
    for flag in ("--resume", "--resume-from", "--init"):
        if flag in typed.flags:
            go_on = f"`omma resume {folder}` goes on with the first unfinished one"
            raise UsageError(f"{flag} is for one stage, and these are all", go_on)
    words = {stage: _words(stage, typed) for stage in STAGES}
    first = words[STAGES[0]]
    shared = [key for key, word in first.items() if all(words[stage].get(key) == word for stage in STAGES)]
    own = [f"{stage}:{word}" for stage in STAGES for key, word in words[stage].items() if key not in shared]
    start = ["train", "panollava/all", "--name", folder.name, "--runs-dir", str(folder.parent)]
    return [*start, *_options(typed), *(first[key] for key in shared), *own]


def _options(typed: Typed) -> list[str]:
    return [word for flag in _OPTIONS if flag in typed.flags for word in (flag, *typed.flags[flag])]


def _resolved(stage: str, typed: Typed) -> str:
    """What a stage would be trained with, a line for each option, then for each setting typed besides."""
    words = _words(stage, typed)
    config = open_recipe(f"panollava/{stage}", list(words.values())).config.as_dict()
    shown = {name: key for name, key in _SHOWN.items() if name not in _SYNONYMS}
    shown |= {key: key for key in words if key not in _SHOWN.values()}
    lines = {"stage": stage, "run": run_folder(stage, typed)}
    lines |= {name: _value(config, key) for name, key in shown.items()}
    width = max(map(len, lines))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in lines.items())


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _log_file(typed: Typed) -> Path | None:
    folder, stages = typed.value("--log-dir", "logs"), _stages(typed)
    stage = f"stage{STAGES.index(stages[0]) + 1}_{stages[0]}" if len(stages) == 1 else "full_pipeline"
    return Path(folder, f"{stage}_{now()}.log") if folder else None


def _training_flags() -> dict[str, Flag]:
    own = {
        "--stage": Flag(f"{', '.join(STAGES)} or {_ALL}, the default"),
        "--stages": Flag(f"the same: {' '.join(STAGES)}", None),
        "--resume": Flag("RUN, its checkpoint or FILE to go on from; of another stage its weights only"),
        "--resume-from": Flag("the same"),
        **PLACES,
        "--log-dir": Flag("folder of the logs, default logs; empty for none"),
        "--dry-run": Flag("print what every option comes to, and train nothing", 0),
    }
    by_stage = {
        f"--{stage}-{name}": Flag(f"--{name} of stage {stage}") for stage in STAGES for name in _BY_STAGE
    }
    return own | {flag: kind for flag, kind in training_flags(ALIASES).items() if flag not in own} | by_stage


PROGRAMS = {
    "train.py": Program(
        "Train one stage or all three; checkpoints/ and model_final.safetensors go to runs/vlm_<stage>/.",
        _train,
        _training_flags(),
        short=_LETTERS,
        log=lambda typed: None if "--dry-run" in typed.flags else _log_file(typed),
        exits=DATA_IS_USAGE,
    ),
    "eval_comprehensive.py": EVALUATION,
}
