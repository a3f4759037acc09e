"""Checks of the machine: packages that import, that do not, and that end the interpreter."""

from pathlib import Path

import pytest

from omma.doctor import environment


def _packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> list:
    monkeypatch.setattr(environment, "_REQUIRED", names)
    monkeypatch.setattr(environment, "_OPTIONAL", {})
    return list(environment._packages())


def test_packages_that_import_are_one_finding_and_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = environment._import_failure
    monkeypatch.setattr(environment, "_import_failure", lambda names: calls.append(names) or original(names))
    (finding,) = _packages(monkeypatch, "json", "csv")
    assert (finding.severity, finding.title) == ("ok", "all required packages import")
    assert calls == ["json, csv"]


def test_each_broken_package_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ends_python.py").write_text("import os; os._exit(134)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    missing, crashing = _packages(monkeypatch, "json", "no_such_package", "ends_python")
    assert {missing.severity, crashing.severity} == {"error"}
    assert missing.title == "no_such_package cannot be imported"
    assert "No module named 'no_such_package'" in missing.evidence
    assert crashing.evidence == "the interpreter crashed"
    assert "pip install --force-reinstall ends_python" in crashing.fix


def test_a_folder_that_is_not_there_yet_is_checked_by_its_parent(tmp_path: Path) -> None:
    (finding,) = environment._disk(tmp_path / "runs" / "later")
    assert finding.severity in {"ok", "warning"}
    assert str(tmp_path) in finding.title
