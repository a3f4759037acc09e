"""A training that cannot start leaves nothing behind, and a run that stood there stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.e2e.conftest import TINY

from omma.cli import _run

pytestmark = pytest.mark.e2e


def _cut(folder: Path, run: Path) -> list[str]:
    copy = shutil.copytree(run, folder / "copy")
    file = copy / "checkpoints" / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return ["--init", str(copy)]


def _of_another_system(folder: Path, run: Path) -> list[str]:
    copy = shutil.copytree(run, folder / "copy")
    file = copy / "checkpoints" / "best" / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"system": "other"}))
    return ["--init", str(copy)]


def _continued(folder: Path, run: Path) -> list[str]:
    torch.save({"strange.weight": torch.zeros(2)}, folder / "strange.pt")
    return ["--resume", str(folder / "strange.pt")]


BROKEN: dict[str, Callable[[Path, Path], list[str]]] = {
    "cut short": _cut,
    "another system": _of_another_system,
    "strange training": _continued,
    "no such metric": lambda folder, run: ["save.best=no_such_metric"],
    "no such weights": lambda folder, run: [f"system.pretrained={folder.as_posix()}/absent.pth"],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_start_leaves_nothing_behind(run, world, tmp_path, capsys, kind):
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "first")
    before = sorted(path.name for path in (runs / "first").iterdir())
    words = ["--name", "first", "--overwrite", "--smoke", "1", "--runs-dir", str(runs)]
    settings = [f"data.root={world}", *TINY, *BROKEN[kind](tmp_path, run)]
    assert _run(["train", "lss/demo", *words, *settings], debug=False) in (2, 3)
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in runs.iterdir()] == ["first"]
    assert sorted(path.name for path in (runs / "first").iterdir()) == before


def test_a_resume_that_cannot_start_leaves_the_config_as_it_was(run, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "first"))
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    words = ["train.length=8", "save.best=no_such_metric"]
    assert _run(["resume", str(copy), *words], debug=False) == 2
    assert "no_such_metric" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


def test_a_sweep_goes_on_behind_a_point_that_cannot_start(world, tmp_path, monkeypatch):
    monkeypatch.setattr("omma.commands.train._finish", lambda *args: None)
    words = [f"data.root={world}", *TINY, "--smoke", "1", "--name", "s", "--runs-dir", str(tmp_path)]
    assert _run(["sweep", "lss/demo", "system.pretrained=none,absent.pth", *words], debug=False) == 0
    rows = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[2] for row in rows] == ["finished", "not started"]
