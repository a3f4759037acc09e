"""How a command ends: its exit code, and one clear line for every failure."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

import omma
from omma.errors import OmmaError

# typer brings its own click, older versions use the one installed; usage errors share this base in both
_CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_READER_GONE = 141  # as a shell says of a program that SIGPIPE ended


def run_app(app: typer.Typer, arguments: list[str], *, debug: bool) -> int:
    """Run a command line and say its failure, if any, in one line.

    Args:
        app: the verbs.
        arguments: the words after the program's name.
        debug: let errors through, with their traceback.

    Returns:
        the exit code.
    """
    return exit_code(lambda: app(args=arguments, standalone_mode=False), debug=debug)


def exit_code(call: Callable[[], Any], *, debug: bool) -> int:
    """Call something and say its failure, if any, in one line.

    Args:
        call: may return an exit code.
        debug: let errors through, with their traceback.
    """
    try:
        result = call()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except OmmaError as error:
        if debug:
            raise
        _say(f"{'stopped' if error.exit_code == 143 else 'error'}: {error}")
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except _CLICK_ERROR as error:
        _say(f"error: {error.format_message()}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped")
        return 130
    except SystemExit as end:  # how click ends where nobody reads any more
        if isinstance(end.__context__, BrokenPipeError):
            return _READER_GONE
        raise
    except Exception as error:
        if isinstance(error, OSError) and _reader_is_gone():
            return _READER_GONE
        if debug:
            raise
        _say(f"internal error: {type(error).__name__}: {error}\n  --debug shows the traceback")
        return 1


def prepare_console() -> None:
    """Warnings as one line each; characters that the console cannot show are replaced."""
    for stream in (sys.stdout, sys.stderr):
        _replace_unprintable(stream)
    warnings.showwarning = _show_warning


def _reader_is_gone() -> bool:
    """Whether nobody reads the output any more, as in `omma ls | head -1`; then the rest goes nowhere."""
    try:
        print(flush=True)  # noqa: T201  what could not be written before is forgotten
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
    """A warning of ours is one plain line; those of libraries are for developers and not shown."""
    if issubclass(category, UserWarning) and Path(omma.__file__).parent in Path(filename).parents:
        _say(f"warning: {message}")


def _replace_unprintable(stream: Any) -> None:
    """A console that cannot show a character shows a replacement instead of failing."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
