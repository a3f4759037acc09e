"""Commands of the original projects: what each is given, and which omma commands do the same.

A system lists its own in `originals.py` as PROGRAMS, name -> Program; `omma.compat` runs them.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omma.config.literals import Unreadable
from omma.errors import ConfigError, UsageError
from omma.systems import Alias

Command = list[str]  # words after `omma`
_START_FLAGS = ("--resume", "--resume-from", "--load-from", "--init")
_ENDINGS = (".pt", ".pth", ".ckpt")
_SHOWN = 6  # names of files in a message
Readers = Mapping[str, Callable[[Any], list[str]]]  # dotted name in a config -> words for `omma train`


@dataclass(frozen=True)
class Flag:
    """An option of an original command.

    Args:
        help: what it does here.
        values: how many words follow it; None: one or more.
    """

    help: str = ""
    values: int | None = 1


@dataclass(frozen=True)
class Typed:
    """What was typed after the command's name.

    Args:
        words: positional words, as many as the program names.
        flags: flag -> its values, of its last use.
        settings: `key.path=value` words.
        scratch: a folder that is deleted when the program ends.
        config: values that the caller's own config holds, name -> value.
    """

    words: Sequence[str]
    flags: Mapping[str, list[str]]
    settings: Sequence[str]
    scratch: Path
    config: Mapping[str, Any]

    def value(self, flag: str, default: str | None = None) -> str | None:
        """The value of a flag that has one."""
        return self.flags[flag][0] if flag in self.flags else default

    def given(self, *left_out: str) -> list[str]:
        """Flags as typed, then settings.

        Args:
            left_out: flags that the caller deals with.
        """
        flags = {name: values for name, values in self.flags.items() if name not in left_out}
        return [*(word for flag, values in flags.items() for word in (flag, *values)), *self.settings]


@dataclass(frozen=True)
class Program:
    """A command of an original project.

    Args:
        summary: one line for --help.
        commands: gives the omma commands one after the other; the next is asked for when one has succeeded.
        flags: its options; others are refused.
        words: names of its positional words.
        more: whether further positional words may follow those.
        optional: names of positional words after those that may be left out.
        needs: flags without which nothing can be done.
        short: a letter with its dash -> the flag.
        log: the file that gets all that is said, or None.
        exits: exit code of omma -> the one that the original's users know.
    """

    summary: str
    commands: Callable[[Typed], Iterator[Command]]
    flags: Mapping[str, Flag]
    words: tuple[str, ...] = ()
    more: bool = False
    optional: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[Typed], Path | None] = lambda typed: None
    exits: Mapping[int, int] = field(default_factory=dict)


def training_flags(aliases: Mapping[str, Alias]) -> dict[str, Flag]:
    """The flags of a training command: those of the alias table, and omma's own."""
    meanings = {"name": "the run's folder", "exp_name": "the run's name"}
    meanings |= {"resume": "RUN or FILE to go on from", "init": "RUN or FILE of weights to start from"}
    own = {
        "--init": Flag("RUN or FILE of weights to start from"),
        "--smoke": Flag("a trial of so many steps"),
        "--overfit": Flag("train and validate on the same so many samples"),
        "--overwrite": Flag("move an earlier run in that folder aside", 0),
        "--partial": Flag("of the weights to start from take what fits", 0),
    }
    flags = {
        flag: Flag(alias.key or meanings.get(alias.option, ""), 1 if alias.switch is None else 0)
        for flag, alias in aliases.items()
    }
    return {**flags, **own}


def with_its_checkpoints(command: Command) -> Command:
    """The command, if each checkpoint file that it names is there.

    Raises:
        UsageError: one is not.
    """
    for flag, value in itertools.pairwise(command):
        if flag in _START_FLAGS and Path(value).suffix in _ENDINGS:
            _refuse_missing(value)
    return command


