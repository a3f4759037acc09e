"""Both models can learn a sample by heart (minutes)."""

import pytest
import torch
from tests.e2e.diffbev_runs import make_world, omma

from omma.runs.metrics import read_metrics, series

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SMALL = [
    "data.image_size=[128, 160]", "system.grid.x=[-25, 25, 1]", "system.grid.z=[1, 50, 1]",
    "system.grid.depth=[1, 50, 1]", "system.backbone.embed_dim=24", "system.backbone.depths=[1, 1, 2, 1]",
    "system.backbone.num_heads=[1, 2, 4, 8]", "system.channels=32", "system.head.planes=[32, 16]",
    "train.length=300", "validate.every=300", "log.tensorboard=false", "save.every=300",
]  # fmt: skip
PAPER = ["system.diffusion.name=paper", "system.diffusion.widths=[32, 48, 64]", "system.depth_loss.name=ce"]


@pytest.mark.parametrize("words", [[], PAPER], ids=["baseline", "diffbev"])
def test_one_sample_is_learnt_by_heart_in_300_steps(words, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    world = make_world(tmp_path / "world")
    options = ["--overfit", "1", "--name", "one", "--runs-dir", tmp_path, f"data.root={world}"]
    assert omma("train", "diffbev/overfit", *options, *SMALL, *words) == 0
    torch.set_num_threads(threads)
    rows = read_metrics(tmp_path / "one" / "metrics.csv")
    assert series(rows, "val", "mIoU")[1][-1] > 0.8
    if words:
        _, denoising = series(rows, "train", "Ldiff")
        assert sum(denoising[-5:]) / 5 < 0.5 * denoising[0]
