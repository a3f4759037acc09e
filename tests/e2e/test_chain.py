"""Trainings in a row on a few procedural rooms."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.commands import user_omma as omma

from omma.runs.folder import RunFolder

pytestmark = pytest.mark.e2e
TINY = [
    "train.workers=0", "train.batch_size=2", "data.image_size=[32, 48]", "data.val_image_size=[32, 48]",
    "validate.batch_size=2", "system.network.layers=3", "system.network.features=4", "log.tensorboard=false",
]  # fmt: skip
CHAIN = """chain:
  - {name: first, recipe: g2_monodepth/demo}
  - {name: second, recipe: g2_monodepth/demo, init_from: first}
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "rooms"
    words = ["--scenes", 2, "--val-scenes", 1, "--frames", 1, "--image-size", "48x64", "--workers", 1]
    assert omma("world", "rgbd-nyu", "--out", out, *words) == 0
    return out


@pytest.fixture(scope="module")
def chain(rooms, tmp_path_factory) -> Path:
    """A recipe, and the runs of its chain beside it."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "chain.yaml").write_text(CHAIN, encoding="utf-8")
    words = ["--name", "both", "--smoke", 2, "--runs-dir", folder, f"data.root={rooms}", *TINY]
    assert omma("train", folder / "chain.yaml", *words, "second:optim.lr=1e-9") == 0
    return folder


def test_the_second_stage_starts_from_the_best_of_the_first(chain):
    first, second = RunFolder(chain / "both_first"), RunFolder(chain / "both_second")
    assert first.config()["optim"]["lr"] == 2e-3
    assert second.config()["optim"]["lr"] == 1e-9
    best = load_file(first.path / "checkpoints" / "best" / "model.safetensors")
    final = load_file(second.path / "checkpoints" / "final" / "model.safetensors")
    for name, value in best.items():
        torch.testing.assert_close(final[name], value, rtol=0, atol=1e-6)


def test_a_resume_passes_over_what_has_finished(chain, capsys):
    run = chain / "both_second"
    run.rename(chain / "aside")
    assert omma("resume", "both", "--runs-dir", chain) == 0
    out = capsys.readouterr().out
    assert "stage 1 of 2: both_first has finished" in out
    again = load_file(run / "checkpoints" / "final" / "model.safetensors")
    before = load_file(chain / "aside" / "checkpoints" / "final" / "model.safetensors")
    assert all(torch.equal(again[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--name", "both"], "a chain of that name was started"),
        (["--name", "x", "third:optim.lr=1"], "no such stage"),
        (["--name", "x", "second:optim.lrr=1"], "did you mean optim.lr"),
        (["--name", "x", "--data-root", "C:\\photos", "second:optim.lrr=1"], "did you mean optim.lr"),
        (["--name", "x", "--overfit", "2"], "is a chain of trainings"),
    ],
)
def test_a_mistake_is_told_before_anything_trains(chain, capsys, words, text):
    before = sorted(chain.iterdir())
    assert omma("train", chain / "chain.yaml", *words, "--runs-dir", chain) == 2
    assert text in capsys.readouterr().err
    assert sorted(chain.iterdir()) == before


def test_a_finished_chain_does_not_go_on_and_is_shown(chain, capsys):
    content = json.loads((chain / "both" / "chain.json").read_text(encoding="utf-8"))
    assert [stage["run"] for stage in content["stages"]] == ["both_first", "both_second"]
    assert omma("resume", "both", "--runs-dir", chain) == 2
    assert "all stages have finished" in capsys.readouterr().err
    assert omma("show", chain / "chain.yaml") == 0
    assert "second: g2_monodepth/demo, from the best weights of first" in capsys.readouterr().out


def test_stages_that_do_not_hang_together_are_refused(tmp_path, capsys):
    file = tmp_path / "chain.yaml"
    file.write_text(CHAIN.replace("init_from: first", "init_from: third"), encoding="utf-8")
    assert omma("train", file, "--runs-dir", tmp_path) == 2
    assert "starts from third" in capsys.readouterr().err
