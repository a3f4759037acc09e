"""The runbook of the documentation, word for word but smaller."""

import shlex

import pytest
from PIL import Image
from tests.e2e.diffbev_runs import NARROW, TINY, WORLD, omma
from tests.e2e.docs_blocks import blocks

pytestmark = pytest.mark.e2e
RUNBOOK = "docs/nuscenes-runbook.md"
PLOTS = ("mIoU", "Lwce", "Ldepth", "Ldiff", "lr", "loss", "IoU_per_class")


def _commands() -> list[list[str]]:
    """The words of each command of the first block."""
    return blocks(RUNBOOK)[0].commands()


def _smaller(words: list[str]) -> list[str]:
    """The same command on a few small images."""
    verb = words[1]
    if verb == "world":
        return [*words[1:5], *WORLD]
    if verb == "prepare" and words[2] == "nuscenes-depth":
        return [*words[1:4], "height=64", "width=96"]
    if verb == "train":
        steps = [] if "--smoke" in words else ["--smoke", "4"]
        narrow = [NARROW] if words[2].endswith("/demo") else []
        return ["3" if word == "30" else word for word in words[1:]] + [*steps, *TINY, *narrow]
    if verb == "doctor" and len(words) > 2:
        return [*words[1:], *TINY]
    if verb == "predict":
        return ["0,1,2,3,4,5" if word.startswith("0,") else word for word in words[1:]]
    return words[1:]


def test_every_command_works_and_leaves_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in _commands():
        assert words[0] == "omma"
        assert omma(*_smaller(words)) == 0, shlex.join(words)
    plots = {file.name for file in (tmp_path / "reports/comparison/plots").glob("*.png")}
    assert plots == {f"{name}_comparison.png" for name in PLOTS}
    summary = (tmp_path / "reports/comparison/summary.md").read_text(encoding="utf-8")
    assert "Baseline" in summary
    assert "DiffBEV" in summary
    pictures = sorted((tmp_path / "reports/pictures").glob("sample_*.png"))
    assert len(pictures) == 6
    assert all(Image.open(file).size[0] > 1000 for file in pictures)
    for name in ("baseline", "diffbev"):
        run = tmp_path / "runs" / name
        for file in ("best_mIoU.pth", "latest.pth", "metrics.csv", "report.html"):
            assert (run / file).is_file(), f"{name}/{file}"
    assert (tmp_path / "runs/diffbev/diagnose/summary.txt").is_file()
