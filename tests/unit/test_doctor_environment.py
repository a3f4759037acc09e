"""Checks of the machine: packages that import, that do not, and that end the interpreter."""

import subprocess
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


def test_a_gpu_that_others_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"Card A|{20 * 2**30}|{24 * 2**30}\nCard B|{3 * 2**30}|{24 * 2**30}\n"
    done = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr(environment.subprocess, "run", lambda *words, **options: done)
    free, used = environment._device()
    assert (free.severity, free.title, free.evidence) == ("ok", "GPU 0, Card A", "20 of 24 GiB free")
    assert (used.severity, used.title) == ("warning", "GPU 1, Card B, is in use")
    assert "nvidia-smi" in used.fix


def test_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "Path", lambda name: tmp_path)
    usage = environment.shutil.disk_usage(tmp_path)
    for size, number in ((64 * 2**20, 1), (8 * 2**30, 0)):
        monkeypatch.setattr(
            environment.shutil, "disk_usage", lambda place, size=size: usage._replace(total=size)
        )
        assert [one.severity for one in environment._shared_memory()] == ["warning"] * number
