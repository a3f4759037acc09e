"""omma compare as typed, on a real run and on run folders written by hand."""

import shutil
import subprocess
import sys

import pytest
from tests.commands import user_omma as omma
from tests.fake_runs import fake_run

from omma.viz.image import read_image

pytestmark = pytest.mark.e2e

LIGHT = """
import sys
from omma.cli import _run
code = _run(sys.argv[1:], debug=False)
print("HEAVY", [name for name in ("torch", "lightning", "cv2") if name in sys.modules])
sys.exit(code)
"""


def test_the_command_of_the_guide(tmp_path, capsys):
    """R17 to R19, R33."""
    root, out = tmp_path / "runs", tmp_path / "reports 비교" / "comparison"
    fake_run(root, "baseline", terms=("Lwce",))
    fake_run(root, "diffbev_default", gain=0.05, variant="paper")
    words = ["compare", root / "baseline", root / "diffbev_default", "--output-dir", out]
    words += ["--experiment-names", "Baseline", "DiffBEV", "--fig-size", "6", "3", "--dpi", "50"]
    assert omma(*words) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"Loading metrics from: {root / 'baseline'} (Baseline)" in said
    assert f"Loading metrics from: {root / 'diffbev_default'} (DiffBEV)" in said
    assert said.count("  Loaded 210 records") == said.count("  Found 3 checkpoints") == 2
    assert "Generating plots..." in said
    for metric in ("mIoU", "Lwce", "Ldepth", "Ldiff", "loss", "lr", "IoU_per_class"):
        assert f"  Generated: {out / 'plots' / metric}_comparison.png" in said
    assert said[-1] == f"All plots and summary generated in: {out}"
    assert said[-2].startswith("DiffBEV is 0.0")
    assert len(list((out / "plots").glob("*.png"))) == 7
    assert read_image(out / "plots" / "mIoU_comparison.png").shape == (150, 300, 3)
    assert {"Baseline", "DiffBEV"} <= set((out / "summary.md").read_text(encoding="utf-8").split())


def test_a_real_run_against_a_copy_of_itself(run, tmp_path, capsys):
    """Nothing differs: the interval is zero, and only uncommitted code may be warned of."""
    assert omma("eval", run) == 0
    copy = shutil.copytree(run, tmp_path / "runs" / "copy")
    capsys.readouterr()
    assert omma("compare", run, copy, "--out", tmp_path / "out", "--dpi", 50, "--metrics", "iou,loss") == 0
    said = capsys.readouterr().out
    assert "No clear difference: copy and first have the same iou (95 % interval +0.0000 to +0.0000" in said
    warnings = [line for line in said.splitlines() if line.startswith("warning")]
    assert all("in no commit" in line for line in warnings)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "plots", "report.html", "report.json", "summary.md"
    ]  # fmt: skip
    assert omma("runs", "check", run, tmp_path / "runs") == 0
    assert "complete: first, copy" in capsys.readouterr().out
    (copy / "checkpoints" / "best" / "model.safetensors").unlink()
    assert omma("runs", "check", copy) == 3
    missing = [line for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert len(missing) == 1
    assert "checkpoints/best" in missing[0]
    assert "model.safetensors" in missing[0]


def test_a_comparison_loads_no_torch(tmp_path):
    fake_run(tmp_path, "a", steps=100)
    words = ["compare", "a", "--runs-dir", tmp_path, "--out", tmp_path / "out", "--metrics", "lr"]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *map(str, words)], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["no-such-run", "--out", "o"], 2, "no such run"),
        (["a", "b", "--out", "o", "--names", "A"], 2, "names: 1 for 2 runs"),
        (["a", "b", "--out", "o", "--experiment-names", "A"], 2, "names: 1 for 2 runs"),
        (["a", "b", "--out", "o", "--mertics", "lr"], 2, "--mertics: no such option"),
        (["a", "b", "--out", "o", "--metrics", "mIuO"], 2, "did you mean mIoU"),
        (["a", "b"], 2, "--out"),
        (["empty", "--out", "o"], 3, "none of the runs has rows"),
        (["a", "b", "--out", "runs/a/config.yaml"], 2, "is a file, but several files are to be written"),
    ],
)
def test_a_mistake_is_one_clear_message(words, code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "empty"):
        run = fake_run(tmp_path / "runs", name, steps=100, samples=0)
    run.metrics_file.unlink()
    assert omma("compare", *words) == code
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said
    assert not (tmp_path / "o").exists()
