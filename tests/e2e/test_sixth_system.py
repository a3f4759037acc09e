"""The worked example of docs/add-a-system.md: a system that is one temporary folder and nothing else."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-system.md"
NAME = "people_count"
TINY = ["train.workers=0", "train.batch_size=2", "data.image_size=[32, 48]", "log.tensorboard=false"]
VERBS = """
import json, sys
from omma.cli import _run
for words in json.loads(sys.argv[1]):
    assert _run(words, debug=True) == 0, words
"""


def _files() -> dict[str, str]:
    """The files of the page: path -> content."""
    blocks = re.findall(
        r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return dict(blocks)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with `my_systems` in it."""
    place = tmp_path_factory.mktemp("여섯 sixth")
    for name, content in _files().items():
        file = place / "my_systems" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return place


def _python(place: Path, *words: str, systems: str = "my_systems") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMMA_SYSTEMS": systems, "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_the_page_s_folder_works_with_every_verb(place):
    world = "--scenes 2 --val-scenes 1 --frames 2 --image-size 48x64 --workers 1".split()
    data = ["data.root=data/people", *TINY]
    commands = [
        ["world", "coco", "--out", "data/people", *world],
        ["ls", NAME],
        ["show", NAME, "optim.lr=5e-4"],
        ["train", NAME, *data, "--name", "count", "--smoke", "4"],
        ["eval", "count"],
        ["predict", "count", "--indices", "0,1", "--out", "pictures"],
        ["report", "count"],
        ["bench", NAME, *data, "--steps", "3"],
    ]
    documented = re.findall(r"^omma (\w+)", PAGE.read_text("utf-8"), re.MULTILINE)
    assert set(documented) <= {words[0] for words in commands} | {"export"}
    done = _python(place, "-c", VERBS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{NAME}/base" in done.stdout
    run = place / "runs" / "count"
    metrics = json.loads((run / "eval" / "val" / "metrics.json").read_text("utf-8"))["metrics"]
    assert np.isfinite(metrics["mae"])
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["phase"] == "train"] == ["1", "2", "3", "4"]
    assert all(float(row["mae"]) >= 0 for row in rows)
    assert "mae" in (run / "report.html").read_text("utf-8")
    picture = np.asarray(Image.open(place / "pictures" / "sample_0001.png"))
    assert picture.std() > 10


def test_the_contract_holds_for_it(place):
    """And nothing of it is in the package: only the variable tells of the folder."""
    assert not list((ROOT / "src").rglob(f"*{NAME}*"))
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests/unit/test_contract.py"),
        "-k",
        NAME,
    ]
    done = _python(place, *words)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"[78] passed", done.stdout), done.stdout[-300:]


def test_a_folder_that_is_not_there_is_named(place):
    done = _python(place, "-m", "omma", "ls", systems="no_such_folder")
    assert done.returncode == 2
    assert "no_such_folder: no such folder" in done.stderr


def test_all_files_of_the_page_are_used():
    names = {name.removeprefix(f"{NAME}/") for name in _files()}
    assert names == {"__init__.py", "config.py", "data.py", "model.py", "task.py", "recipes/base.yaml"}
    for name, content in _files().items():
        if name.endswith(".py"):
            compile(content, name, "exec")
