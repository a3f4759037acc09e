"""The example notebooks: each runs with a small network, and is kept whole: with all its outputs, or none.

Outputs are kept so that a notebook can be read where it is not run, on a code host or in the documentation.
"""

import base64
import io
import json

import matplotlib as mpl
import pytest
from PIL import Image
from tests import notebooks
from tests.e2e.docs_blocks import ROOT
from tests.e2e.docs_world import tiny
from tests.small_systems import SMALL

from omma.config.yaml import parse_yaml
from omma.systems import systems

pytestmark = pytest.mark.e2e
FOLDER = ROOT / "docs" / "notebooks"
LARGEST = 300_000  # bytes of a notebook
EVERY = pytest.mark.parametrize("name", list(systems()))
ONE_QUICKLY = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "lss" else pytest.mark.slow) for name in systems()]
)


def _parameters(system: str) -> str:
    """The small data set and network in place of the notebook's own."""
    small = SMALL[system]
    world = dict(zip(("scenes", "val_scenes"), small.scenes, strict=True))
    world |= {"frames": small.frames, "image_size": small.size, "workers": 1}
    words = [
        word.split("=", 1) for word in tiny(system, "demo_baseline" if system == "diffbev" else small.recipe)
    ]
    settings = {key: parse_yaml(text, key) for key, text in words}
    settings |= {"train.length": 2, "log.every": 1}
    return f"WORLD = {world}\nSETTINGS = {settings}\nSTEPS = 3\nFRAMES = PEOPLE = 2\n"


@ONE_QUICKLY
def test_a_notebook_runs_and_shows_a_prediction(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    notebook = notebooks.read(FOLDER / f"{name}.ipynb")
    names = notebooks.run(notebook, _parameters(name))
    assert names["run"].status()["state"] == "finished"
    shown = _pictures(notebook)
    assert len(shown) >= 2
    assert all(Image.open(io.BytesIO(picture)).size[0] > 100 for picture in shown)
    assert any("Prediction(" in text for text in _texts(notebook))


@EVERY
def test_what_is_kept_is_whole_and_small(name):
    file = FOLDER / f"{name}.ipynb"
    assert file.stat().st_size < LARGEST
    notebook = notebooks.read(file)
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if not _outputs(notebook):
        assert {cell["execution_count"] for cell in code} == {None}
        return
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len(_pictures(notebook)) >= 2
    text = json.dumps(notebook)
    assert "/tmp/" not in text
    assert "/home/" not in text
    assert "Error" not in "".join(_texts(notebook))


def test_every_system_has_a_notebook_and_no_other_is_there():
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(systems())


def _outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def _pictures(notebook) -> list[bytes]:
    data = [output.get("data", {}) for output in _outputs(notebook)]
    return [base64.b64decode(item["image/jpeg"]) for item in data if "image/jpeg" in item]


def _texts(notebook) -> list[str]:
    return [
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for output in _outputs(notebook)
    ]
