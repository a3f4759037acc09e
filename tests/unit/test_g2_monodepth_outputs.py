"""What prediction makes of the network's answer, and the files and pictures of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ply_files import read_ply
from rgbd_files import scene, write

from omma.engine.task import Prediction
from omma.systems.g2_monodepth.config import PredictSection
from omma.systems.g2_monodepth.outputs import make_files, make_prediction
from omma.systems.g2_monodepth.own import OwnSamples, read_pair
from omma.systems.g2_monodepth.samples import collate
from omma.systems.g2_monodepth.sheet import enlarge_points


def answer(batch: Mapping[str, Any], **settings: Any) -> Prediction:
    """A prediction of a network that says 0.5 everywhere, -1 in the first row and 9 in the last."""
    depth = torch.full_like(batch["depth"], 0.5)
    depth[..., 0, :], depth[..., -1, :] = -1, 9
    return make_prediction(depth, batch, PredictSection(**settings))


def batch_of(folder: Path, *, max_depth: float = 10.0, known: bool = True) -> dict[str, Any]:
    """A picture with one known depth of 2.5 m in row 4 and column 3, or none."""
    image, points = write(folder / "photo.png", scene(0)[0]), folder / "points.csv"
    points.write_text("3,4,2.5\n", "utf-8")
    frame = read_pair(image, points if known else None, max_depth_m=max_depth)
    return collate([OwnSamples([frame])[0]])


def test_a_prediction_in_metres(tmp_path: Path) -> None:
    made = answer(batch_of(tmp_path))
    found = made.arrays["prediction"]
    assert (found.shape, found.dtype) == ((1, 48, 64), np.float32)
    assert (found[0, 0, 0], found[0, 5, 5], found[0, -1, 0]) == (0, 5, 90)
    assert made.arrays["metric"]
    assert made.summary.startswith("metric, 1 depths given (0.033 % of the pixels); max_depth 10 m; camera")
    assert found[0, 4, 3] == 5
    assert answer(batch_of(tmp_path), keep_input=True).arrays["prediction"][0, 4, 3] == 2.5
    alone = answer(batch_of(tmp_path, known=False))
    assert not alone.arrays["metric"]
    assert alone.summary.startswith("relative, no depth given")


@pytest.mark.parametrize(
    ("max_depth", "ending", "units"), [(10, "_depth_mm.png", 1000), (100, "_depth_x256.png", 256)]
)
def test_the_depth_picture(tmp_path: Path, max_depth: float, ending: str, units: int) -> None:
    made = answer(batch_of(tmp_path, max_depth=max_depth))
    files = made.files()
    assert set(files) == {ending, ".json", ".ply"}
    picture = cv2.imdecode(np.frombuffer(files[ending], np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    assert (picture[0] == 0).all()
    assert (picture[1:-1] == 0.5 * max_depth * units).all()
    assert (picture[-1] == 65535).all()
    about = json.loads(files[".json"])["depth_picture"]
    assert about == {"ending": ending, "units_per_metre": units, "saturated_pixels": 64}
    made.arrays["prediction"][0, 3, 3] = np.nan
    again = cv2.imdecode(np.frombuffer(make_files(made)[ending], np.uint8), cv2.IMREAD_UNCHANGED)
    assert again[3, 3] == 0
    assert set(answer(batch_of(tmp_path), point_cloud=False).files()) == {"_depth_mm.png", ".json"}


@pytest.mark.parametrize("known", [True, False])
def test_the_point_cloud(tmp_path: Path, known: bool) -> None:
    batch = batch_of(tmp_path, known=known)
    if known:
        batch["intrinsics"] = torch.tensor([[[60.0, 0, 30], [0, 61, 25], [0, 0, 1]]])
    made = answer(batch, field_of_view=90.0)
    header, xyz, rgb = read_ply(made.files()[".ply"])
    camera = made.arrays["intrinsics"]
    assert camera[0, 0] == (60 if known else 32)  # half the width, at 90 degrees
    told = "known" if known else "assumed, 90 degrees from left to right"
    assert any(line.startswith(f"comment camera {told}: fx {camera[0, 0]:g} ") for line in header)
    assert ("comment metric" in header) == known
    assert len(xyz) == 47 * 64  # the first row has no depth
    np.testing.assert_array_equal(rgb, scene(0)[0][1:].reshape(-1, 3))
    np.testing.assert_array_equal(xyz[:, 2], made.arrays["prediction"][0, 1:].ravel())
    uv = (xyz @ camera.T)[:, :2] / xyz[:, 2:]
    rows, columns = np.indices((48, 64))[:, 1:].reshape(2, -1)
    np.testing.assert_allclose(uv, np.stack([columns + 0.5, rows + 0.5], axis=-1), atol=1e-3)


def test_pictures_of_predictions(tmp_path: Path) -> None:
    """Each panel is there when there is something to show in it."""
    whole = answer(batch_of(tmp_path))
    heights = {}
    for name, made in {
        "given": [whole],
        "kept": [answer(batch_of(tmp_path), keep_input=True)],
        "alone": [answer(batch_of(tmp_path, known=False))],
        "two": [whole, whole],
    }.items():
        picture = made[0].drawer([(str(index), one) for index, one in enumerate(made)])
        assert picture.dtype == np.uint8
        assert picture.shape[1:] == (1280, 3)
        heights[name] = len(picture)
    assert heights["alone"] < heights["given"] < heights["two"]
    broken = answer(batch_of(tmp_path))
    broken.arrays["prediction"][:] = np.nan
    assert broken.draw().shape[2] == 3


def test_the_fewer_the_points_the_larger_their_dots() -> None:
    areas = []
    for step in (6, 16, 60):
        sparse = np.full((300, 600), np.nan)
        sparse[step // 2 :: step, step // 2 :: step] = 2.0
        drawn = enlarge_points(sparse)
        areas.append(np.isfinite(drawn).sum() / np.isfinite(sparse).sum())
        assert set(np.unique(drawn[np.isfinite(drawn)])) == {2.0}
    assert 9 <= areas[0] < areas[1] < areas[2] < 150
    near = np.full((100, 100), np.nan)
    near[50, 50], near[50, 51] = 5.0, 1.0
    assert (enlarge_points(near)[50, 50:52] == 1.0).all()
    dense = np.ones((10, 10))
    assert enlarge_points(dense) is dense


def test_arrays_are_saved_as_they_are(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **answer(batch_of(tmp_path)).arrays)
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        assert {"prediction", "depth", "point", "rgb", "intrinsics", "metric", "max_depth"} == set(arrays)
