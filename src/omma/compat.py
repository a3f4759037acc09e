"""Runs the commands of the original projects: reads what was typed and does the same by omma.

The scripts in compat/ are two lines each over `run`; what a command means stands in its system's
`originals.py`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from omma.cli import app
from omma.commands.outcome import exit_code, prepare_console
from omma.config.explain import suggest
from omma.errors import UsageError
from omma.systems import get
from omma.systems.originals import Command, Flag, Program, Typed

_HELP = ("-h", "--help")


def run(system: str, program: str, config: object = None) -> NoReturn:
    """Run a command of an original project with this process's arguments, and end the process.

    Args:
        system: name of the system.
        program: as the system's table calls it, such as train.py.
        config: an object or class of the caller whose attributes are settings.
    """
    prepare_console()
    words = sys.argv[1:]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    sys.exit(exit_code(lambda: run_words(system, program, words, config), debug=debug))


def run_words(system: str, program: str, words: Sequence[str], config: object = None) -> int:
    """The same with the words given, for a caller that goes on.

    Returns:
        the exit code of the first omma command that failed, else 0.

    Raises:
        OmmaError: as the omma commands do.
    """
    record = get(system)
    if record.originals is None:
        raise UsageError(f"{system} has no commands of an original project")
    found: Program = record.load(record.originals)[program]
    if any(word in _HELP for word in words):
        print(help_text(program, found))  # noqa: T201
        return 0
    with TemporaryDirectory(prefix="omma-") as scratch:
        for command in found.commands(read(program, found, words, Path(scratch), attributes(config))):
            code = _omma(command)
            if code:
                return code
    return 0


def read(
    name: str, program: Program, words: Sequence[str], scratch: Path, config: Mapping[str, Any] | None = None
) -> Typed:
    """Sort the words after an original command.

    Args:
        name: of the command, for messages.
        program: what it takes.
        words: as typed.
        scratch: for `Typed`.
        config: for `Typed`.

    Raises:
        UsageError: an unknown flag, a missing or a surplus word.
    """
    flags: dict[str, list[str]] = {}
    places: list[str] = []
    settings: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag not in program.flags:
                known = suggest(flag, program.flags)
                raise UsageError(f"{flag}: {name} has no such option{known}", f"`{name} --help` lists them")
            flags[flag] = [value] if equals else _values(flag, program.flags[flag], rest)
        elif program.more or len(places) < len(program.words):
            places.append(word)
        elif "=" in word:
            settings.append(word)
        else:
            raise UsageError(f"{word}: {name} takes no such word", f"{_usage(name, program)}")
    missing = [*program.words[len(places) :], *(flag for flag in program.needs if flag not in flags)]
    if missing:
        raise UsageError(f"{name}: {', '.join(missing)} missing", _usage(name, program))
    return Typed(places, flags, settings, scratch, config or {})


def _values(flag: str, kind: Flag, rest: list[str]) -> list[str]:
    """Take the words that belong to a flag from the rest."""
    number = kind.values
    if number is None:
        number = next((at for at, word in enumerate(rest) if word.startswith("--")), len(rest))
        number = max(number, 1)
    if len(rest) < number:
        raise UsageError(f"{flag}: a value is missing")
    taken = rest[:number]
    del rest[:number]
    return taken


def _usage(name: str, program: Program) -> str:
    needs = [f"{flag} VALUE" for flag in program.needs]
    more = [f"[{program.words[-1]} ...]"] if program.more else []
    return " ".join(["usage:", name, *program.words, *more, *needs, "[options] [key.path=value ...]"])


def help_text(name: str, program: Program) -> str:
    """What --help prints; of a flag that is known with - and with _ the form that comes first."""
    shown = {flag.replace("_", "-"): flag for flag in reversed(program.flags)}
    flags = {flag: kind for flag, kind in program.flags.items() if flag in shown.values()}
    width = max(map(len, flags), default=0)
    options = [f"  {flag:<{width}}  {kind.help}".rstrip() for flag, kind in flags.items()]
    return "\n".join([_usage(name, program), "", program.summary, "", *options])


def attributes(config: object) -> dict[str, Any]:
    """The public attributes of a config object or class, methods left out."""
    names = [name for name in dir(config) if not name.startswith("_")] if config is not None else []
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


def _omma(command: Command) -> int:
    """Run one omma command as if it had been typed, which command.txt of a run then says."""
    print(f"omma {shlex.join(command)}", flush=True)  # noqa: T201
    before = sys.argv
    sys.argv = ["omma", *command]
    try:
        result = app(args=list(command), standalone_mode=False)
    finally:
        sys.argv = before
    return result if isinstance(result, int) else 0
