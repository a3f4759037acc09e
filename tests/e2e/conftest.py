"""A small procedural data set that the end-to-end tests share."""

from pathlib import Path

import pytest

from omma.cli import _run

TINY = [
    "train.workers=0", "train.batch_size=2", "data.image_size=[32, 64]", "data.source_size=[32, 64]",
    "system.grid.x=[-16, 16, 2]", "system.grid.y=[-16, 16, 2]", "system.grid.depth=[2, 18, 2]",
    "system.neck_channels=16", "system.context_channels=8", "system.bev_width=8", "log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Six training and two validation frames in the simbev-seed layout."""
    out = tmp_path_factory.mktemp("data") / "world"
    words = ["--scenes", "3", "--val-scenes", "1", "--frames", "2", "--image-size", "32x64", "--workers", "1"]
    assert _run(["world", "simbev-seed", "--out", str(out), *words], debug=True) == 0
    return out


@pytest.fixture(scope="session")
def run(world, tmp_path_factory) -> Path:
    """A finished run of four steps on the small world."""
    root = tmp_path_factory.mktemp("실행 runs")
    words = ["--name", "first", "--smoke", "4", "--runs-dir", str(root), f"data.root={world}", *TINY]
    assert _run(["train", "lss/demo", *words], debug=True) == 0
    return root / "first"
