"""SIGTERM and SIGINT as a flag that the training looks at where its state is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from omma.engine.launch import launcher_is_gone, stop_signals_go_to
from omma.engine.ranks import any_rank, cpu_group


class StopRequested(Exception):  # noqa: N818  a request, not an error
    """A signal asked the run to stop; raised where a training step or a validation can be left."""


class _StopAtOnce(BaseException):
    """A signal came inside `StopSignal.at_once`; no `except Exception` of a compiler may catch it."""


class StopSignal:
    """Remembers SIGTERM or SIGINT; a second SIGINT stops at once. Every process makes one."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at_once = False
        self._group = cpu_group()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if self._at_once:
            self._at_once = False
            raise _StopAtOnce

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal is not waited for: for a process alone, in what may compile for minutes.

        Raises:
            StopRequested: a signal came.
        """
        try:
            self._at_once = True
            if self.received is not None:
                raise _StopAtOnce
            yield
            self._at_once = False  # in here, so that a signal in between is caught
        except _StopAtOnce:
            raise StopRequested from None
        finally:
            self._at_once = False

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Catch the signals inside the block."""
        with stop_signals_go_to(self._on_signal):
            yield self

    def check(self) -> None:
        """Leave together with all other processes if any of them was signalled; every process must call it.

        Raises:
            StopRequested: a signal came, or the launcher of this process has died.
        """
        if any_rank(self.received is not None or launcher_is_gone(), self._group):
            raise StopRequested