def config_words(file: Path, values: Mapping[str, Any], readers: Readers, silent: Collection[str]) -> Command:
    """What a config of the original means for `omma train`; says what of it is not read.

    Args:
        file: for messages.
        values: what it holds, see `omma.config.literals`.
        readers: for each dotted name that is read, the words of its value.
        silent: dotted names that have no meaning here, and need not be mentioned.

    Raises:
        ConfigError: a name looks like a misspelt one, or a value that counts cannot be read.
    """
    words: list[str] = []
    unread: list[str] = []
    for name, value in _leaves(values, readers, ""):
        if isinstance(value, Unreadable) and (name in readers or _below(name, readers)):
            raise ConfigError(
                f"{file}, line {value.line}: {name} = {value.text} is not read",
                "this file is read as data, not run: write the value itself",
            )
        if name in readers:
            words += readers[name](value)
        elif name not in silent:
            _refuse_misspelt(file, name, readers, silent)
            unread.append(name)
    if unread:
        print(f"{file.name}: not read, the recipe's hold: {', '.join(unread)}")  # noqa: T201
    return words


def _leaves(values: Mapping[str, Any], readers: Readers, prefix: str) -> Iterator[tuple[str, Any]]:
    """Names that have a reader, and of the others the topmost that has none below it."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name not in readers and isinstance(value, dict) and _below(name, readers):
            yield from _leaves(value, readers, f"{name}.")
        else:
            yield name, value


def _below(name: str, readers: Readers) -> bool:
    """Whether anything inside a value of that name is read."""
    return any(known.startswith(f"{name}.") for known in readers)


def _refuse_misspelt(file: Path, name: str, readers: Readers, silent: Collection[str]) -> None:
    head, _, last = name.rpartition(".")
    siblings = [known for known in readers if known.rpartition(".")[0] == head]
    siblings += [known.partition(".")[0] for known in readers if not head]
    near = [known for known in dict.fromkeys(siblings) if _alike(last, known.rpartition(".")[2])]
    if near and name not in silent:
        raise ConfigError(
            f"{file}: {name}: no such setting; did you mean {', '.join(near)}?",
            "correct the name; what a recipe can set is shown by `omma show`",
        )


def _alike(one: str, other: str) -> bool:
    """A slip of a letter or two, not another word: these projects have many names."""
    return difflib.SequenceMatcher(None, one, other).ratio() > 0.85


def flag_reader(flag: str) -> Callable[[Any], list[str]]:
    """A reader that hands a value to a flag of the alias table; None means not set."""

    def read(value: Any) -> list[str]:
        return [] if value is None else [flag, value if isinstance(value, str) else json.dumps(value)]

    return read


def opened(
    file: str, system: str, recipe: str, settings: Sequence[str], scratch: Path
) -> tuple[str, list[Command]]:
    """A run for a checkpoint file: the one that it is of, or one made of it.

    Args:
        file: of the original's name or form.
        system: that it is of.
        recipe: for a file that is of no run of omma's.
        settings: for that recipe.
        scratch: folder for a run that is made.

    Returns:
        what omma calls it, and the commands that make it.
    """
    run = run_of(file)
    if run is not None:
        return run, []
    path = Path(file)
    if _in_run(path):  # of a run, but not of a checkpoint that is still there: the run knows the network
        recipe, settings = str(path.parent), settings[:0]
    out = str(scratch / f"{path.resolve().parent.name}-{path.stem}")
    return out, [["import", system, file, "--recipe", recipe, "--out", out, *settings]]


def run_of(file: str) -> str | None:
    """The run and checkpoint that a training file of the original's name is of; None for a foreign file.

    best*.pth is the run's best, latest.pth its last, iter_N.pth its step N.

    Args:
        file: such as runs/baseline/best_mIoU.pth.

    Raises:
        UsageError: there is no such file.
    """
    path = Path(file)
    _refuse_missing(file)
    if not _in_run(path):
        return None
    kind, _, number = path.stem.partition("_")
    if kind in ("best", "latest"):
        return f"{path.parent}@{'last' if kind == 'latest' else kind}"
    folder = path.parent / "checkpoints" / f"step_{int(number):06d}" if number.isdecimal() else path
    return f"{path.parent}@{folder.name}" if kind == "iter" and folder.is_dir() else None


def _refuse_missing(file: str) -> None:
    path = Path(file)
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise UsageError(f"{file}: no such checkpoint file", f"there is no folder {path.parent}")
    there = sorted(other.name for other in path.parent.iterdir() if other.suffix in _ENDINGS)
    hint = f"{path.parent} has {', '.join(there[-_SHOWN:]) or 'none'}"
    raise UsageError(f"{file}: no such checkpoint file", hint)


def _in_run(file: Path) -> bool:
    return (file.parent / "config.yaml").is_file()
