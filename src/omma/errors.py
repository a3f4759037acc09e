"""Errors that end in one clear line, the exit code each carries, and what a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


class OmmaError(ValueError):
    """A problem the user can mend: what is wrong and where, then what to do.

    Args:
        message: what is wrong, with the key, file or index at fault.
        hint: what to do about it, one line or several.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(OmmaError):
    """The command line asks for something that does not exist or does not fit."""

    exit_code = 2


class ConfigError(UsageError):
    """The recipe or an override has a problem; all problems are in the message."""


class DataError(OmmaError):
    """A data set, file or label is missing or does not hold what it should."""

    exit_code = 3


class CheckpointError(DataError):
    """A checkpoint is missing, damaged or of another system or shape."""


class OutOfMemoryError(OmmaError):
    """The device ran out of memory."""

    exit_code = 4


class NonFiniteError(OmmaError):
    """The loss or its gradient is not finite; nothing was updated."""

    exit_code = 5


class Preempted(OmmaError):  # noqa: N818  not an error: the run was asked to stop and saved its state
    """The run was stopped by a signal after saving."""

    exit_code = 143


Severity = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        severity: "ok", "info", "warning" or "error" (an error makes `omma doctor` exit with 3).
        title: the verdict in a few words.
        evidence: the numbers or file behind it.
        fix: what to do; empty where nothing needs doing.
        figure: file name of a picture that shows it, if there is one.
    """

    severity: Severity
    title: str
    evidence: str = ""
    fix: str = ""
    figure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return asdict(self)
