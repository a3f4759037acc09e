"""What pages of the documentation speak of, small: data sets, settings and finished runs."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

from tests.commands import omma
from tests.small_systems import COMMON, SMALL
from tests.unit import coco_files

# what a page calls a folder -> the system whose small data set stands for it
DATA = {
    "/data/simbev": "lss",
    "/data/nuScenes": "diffbev",
    "/data/nyu": "g2_monodepth",
    "/data/coco": "sdpose",
    "/data/quic360": "panollava",
}
# what other recipes need beyond the settings of the small one
_MORE = {
    "lss": ("system.backbone=regnetx_002", "system.pretrained=none", "data.label_cell_m=0.5"),
    "diffbev": ("system.backbone.pretrained=none", "system.grid.depth=[1, 53, 4]"),
    "panollava": ("system.vision.name=random", "system.language.name=random"),
}


def tiny(system: str, recipe: str) -> list[str]:
    """Settings that make a training with any recipe of a system a matter of seconds."""
    words = (*SMALL[system].words, *COMMON, *_MORE.get(system, ()), "train.precision=32")
    return [word for word in words if "diffusion" not in word or "base" not in recipe]


class Stock:
    """Data sets and runs, each made once, when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def data(self, system: str) -> Path:
        """A system's small data set, made by the command line."""
        small, out = SMALL[system], self.root / "data" / system
        if not out.is_dir():
            train, val = small.scenes
            size = [
                "--scenes",
                train,
                "--val-scenes",
                val,
                "--frames",
                small.frames,
                "--image-size",
                small.size,
            ]
            self._omma("world", small.world, "--out", out, *size, "--workers", 1)
        return out

    def world(self, layout: str) -> Path:
        """A data set in that format."""
        return self.data(next(name for name, small in SMALL.items() if small.world == layout))

    def run(self, system: str, place: Path) -> Path:
        """A copy of a system's finished run at `place`."""
        small, source = SMALL[system], self.root / "runs" / system
        if not source.is_dir():
            words = ["--smoke", 2, "--name", system, "--runs-dir", source.parent, *tiny(system, small.recipe)]
            self._omma("train", small.recipe, f"data.root={self.data(system)}", *words)
        return shutil.copytree(source, place)

    def _omma(self, *words: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert omma(*words) == 0, words


def write_detections(file: Path, data: Path) -> None:
    """A detector's boxes for the photos of a COCO set: those of its annotations."""
    truth = json.loads((data / "annotations" / "person_keypoints_val2017.json").read_text(encoding="utf-8"))
    people = truth["annotations"]
    coco_files.write_json(file, [coco_files.detection(one["image_id"], one["bbox"], 0.9) for one in people])


def write_files(place: Path) -> None:
    """Files of a user's own that pages name."""
    coco_files.write_photo(place / "photo.jpg", coco_files.photo(1))
    coco_files.write_photo(place / "street.jpg", coco_files.photo(2)[:80])  # twice as wide as high
    (place / "street.txt").write_text("What stands behind you?", encoding="utf-8")
    (place / "points.csv").write_text("u,v,depth\n3,4,2.5\n40.5,30,3\n", encoding="utf-8")
