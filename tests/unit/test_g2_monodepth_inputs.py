"""Pictures and depths of one's own: what is read, what is refused, and what prediction writes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rgbd_files import scene, write

from omma.errors import DataError
from omma.systems.g2_monodepth.own import choose_max_depth, read_pair, read_points
from omma.systems.g2_monodepth.samples import ValidationSamples


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    image = write(tmp_path / "photo.png", scene(0)[0])
    alone = read_pair(image)
    assert (alone.depth, alone.raw, alone.max_depth_m) == (None, None, 10.0)
    sample = ValidationSamples([alone], None, patterns=("measured",))[0]
    assert not sample["point"].any()
    points = tmp_path / "points.csv"
    points.write_text("u,v,depth\n3.2,4.9,2.5\n63,47,17\n3.9,4.1,9\n", "utf-8")
    frame = read_pair(image, points)
    raw = frame.raw.read()
    assert (raw[4, 3], raw[47, 63], (raw > 0).sum()) == (2.5, 17.0, 2)
    assert frame.max_depth_m == 30.0
    coded = write(tmp_path / "depth.png", np.rint(scene(0)[1] * 1000).astype(np.uint16))
    with pytest.raises(DataError, match=r"depth.png: the units of this depth picture are unknown"):
        read_pair(image, coded)
    assert read_pair(image, coded, units_per_metre=1000).max_depth_m == 10
    with pytest.raises(DataError, match="a depth file ends in"):
        read_pair(image, tmp_path / "depth.tif")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64,3,1\n", "1 of 1 points lie outside the picture of 64 x 48 pixels, first u 64, v 3"),
        ("1,2,3\n1,-1,2\n", "1 of 2 points lie outside"),
        ("1,2\n", "line 1: '1,2' is not"),
        ("u,v,z\n1,2,-3\n", "line 2: depth -3 is not above 0"),
        ("1,2,nan\n", "line 1"),
        ("u v z\n", "holds no point"),
    ],
)
def test_points_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    image = write(tmp_path / "photo.png", scene(0)[0])
    points = tmp_path / "points.txt"
    points.write_text(text, "utf-8")
    with pytest.raises(DataError, match=f"points.txt.*{message}"):
        read_pair(image, points)


def test_points_are_read_in_any_spacing(tmp_path: Path) -> None:
    points = tmp_path / "points.txt"
    points.write_text("1 2 3\n\n4; 5; 6\n", "utf-8")
    np.testing.assert_array_equal(read_points(points), [[1, 2, 3], [4, 5, 6]])


def test_max_depth_of_input() -> None:
    depths = [np.array([[reach]], np.float32) for reach in (0, 8, 8.1, 79, 500)]
    assert [choose_max_depth(depth) for depth in depths] == [10, 10, 20, 100, 150]
