"""Point clouds: the file is read back by a parser of the test's own."""

from __future__ import annotations

import numpy as np
import pytest
from ply_files import read_ply

from omma.viz.cloud import depth_ply, depth_points

CAMERA = np.array([[50.0, 0, 31.0], [0, 60.0, 22.0], [0, 0, 1]])


def test_points_fall_on_their_pixels_again() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 20, (48, 64)).astype(np.float32)
    holes = rng.random(depth.shape) < 0.3
    depth[holes] = 0
    depth[0, :3] = np.nan, np.inf, -1
    colours = rng.integers(0, 256, (48, 64, 3), np.uint8)
    header, xyz, rgb = read_ply(depth_ply(depth, colours, CAMERA, comments=["camera known"]))
    known = np.isfinite(depth) & (depth > 0)
    assert "comment camera known" in header
    assert len(xyz) == known.sum()
    np.testing.assert_array_equal(rgb, colours[known])
    np.testing.assert_array_equal(xyz[:, 2], depth[known])
    uv = (xyz @ CAMERA.T)[:, :2] / xyz[:, 2:]
    rows, columns = np.nonzero(known)
    np.testing.assert_allclose(uv, np.stack([columns + 0.5, rows + 0.5], axis=-1), atol=1e-3)


def test_axes() -> None:
    """x grows to the right, y downwards, z ahead; the principal point is straight ahead."""
    points = depth_points(np.full((48, 64), 2.0), CAMERA)
    assert points.shape == (48, 64, 3)
    assert (np.diff(points[..., 0], axis=1) > 0).all()
    assert (np.diff(points[..., 1], axis=0) > 0).all()
    np.testing.assert_allclose(points[22, 31], [0.5 / 50 * 2, 0.5 / 60 * 2, 2])


def test_a_map_without_depth_is_an_empty_cloud() -> None:
    header, xyz, _ = read_ply(depth_ply(np.zeros((4, 5)), np.zeros((4, 5, 3), np.uint8), CAMERA))
    assert len(xyz) == 0
    assert "element vertex 0" in header


def test_the_parser_refuses_a_cut_file() -> None:
    data = depth_ply(np.ones((4, 5)), np.zeros((4, 5, 3), np.uint8), CAMERA)
    with pytest.raises(AssertionError):
        read_ply(data[:-1])
