"""Directions on a panorama, and tokens of neighbouring views that look at the same place."""

from __future__ import annotations

import numpy as np
import pytest

from omma.core.panorama import (
    View,
    edge_fov_deg,
    neighbours,
    pad_panorama,
    pair_tokens,
    panorama_pixels,
    project,
    ring_yaws_deg,
    sample_panorama,
    view_rays,
)
from omma.errors import ConfigError

SIZE = (64, 128)


def ring(fov: float = 90, overlap: float = 0.5, pitch: float = 0.0) -> list[View]:
    return [View(yaw, pitch, (fov, fov)) for yaw in ring_yaws_deg(fov, overlap)]


@pytest.mark.parametrize(
    ("yaw", "pitch", "ray"),
    [(0, 0, (0, 0, 1)), (90, 0, (1, 0, 0)), (-90, 0, (-1, 0, 0)), (0, 90, (0, 1, 0)), (180, -90, (0, -1, 0))],
)
def test_middle_of_a_view(yaw: float, pitch: float, ray: tuple[float, ...]) -> None:
    rays = view_rays(View(yaw, pitch, (60, 40)), (3, 5))
    np.testing.assert_allclose(rays[1, 2], ray, atol=1e-12)


def test_columns_go_right_and_rows_down() -> None:
    rays = view_rays(View(0, 0, (90, 90)), (4, 4))
    assert (np.diff(rays[..., 0], axis=1) > 0).all()
    assert (np.diff(rays[..., 1], axis=0) < 0).all()
    np.testing.assert_allclose(rays[0, 0], (-0.75, 0.75, 1))
    np.testing.assert_allclose(view_rays(View(0, 0, (90, 90)), (4, 4), "ends")[0, 0], (-1, 1, 1))


@pytest.mark.parametrize(
    ("ray", "position"),
    [
        ((0, 0, 1), (63.5, 31.5)),
        ((1, 0, 0), (95.5, 31.5)),
        ((-1, 0, 0), (31.5, 31.5)),
        ((0, 5, 1e-9), (63.5, -0.5)),
        ((0, -1, 1e-9), (63.5, 63.5)),
    ],
)
def test_pixels_of_directions(ray: tuple[float, ...], position: tuple[float, float]) -> None:
    np.testing.assert_allclose(panorama_pixels(np.array(ray, float), SIZE), position, atol=1e-6)


def test_sampling_at_pixel_centres_gives_the_pixels() -> None:
    panorama = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    rows, columns = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    found = sample_panorama(panorama, np.stack([columns, rows], -1).astype(float))
    np.testing.assert_array_equal(found, panorama)


def test_sampling_across_the_seam_and_the_pole() -> None:
    panorama = np.arange(32.0).reshape(4, 8, 1)
    seam, pole = np.array([[-0.5, 1.0], [7.5, 1.0]]), np.array([[1.0, -0.5]])
    np.testing.assert_allclose(sample_panorama(panorama, seam)[:, 0], [11.5, 11.5])
    np.testing.assert_allclose(sample_panorama(panorama, pole)[0, 0], (1 + 5) / 2)
    assert pad_panorama(panorama).shape == (6, 10, 1)


@pytest.mark.parametrize("columns", [16, 37])
def test_a_turned_panorama_moves_the_view(columns: int) -> None:
    """A view at yaw 0 of a panorama turned by that much equals the view at that yaw of the original."""
    panorama = np.random.default_rng(1).normal(size=(*SIZE, 3))
    yaw = columns / SIZE[1] * 360
    views = [View(yaw, 10, (90, 70)), View(0, 10, (90, 70))]
    original, turned = (
        sample_panorama(image, panorama_pixels(view_rays(view, (9, 11)), SIZE))
        for image, view in zip([panorama, np.roll(panorama, -columns, axis=1)], views, strict=True)
    )
    np.testing.assert_allclose(original, turned, atol=1e-9)


def test_the_ring_closes() -> None:
    panorama = np.random.default_rng(2).normal(size=(*SIZE, 3))
    first, last = (
        sample_panorama(panorama, panorama_pixels(view_rays(View(yaw, 0, (90, 90)), (8, 8)), SIZE))
        for yaw in (0.0, 8 * 45.0)
    )
    np.testing.assert_allclose(first, last, atol=1e-9)


