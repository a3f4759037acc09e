"""Every system as small as it gets: a procedural data set, a recipe and settings for a run of seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import TINY as LSS
from tests.e2e.diffbev_runs import NARROW
from tests.e2e.diffbev_runs import TINY as DIFFBEV
from tests.unit.pano_toy import LANGUAGE, TOWER

from omma.commands.world import make_world
from omma.systems import System, systems

COMMON = ("train.workers=0", "train.batch_size=2", "train.device=cpu", "log.tensorboard=false")


@dataclass(frozen=True)
class Small:
    """How to make a system's data, and what to train on it.

    Args:
        recipe: of the system.
        world: format of `omma world`.
        size: of its pictures, HxW.
        words: settings.
        frames: of each scene.
        scenes: of training and of validation.
    """

    recipe: str
    world: str
    size: str
    words: tuple[str, ...]
    frames: int = 2
    scenes: tuple[int, int] = (2, 1)

    def make_data(self, out: Path) -> Path:
        """The data set; 2 to 4 s."""
        train, val = self.scenes
        return make_world(
            self.world,
            out,
            scenes=train,
            val_scenes=val,
            frames=self.frames,
            image_size=self.size,
            workers=1,
            quiet=True,
        )

    def settings(self, data: Path) -> list[str]:
        """The words of a training on that data set."""
        return [f"data.root={data}", *self.words, *COMMON]


SMALL = {
    "diffbev": Small("diffbev/demo", "bev-dirs", "64x96", (*DIFFBEV, NARROW), frames=1),
    "g2_monodepth": Small(
        "g2_monodepth/demo",
        "rgbd-nyu",
        "48x64",
        (
            "data.image_size=[32, 48]",
            "data.val_image_size=[32, 48]",
            "validate.batch_size=2",
            "system.network.layers=3",
            "system.network.features=4",
        ),
    ),
    "lss": Small("lss/demo", "simbev-seed", "32x64", tuple(LSS)),
    "panollava": Small(
        "panollava/tiny",
        "quic360",
        "64x128",
        (
            f"system.vision.config={json.dumps(TOWER)}",
            f"system.language.config={json.dumps(LANGUAGE)}",
            "data.views.image_size=[32, 32]",
            "system.resampler.width=32",
            "system.generate.max_new_tokens=4",
        ),
        frames=1,
        scenes=(4, 2),
    ),
    "sdpose": Small(
        "sdpose/s_v1",
        "coco",
        "96x128",
        ("system.dim=24", "system.depth=2", "system.heads=2", "data.image_size=[64, 48]"),
        frames=1,
        scenes=(4, 2),
    ),
}


def every() -> list[System]:
    """All systems that are found; a new one needs a row in SMALL."""
    missing = [name for name in systems() if name not in SMALL]
    assert not missing, f"tests/small_systems.py: how small is {', '.join(missing)}?"
    return list(systems().values())
