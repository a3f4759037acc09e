"""What Python callers give, checked and as the words that the commands take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from omma.errors import UsageError
from omma.runs.folder import RunFolder

Run = str | Path | RunFolder
TRAIN_OPTIONS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "smoke": (int,),
    "overfit": (int,),
    "init": (str, Path, RunFolder),
    "partial": (bool,),
    "resume_file": (str, Path),
    "overwrite": (bool,),
    "runs_dir": (str, Path),
    "quiet": (bool,),
}


def run_word(run: Run) -> str:
    """A run as its path or name.

    Raises:
        UsageError: it is nothing of that kind.
    """
    if isinstance(run, RunFolder):
        return str(run.path)
    if isinstance(run, str | Path) and str(run):
        return str(run)
    raise UsageError(f"a run is a name, a path or what omma.train returned, not {_kind(run)}")


def run_words(runs: Run | Iterable[Run]) -> list[str]:
    """One run or several.

    Raises:
        UsageError: they are nothing of that kind, or none.
    """
    several = runs if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    found = [run_word(run) for run in several]
    if not found:
        raise UsageError("give at least one run", "`omma runs` lists them")
    return found


def recipe_word(recipe: str | Path) -> str:
    """A recipe as its name or path.

    Raises:
        UsageError: it is nothing of that kind.
    """
    if isinstance(recipe, str | Path) and str(recipe):
        return str(recipe)
    raise UsageError(f"a recipe is a name such as system/recipe or a path, not {_kind(recipe)}")


def several_words(words: str | Path | Iterable[str | Path], what: str) -> list[str]:
    """One word or several.

    Args:
        words: what was given.
        what: the argument's name.

    Raises:
        UsageError: they are nothing of that kind.
    """
    found = [words] if isinstance(words, str | Path) or not isinstance(words, Iterable) else list(words)
    if all(isinstance(word, str | Path) for word in found):
        return [str(word) for word in found]
    raise UsageError(f"{what}: should be a text or path or a list of them, not {_kind(words)}")


def index_word(indices: int | str | Iterable[int | str] | None) -> str | None:
    """Indices or names of samples as `--indices` takes them.

    Raises:
        UsageError: they are nothing of that kind.
    """
    if indices is None or isinstance(indices, str):
        return indices
    several = [indices] if isinstance(indices, Integral) else indices
    if isinstance(several, Iterable) and (found := list(several)):
        return ",".join(str(index) for index in found)
    raise UsageError(f"indices: should be a number, a text or a list of them, not {_kind(indices)}")


def split_word(split: str | None) -> str | None:
    """A part of the data set.

    Raises:
        UsageError: it is no name.
    """
    if split is None or isinstance(split, str):
        return split
    raise UsageError(f"split: a part of the data set has a name such as 'val', not {_kind(split)}")


def out_folder(out: str | Path) -> Path:
    """A folder to write to, which need not be there.

    Raises:
        UsageError: it is no path, or there is a file.
    """
    if not isinstance(out, str | Path):
        raise UsageError(f"out: a folder to write to is a path, not {_kind(out)}")
    if Path(out).is_file():
        raise UsageError(f"{out}: is a file, but several files are to be written", "give a folder")
    return Path(out)


def train_options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a training, as the command takes them, and the rest, which are settings.

    Raises:
        UsageError: an option has a value of another type.
    """
    options = {key: value for key, value in settings.items() if key in TRAIN_OPTIONS and value is not None}
    for key, value in options.items():
        if not isinstance(value, TRAIN_OPTIONS[key]):
            wanted = " or ".join(kind.__name__ for kind in TRAIN_OPTIONS[key])
            raise UsageError(f"{key}: should be {wanted}, not {_kind(value)}")
        if isinstance(value, Path | RunFolder):
            options[key] = run_word(value)
    return options, {key: value for key, value in settings.items() if key not in TRAIN_OPTIONS}


def setting_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `key.path=value`.

    Raises:
        UsageError: a value is nothing that a recipe could hold.
    """
    return [f"{key}={_text(key, value)}" for key, value in settings.items()]


def _text(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except TypeError as error:
        raise UsageError(f"{key}: {error}", "settings are numbers, texts, lists and dictionaries") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"no recipe can hold {_kind(value)}")


def _kind(value: Any) -> str:
    return "None" if value is None else f"{value!r:.40} ({type(value).__name__})"