@pytest.mark.parametrize(
    ("fov", "overlap", "count"), [(90, 0.5, 8), (60, 0.0, 6), (70, 0.3, 8), (45, 0.25, 11), (100, 0.1, 4)]
)
def test_yaws_are_evenly_spread(fov: float, overlap: float, count: int) -> None:
    yaws = ring_yaws_deg(fov, overlap)
    assert yaws[0] == 0
    assert len(yaws) == count
    assert all(-180 < yaw <= 180 for yaw in yaws)
    np.testing.assert_allclose((np.diff([*yaws, yaws[0]]) - 360 / count + 180) % 360 - 180, 0, atol=1e-9)


def test_open_ring_keeps_its_step() -> None:
    np.testing.assert_allclose(ring_yaws_deg(70, 0.3, closed=False)[:4], [0, 49, 98, 147])


def test_edge_field_is_half_a_pixel_wider() -> None:
    narrow, wide = View(0, 0, (90, 90)), View(0, 0, (edge_fov_deg(90, 9),) * 2)
    np.testing.assert_allclose(view_rays(narrow, (9, 9), "ends"), view_rays(wide, (9, 9)), atol=1e-12)


@pytest.mark.parametrize("projection", ["perspective", "equirectangular"])
def test_projecting_undoes_rays(projection: str) -> None:
    view = View(170, -30, (80, 50), projection)
    offsets, front = project(view_rays(view, (5, 7)), view)
    assert front.all()
    np.testing.assert_allclose(offsets[2, :, 0], (2 * np.arange(7) + 1) / 7 - 1, atol=1e-9)
    np.testing.assert_allclose(offsets[:, 3, 1], (2 * np.arange(5) + 1) / 5 - 1, atol=1e-9)


def test_what_is_behind_a_view_is_not_in_it() -> None:
    _, front = project(np.array([[0.0, 0, -1], [1, 0, 0], [0, 0, 1]]), View(0, 0, (90, 90)))
    np.testing.assert_array_equal(front, [False, False, True])


def test_neighbours_close_each_ring_and_join_rings() -> None:
    views = [None, *ring(90, 0.0, -45.0), *ring(90, 0.0, 45.0)]
    pairs = neighbours(views)
    assert pairs[:4] == [(1, 2), (2, 3), (3, 4), (4, 1)]
    assert (1, 5) in pairs
    assert (4, 8) in pairs
    assert len(pairs) == 4 + 4 + 4


def test_tokens_on_the_horizon_meet_at_their_yaw() -> None:
    """The middle row of view 0 at yaw atan(x) falls at tan(atan(x) - 45 degrees) in view 1."""
    pairs = pair_tokens(ring(), (5, 10))
    assert list(zip(pairs.source, pairs.target, strict=True))[-1] == (7, 0)
    row = slice(2 * 10, 3 * 10)
    across = (2 * np.arange(10) + 1) / 10 - 1
    expected = (np.tan(np.arctan(across) - np.pi / 4) + 1) / 2 * 10 - 0.5
    valid = pairs.valid[0, row]
    np.testing.assert_array_equal(valid, expected >= 0)
    np.testing.assert_allclose(pairs.positions[0, row][valid, 0], expected[valid])
    np.testing.assert_allclose(pairs.positions[0, row][:, 1], 2)


def test_every_pair_of_a_ring_looks_alike() -> None:
    pairs = pair_tokens(ring(), (14, 14))
    np.testing.assert_allclose(pairs.positions, np.broadcast_to(pairs.positions[:1], pairs.positions.shape))
    assert 0.4 < pairs.valid.mean() < 0.5


def test_rings_at_other_pitches_are_paired_where_they_overlap() -> None:
    near = pair_tokens([*ring(pitch=0), *ring(pitch=45)], (8, 8))
    far = pair_tokens([*ring(pitch=-60), *ring(pitch=60)], (8, 8))
    assert len(near.source) == 24
    assert len(far.source) == 16


@pytest.mark.parametrize(("fov", "overlap"), [(45, 0.0), (90, 0.0)])
def test_views_side_by_side_are_refused(fov: float, overlap: float) -> None:
    with pytest.raises(
        ConfigError, match=r"views 0 and 1 have no place in common[\s\S]*data\.views\.overlap"
    ):
        pair_tokens(ring(fov, overlap), (16, 16))


@pytest.mark.parametrize("views", [[None], [View(0, 0, (90, 90))]])
def test_one_view_is_refused(views: list[View | None]) -> None:
    with pytest.raises(ConfigError, match="several views"):
        pair_tokens(views, (4, 4))
