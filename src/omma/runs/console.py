"""One voice for a run: the console and log.txt say the same; a terminal also gets a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omma.runs.files import explain_disk_full

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """A bar that may not be there: without a terminal `update` does nothing."""

    def __init__(self, bar: Progress | None = None, task: TaskID | None = None) -> None:
        self._bar, self._task = bar, task

    def update(self, done: int, **fields: str) -> None:
        """Move the bar to `done` and show the fields behind it, as `name value`."""
        if self._bar is not None and self._task is not None:
            text = "  ".join(f"{name} {value}" for name, value in fields.items())
            self._bar.update(self._task, completed=done, text=text)


def _new_bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        refresh_per_second=4,
        transient=True,
    )


class RunLog:
    """Lines for the console and log.txt, and progress bars.

    Args:
        file: log.txt, appended to; None writes no file.
        quiet: nothing on the console (the file still gets every line).
    """

    def __init__(self, file: Path | None, *, quiet: bool = False) -> None:
        self._file = file
        self._quiet = quiet
        self._bar: Progress | None = None

    def line(self, text: str) -> None:
        """Say one line (or several): above a live bar, and into the file.

        Raises:
            OmmaError: if the disk is full.
        """
        if not self._quiet:
            self._say(text)
        if self._file is not None:
            with explain_disk_full(self._file), self._file.open("a", encoding="utf-8", newline="\n") as file:
                file.write(text + "\n")

    def _say(self, text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        printable = text.encode(encoding, "replace").decode(encoding)
        if self._bar is not None:
            self._bar.console.print(printable, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stdout.write(printable + "\n")
            sys.stdout.flush()

    @contextmanager
    def progress(self, total: int, done: int = 0, label: str = "") -> Iterator[ProgressBar]:
        """A progress bar with the time left while the block runs; bars may be nested.

        Args:
            total: number of steps.
            done: steps finished before (a resumed run).
            label: what is being done.
        """
        if self._quiet or not sys.stdout.isatty():
            yield ProgressBar()
            return
        outermost = self._bar is None
        bar = self._bar or _new_bar()
        if outermost:
            self._bar = bar
            bar.start()
        task = bar.add_task(label, total=total, completed=done, text="")
        try:
            yield ProgressBar(bar, task)
        finally:
            bar.remove_task(task)
            if outermost:
                bar.stop()
                self._bar = None


class KeptLines(RunLog):
    """Keeps lines in `lines` until there is a log for them."""

    def __init__(self) -> None:
        super().__init__(None, quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Keep one line (or several)."""
        self.lines.append(text)
