import io
import sys
from pathlib import Path

import pytest

from omma.runs.console import RunLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_console_and_file_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.txt"
    file.write_text("before\n", encoding="utf-8")
    log = RunLog(file)
    log.line("손실 0.5 [bold]")
    with log.progress(10) as bar:
        bar.update(3, loss="0.5")
        log.line("inside")
    assert capsys.readouterr().out == "손실 0.5 [bold]\ninside\n"
    assert file.read_text(encoding="utf-8") == "before\n손실 0.5 [bold]\ninside\n"


def test_quiet_writes_the_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(tmp_path / "log.txt", quiet=True).line("hello")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "hello\n"


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunLog(None).line("hello")
    assert list(tmp_path.iterdir()) == []


def test_a_console_that_cannot_print_a_character_gets_a_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    RunLog(tmp_path / "log.txt").line("정확도 ±0.5")
    assert raw.getvalue().decode("cp1252").splitlines() == ["??? ±0.5"]
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "정확도 ±0.5\n"


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    log = RunLog(None)
    with log.progress(8, done=2, label="train") as bar:
        bar.update(3, loss="0.25", lr="[1e-3]")
        log.line("validation [1/2]")
        with log.progress(4, label="val") as inner:
            log.line("inside")
            inner.update(4)
    text = terminal.getvalue()
    assert "3/8" in text
    assert "0/4" in text
    assert "loss 0.25  lr [1e-3]" in text
    assert text.index("validation [1/2]") < text.rindex("3/8")
    log.line("end")
    assert terminal.getvalue().endswith("end\n")
