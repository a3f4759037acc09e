"""Runs command blocks of the guides in a copy of compat/: Python scripts in this process, others by bash."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

COMPAT = Path(__file__).parents[2] / "compat"
_TEE = " 2>&1 | tee "
_RECORD = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$RECORDED"\n'
_SCRIPTS = ("python ", "bash ", "./")


class Shell:
    """A copy of one system's commands, as its working directory.

    Args:
        system: folder in compat/.
        folder: of the copy; made.
        patch: puts the working directory and the arguments back.
    """

    def __init__(self, system: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        shutil.copytree(COMPAT / system, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.recorded = folder.parent / "recorded.txt"
        self.recorder = folder.parent / "record.sh"
        self.recorder.write_text(_RECORD, encoding="utf-8")
        self.recorder.chmod(0o755)

    def python(self, script: str, *words: object) -> int:
        """`python SCRIPT WORDS` in this process; the exit code."""
        path = (self.folder / script).resolve()
        before = set(sys.modules)
        with self.patch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", [script, *map(str, words)])
            patch.syspath_prepend(str(path.parent))
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                return int(end.code or 0)
            finally:
                self.forget(before)
        return 0

    def execute(self, code: str, names: dict[str, Any]) -> None:
        """A snippet of a guide, typed in this folder."""
        before = set(sys.modules)
        with self.patch.context() as patch:
            patch.syspath_prepend(str(self.folder))
            try:
                exec(compile(code, "snippet", "exec"), names)
            finally:
                self.forget(before)

    def forget(self, before: set[str]) -> None:
        """Drop modules of this folder, whose names other folders have too."""
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("src", "config"):
                del sys.modules[name]

    def bash(self, text: str) -> subprocess.CompletedProcess[str]:
        """A block by bash; a script that it starts has its words recorded instead of being run."""
        env = {**os.environ, "PYTHON": str(self.recorder), "RECORDED": str(self.recorded)}
        command = ["bash", "-euc", text]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def script(self, words: Sequence[str]) -> int:
        """A .sh script: what it would start is run in this process."""
        self.recorded.unlink(missing_ok=True)
        done = self.bash(shlex.join(words))
        assert done.returncode == 0, done.stderr
        started = self.recorded.read_text(encoding="utf-8").splitlines()
        return self.python(started[0], *started[1:])

    def block(self, text: str, places: Mapping[str, object], smaller: Sequence[str] = ()) -> None:
        """A command block of a guide; every command of it must succeed.

        Args:
            text: as in the guide.
            places: paths of the guide -> those here.
            smaller: words behind every command that a script of compat/ gets.
        """
        for written, here in places.items():
            text = text.replace(written, str(here))
        lines = text.strip().replace("\\\n", " ").splitlines()
        if not any(line.startswith(_SCRIPTS) for line in lines):
            done = self.bash(text)
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            return
        for line in lines:
            if line.startswith(_SCRIPTS):
                self._command(line, smaller)
            elif line.startswith("cd "):
                assert Path(line[3:]) == self.folder

    def _command(self, line: str, smaller: Sequence[str]) -> None:
        command, _, log = line.partition(_TEE)
        if log:
            (self.folder / log).touch(exist_ok=False)  # a shell opens it before the command starts
        words = shlex.split(command)
        if words[0] == "python":
            assert self.python(words[1], *words[2:], *smaller) == 0, line
        else:
            assert self.script([*words, *smaller]) == 0, line


def new_shell(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str = "실험") -> Shell:
    """A fresh copy, in a folder of that name."""
    (tmp_path / place).mkdir()
    return Shell(system, tmp_path / place / system, monkeypatch)


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing a report, or measuring memory, takes longer than any training of these tests."""
    monkeypatch.setattr("omma.commands.train._finish", lambda *args: None)
    monkeypatch.setattr("omma.commands.doctor._resources", lambda *args: ())


def change(file: Path, *pairs: tuple[str, str]) -> None:
    """As a user with an editor would."""
    text = file.read_text(encoding="utf-8")
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8", newline="\n")
