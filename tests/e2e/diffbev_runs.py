"""Small data sets and runs of DiffBEV that several end-to-end tests share."""

from pathlib import Path

from tests.commands import omma

WORLD = ["--scenes", "2", "--val-scenes", "1", "--frames", "1", "--image-size", "64x96", "--workers", "1"]
TINY = [
    "train.workers=0", "train.batch_size=2", "validate.batch_size=4", "data.image_size=[64, 96]",
    "system.grid.depth=[1, 49, 4]",
    "system.backbone.embed_dim=8", "system.backbone.depths=[1, 1, 1, 1]",
    "system.backbone.num_heads=[1, 1, 1, 1]", "system.channels=16", "system.head.planes=[16, 16]",
    "system.head.blocks=[1, 1]", "log.tensorboard=false",
]  # fmt: skip
NARROW = "system.diffusion.widths=[8, 8, 8]"


def make_world(out: Path, layout: str = "bev-dirs") -> Path:
    """Twelve training and six validation images."""
    assert omma("world", layout, "--out", out, *WORLD) == 0
    return out


def train(world: Path, root: Path, recipe: str, name: str, *words: str, smoke: int = 4) -> Path:
    """A finished run of a few steps."""
    options = ["--name", name, "--smoke", smoke, "--runs-dir", root, f"data.root={world}"]
    assert omma("train", recipe, *options, *TINY, *words) == 0
    return root / name
