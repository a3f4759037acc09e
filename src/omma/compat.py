"""Runs the commands of the original projects: reads what was typed and does the same by omma.

The scripts in compat/ are two lines each over `run`; what a command means stands in its system's
`originals.py`.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TextIO

from omma.cli import app
from omma.commands.outcome import exit_code, prepare_console
from omma.config.explain import suggest
from omma.errors import OmmaError, UsageError
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
    exits: dict[int, int] = {}

    def call() -> int:
        exits.update(_program(system, program).exits)
        return run_words(system, program, words, config)

    code = exit_code(call, debug=debug)
    sys.exit(exits.get(code, code))


def run_words(system: str, program: str, words: Sequence[str], config: object = None) -> int:
    """The same with the words given, for a caller that goes on.

    Returns:
        the exit code of the first omma command that failed, else 0.

    Raises:
        OmmaError: as the omma commands do.
    """
    found = _program(system, program)
    if any(word in _HELP for word in words):
        print(help_text(program, found))  # noqa: T201
        return 0
    with TemporaryDirectory(prefix="omma-") as scratch:
        typed = read(program, found, words, Path(scratch), attributes(config))
        with _copied_to(found.log(typed)):
            for command in found.commands(typed):
                code = _omma(command)
                if code:
                    return code
    return 0


def _program(system: str, name: str) -> Program:
    record = get(system)
    if record.originals is None:
        raise UsageError(f"{system} has no commands of an original project")
    found: Program = record.load(record.originals)[name]
    return found


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
        word = program.short.get(word, word)
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag not in program.flags:
                known = suggest(flag, program.flags)
                hint = f"{_usage(name, program)}\n  `{name} --help` lists them"
                raise UsageError(f"{flag}: {name} has no such option{known}", hint)
            flags[flag] = [value] if equals else _values(flag, program.flags[flag], rest)
        elif program.more or len(places) < len(program.words):
            places.append(word)
        elif "=" in word:
            settings.append(word)
        elif len(places) < len(program.words) + len(program.optional):
            places.append(word)
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
    more += [f"[{word}]" for word in program.optional]
    return " ".join(["usage:", name, *program.words, *more, *needs, "[options] [key.path=value ...]"])


def help_text(name: str, program: Program) -> str:
    """What --help prints; of a flag that is known with - and with _ the form that comes first."""
    shown = {flag.replace("_", "-"): flag for flag in reversed(program.flags)}
    letters = {flag: f"{letter}, " for letter, flag in program.short.items()}
    flags = {
        f"{letters.get(flag, '')}{flag}": kind
        for flag, kind in program.flags.items()
        if flag in shown.values()
    }
    width = max(map(len, flags), default=0)
    options = [f"  {flag:<{width}}  {kind.help}".rstrip() for flag, kind in flags.items()]
    return "\n".join([_usage(name, program), "", program.summary, "", *options])


def attributes(config: object) -> dict[str, Any]:
    """The public attributes of a config object or class, methods left out."""
    names = [name for name in dir(config) if not name.startswith("_")] if config is not None else []
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


class _Both(io.TextIOBase):
    """The console and a file; of a progress bar neither sees anything.

    Args:
        console: gets everything, at once.
        file: gets the same.
    """

    def __init__(self, console: TextIO, file: TextIO) -> None:
        self._console, self._file = console, file

    def write(self, text: str) -> int:
        """The number of characters."""
        self._file.write(text)
        self._file.flush()
        return self._console.write(text)

    def flush(self) -> None:
        """Of the console; the file has everything."""
        self._console.flush()

    @property
    def encoding(self) -> str:
        """The console's."""
        return self._console.encoding


@contextmanager
def _copied_to(path: Path | None) -> Iterator[None]:
    """What is said in this process goes to a file too, and what ended it."""
    if path is None:
        yield
        return
    with _opened(path) as file:
        both = _Both(sys.stdout, file), _Both(sys.stderr, file)
        try:
            with redirect_stdout(both[0]), redirect_stderr(both[1]):
                yield
        except OmmaError as error:  # which the caller tells the console
            file.write(f"error: {error}\n")
            raise


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})", "name another folder") from None


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
