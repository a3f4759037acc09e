import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from omma.runs.folder import RunFolder
from omma.runs.provenance import write_provenance


def provenance_text(root: Path) -> str:
    run = RunFolder.create(root, "run", config={}, command=["omma"])
    write_provenance(run)
    return (run.path / "provenance.json").read_text(encoding="utf-8")


def test_no_secret_host_or_path_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "deadbeefcafe")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    text = provenance_text(tmp_path)
    assert json.loads(text)["environment"]["OMP_NUM_THREADS"] == "3"
    for secret in (
        "deadbeefcafe",
        "hf_secret",
        "WANDB_API_KEY",
        str(tmp_path),
        str(Path.cwd()),
        str(Path.home()),
    ):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text
    assert f'"{socket.gethostname()}"' not in text


def test_versions_and_hardware_are_there(tmp_path: Path) -> None:
    found = json.loads(provenance_text(tmp_path))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"omma", "numpy", "torch"} <= set(found["packages"])
    assert found["hardware"]["cpu"]
    assert found["hardware"]["cores"] >= 1


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_git_state_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    git(code, "init", "-q", "-b", "topic")
    (code / "a.py").write_text("1\n", encoding="utf-8")
    git(code, "add", ".")
    git(code, "commit", "-q", "-m", "one")
    monkeypatch.chdir(code)
    clean = json.loads(provenance_text(tmp_path / "r1"))["git"]
    assert clean == {"sha": git(code, "rev-parse", "HEAD"), "branch": "topic", "dirty": False}
    (code / "a.py").write_text("secret change\n", encoding="utf-8")
    text = provenance_text(tmp_path / "r2")
    assert json.loads(text)["git"]["dirty"] is True
    assert "secret change" not in text


def test_outside_a_repository_git_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert json.loads(provenance_text(tmp_path))["git"] is None
