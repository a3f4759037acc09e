"""Real pictures with measured depth: units, validity, wrong units, learning by heart, KITTI's beams."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.rgbd_files import real

from omma.cli import _run
from omma.data.formats.rgbd import RgbdFrame
from omma.systems.g2_monodepth.baselines import constant_fill, linear_fill, nearest_fill
from omma.systems.g2_monodepth.checks import check_units
from omma.systems.g2_monodepth.layouts import read_frames

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_report")]


@dataclass(frozen=True)
class Source:
    """One real picture.

    Args:
        image: file of the picture.
        depth: file of its depth.
        units: stored value of one metre.
        max_depth: metres that count as 1.
        reach: smallest and largest depth in metres.
        known: share of pixels with depth.
        size: (H, W) that it is learnt at.
    """

    image: str
    depth: str
    units: float
    max_depth: float
    reach: tuple[float, float]
    known: float
    size: tuple[int, int] = (48, 64)


SOURCES = {
    "nyu_dining": Source("rgb.png", "depth.png", 1000, 10, (0.72, 5.875), 1.0, (64, 64)),
    "nyu_bookstore_small": Source("rgb.jpg", "depth.png", 1000, 10, (1.485, 10.0), 0.662),
    "tum_desk": Source("rgb.png", "depth.png", 1000, 10, (1.464, 9.331), 0.808),
    "ibims_corridor_sparse": Source("rgb.png", "sparse_depth.npz", 1, 60, (1.58, 51.503), 0.00699, (96, 128)),
    "kitti_000001": Source("image_2.png", "lidar_depth.png", 256, 100, (4.770, 76.730), 0.03995, (48, 160)),
}  # fmt: skip
PICTURES = sorted(set(SOURCES) - {"ibims_corridor_sparse"})  # an array of metres has no units to mistake
SMALL = [
    "system.network.layers=5", "system.network.features=16", "system.loss.relative=0.3",
    "system.loss.gradient=0", "optim.lr=4e-3", "schedule.warmup=5", "train.length=120", "train.workers=0",
    "train.device=cpu", "train.batch_size=1", "validate.every=120", "validate.batch_size=1",
    "save.every=120", "log.tensorboard=false",
]  # fmt: skip


def _lay_out(name: str, root: Path) -> Path:
    """A copy in the folders that the system reads; the picture is training and validation."""
    source, folder = SOURCES[name], real(name)
    for split in ("train", "val"):
        for kind, file in (("rgb", source.image), ("depth", source.depth)):
            target = root / split / kind / f"{name}{Path(file).suffix}"
            target.parent.mkdir(parents=True)
            shutil.copy(folder / file, target)
    note = {"units_per_metre": source.units, "max_depth": source.max_depth}
    (root / "rgbd.json").write_text(json.dumps(note), encoding="utf-8")
    return root


def _frame(root: Path, **settings: float) -> RgbdFrame:
    (frame,) = read_frames(root, "train", **settings)
    return frame


def _overfit(root: Path, runs: Path, source: Source, *words: str) -> Path:
    settings = [f"data.root={root}", f"data.val_image_size={list(source.size)}", *SMALL, *words]
    options = ["--overfit", "1", "--name", "one", "--runs-dir", str(runs)]
    torch.manual_seed(0)
    assert _run(["train", "g2_monodepth/demo", *options, *settings], debug=True) == 0
    return runs / "one"


def _scores(run: Path) -> dict[str, float]:
    assert _run(["eval", f"{run}@final"], debug=True) == 0
    return json.loads((run / "eval" / "val" / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def _draw(run: Path, out: Path) -> dict[str, np.ndarray]:
    """The arrays of the prediction, whose picture is looked at for being one."""
    assert _run(["predict", f"{run}@final", "--indices", "0", "--out", str(out)], debug=True) == 0
    picture = np.asarray(Image.open(out / "sample_0000.png"))
    assert picture.std() > 20
    with np.load(out / "sample_0000.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", SOURCES)
def test_units_and_validity(name, tmp_path):
    source = SOURCES[name]
    depth = _frame(_lay_out(name, tmp_path)).depth.read()
    known = depth[depth > 0]
    assert (known.min(), known.max()) == pytest.approx(source.reach, abs=0.001)
    assert (depth > 0).mean() == pytest.approx(source.known, abs=0.001)
    assert check_units([depth], source.max_depth).severity == "ok"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_read_as_metres_are_named(name, tmp_path):
    """With the number to set instead: 1000 indoors, 256 for KITTI's coding."""
    source, root = SOURCES[name], _lay_out(name, tmp_path)
    depth = _frame(root, units_per_metre=1, max_depth_m=source.max_depth).depth.read()
    finding = check_units([depth], source.max_depth)
    assert finding.severity == "error"
    assert f"factor {source.units:.0f}" in finding.fix
    assert f"units_per_metre to {source.units:.0f}" in finding.fix


@pytest.mark.parametrize(("name", "wrong"), [("tum_desk", 256), ("kitti_000001", 1000)])
def test_units_of_the_other_kind_are_seen(name, wrong, tmp_path):
    source, root = SOURCES[name], _lay_out(name, tmp_path)
    depth = _frame(root, units_per_metre=wrong, max_depth_m=source.max_depth).depth.read()
    finding = check_units([depth], source.max_depth)
    assert finding.severity in ("error", "warning")
    assert f"units_per_metre to {source.units:.0f}" in finding.fix


@pytest.mark.parametrize("name", SOURCES)
def test_a_picture_is_learnt_by_heart(name, tmp_path):
    """Without any input depth, in 120 steps: less than 0.6 of the error of the best constant depth."""
    source, root = SOURCES[name], _lay_out(name, tmp_path / "data")
    run = _overfit(root, tmp_path, source, "data.val_patterns=['none']")
    arrays = _draw(run, tmp_path / "drawn")
    true, found = arrays["depth"], arrays["prediction"]
    assert true.shape == found.shape == (1, *source.size)
    assert not arrays["point"].any()
    known = true > 0
    assert known.mean() == pytest.approx(source.known, rel=0.3)
    spread = float(true[known].std())
    scores = _scores(run)
    assert scores["rmse"] == pytest.approx(float(np.sqrt(((true - found)[known] ** 2).mean())), rel=1e-3)
    assert scores["rmse"] < 0.6 * spread


def test_sixteen_beams_towards_sixty_four(tmp_path):
    """Measured input: it is given as it is, and truth at the other beams is learnt beyond the baselines."""
    source, root = SOURCES["kitti_000001"], _lay_out("kitti_000001", tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "raw").mkdir()
        shutil.copy(
            real("kitti_000001") / "lidar_depth_16beam.png", root / split / "raw" / "kitti_000001.png"
        )
    run = _overfit(root, tmp_path, source, "data.val_patterns=['measured']")
    arrays = _draw(run, tmp_path / "drawn")
    true, given, found = (arrays[name][0] for name in ("depth", "point", "prediction"))
    assert 0.15 < (given > 0).sum() / (true > 0).sum() < 0.35
    assert np.array_equal(given[given > 0], true[given > 0])  # the same scan, every fourth beam
    rest = (true > 0) & (given == 0)

    def error(filled: np.ndarray) -> float:
        return float(np.abs(filled - true)[rest].mean())

    assert error(found) < 0.5 * error(constant_fill(given))
    assert error(found) < min(error(nearest_fill(given)), error(linear_fill(given)))
