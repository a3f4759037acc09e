"""E10: a run folder of each past format version still loads, evaluates, compares and goes on.

`format_N/run` is a run of four steps of a tiny network over `format_N/rooms`, kept as its version wrote it. A
change of `format_version` anywhere adds a folder here and a migration to the code; the folders stay.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.commands import omma

import omma as package
from omma.engine import checkpoint
from omma.engine.checkpoint import read_meta
from omma.runs import folder
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent
VERSIONS = range(1, max(checkpoint.FORMAT_VERSION, folder.FORMAT_VERSION) + 1)


@pytest.fixture(params=VERSIONS)
def run(request, tmp_path, monkeypatch) -> RunFolder:
    """A copy to work with, beside its data."""
    monkeypatch.chdir(shutil.copytree(HERE / f"format_{request.param}", tmp_path / "old"))
    assert RunFolder(Path("run")).status()["format_version"] == request.param
    return RunFolder(Path("run"))


def _metrics(run: RunFolder) -> dict[str, float]:
    return json.loads((run.eval_dir("val") / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def test_it_evaluates_to_the_numbers_it_had(run):
    before = _metrics(run)
    assert omma("eval", "./run") == 0
    after = _metrics(run)
    assert {name: after[name] for name in before} == pytest.approx(before, rel=1e-3, abs=1e-4)


def test_every_checkpoint_loads_and_predicts(run, tmp_path):
    for which in ("best", "final", "last", "step_4"):
        prediction = package.load(f"./run@{which}").predict(0)
        assert all(torch.isfinite(torch.from_numpy(array)).all() for array in prediction.arrays.values())


def test_it_is_compared_and_reported_and_complete(run, tmp_path, capsys):
    assert omma("compare", "./run", "./run", "--out", tmp_path / "out", "--metrics", "rmse", "--dpi", 30) == 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert omma("runs", "check", "./run", debug=False) == 3  # pictures and page are not kept
    missing = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert missing == ["vis/", "report.html"]


def test_its_training_goes_on(run):
    before = read_metrics(run.metrics_file)
    assert omma("resume", "./run", "train.length=5") == 0
    assert read_meta(run.checkpoints / "final")["step"] == 5
    assert read_metrics(run.metrics_file)[: len(before)] == before
