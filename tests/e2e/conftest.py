"""A small procedural data set that the end-to-end tests share."""

from pathlib import Path

import pytest
from tests.commands import omma

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
    assert omma("world", "simbev-seed", "--out", out, *words) == 0
    return out


@pytest.fixture(scope="session")
def run(world, tmp_path_factory) -> Path:
    """A finished run of four steps on the small world."""
    root = tmp_path_factory.mktemp("실행 runs")
    words = ["--name", "first", "--smoke", "4", "--runs-dir", root, f"data.root={world}", *TINY]
    assert omma("train", "lss/demo", *words) == 0
    return root / "first"


@pytest.fixture(scope="module")
def no_report():
    """Trainings end without a report: drawing one takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omma.commands.train._finish", lambda *args: None)
        yield
