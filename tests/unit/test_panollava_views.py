"""Strategies that cut a panorama into views: what they show, and where `view_layout` says that they look."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from omma.core.panorama import View, pair_tokens, panorama_pixels, sample_panorama, view_rays
from omma.data.io import read_image
from omma.errors import ConfigError, DataError
from omma.systems.panollava.config import ViewsSection
from omma.systems.panollava.views import ViewCutter, shrink, view_layout

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "pano"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="data folder not present")
POND = REAL / "images" / "pannellum_jordan_pond.jpg"
FACES = [(0, 0), (90, 0), (180, 0), (-90, 0), (0, 90), (0, -90)]


def smooth(height: int = 128) -> NDArray[np.uint8]:
    """A panorama whose colour is a smooth function of the direction."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(2 * height), indexing="ij")
    longitude = (columns + 0.5) / height * np.pi - np.pi
    latitude = np.pi / 2 - (rows + 0.5) / height * np.pi
    ray = [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)]
    waves = [np.sin(3 * ray[0] + ray[1]), np.cos(2 * ray[1] - ray[2]), np.sin(4 * ray[2] * ray[0])]
    return np.round(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def section(name: str = "e2p", size: int = 48, **changes) -> ViewsSection:
    return ViewsSection(name=name, image_size=(size, size), **changes)


def overlap_psnr(views: NDArray[np.uint8], layout: list[View | None]) -> list[float]:
    """How well each view's pixels are those of the next view at the places where they should be."""
    size = views.shape[1:3]
    pairs = pair_tokens(layout, size)
    values = []
    for source, target, positions, valid in zip(*pairs, strict=True):
        maps = positions.astype(np.float32).reshape(*size, 2)
        image = views[target].astype(np.float32)
        warped = cv2.remap(image, maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        apart = (warped - views[source]).reshape(-1, 3)[valid]
        values.append(10 * np.log10(255**2 / np.square(apart).mean()))
    return values


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (section(), 8),
        (section(global_view=True), 9),
        (section(pitches_deg=[-45, 0, 45]), 24),
        (section(fov_deg=70, overlap=0.3), 8),
        (section("e2p_reference"), 8),
        (section("sliding_window"), 8),
        (section("cubemap"), 4),
        (section("resize"), 1),
        (section("anyres"), 3),
        (section("anyres_max"), 13),
        (section("anyres_e2p"), 9),
    ],
    ids=lambda value: value.name if isinstance(value, ViewsSection) else None,
)
def test_number_and_size_of_views(settings: ViewsSection, count: int) -> None:
    views = ViewCutter(settings)(smooth())
    assert views.shape == (count, 48, 48, 3)
    assert views.dtype == np.uint8
    assert len(view_layout(settings)) == count


@pytest.mark.parametrize(
    "settings",
    [
        section(),
        section(pitches_deg=[-45, 0, 45]),
        section(fov_deg=70, overlap=0.3),
        ViewsSection(image_size=(40, 64)),
        section("e2p_reference"),
        section("sliding_window"),
        section("anyres_e2p"),
    ],
    ids=["e2p", "rings", "70", "wide", "e2p_reference", "sliding_window", "anyres_e2p"],
)
def test_neighbours_agree_where_they_overlap(settings: ViewsSection) -> None:
    panorama = smooth(256)
    views = ViewCutter(settings)(panorama)
    assert min(overlap_psnr(views, view_layout(settings, panorama.shape[:2]))) > 50


@pytest.mark.parametrize(
    "name", ["e2p", "e2p_reference", "sliding_window", "cubemap", "anyres", "anyres_max", "anyres_e2p"]
)
def test_layout_says_where_views_look(name: str) -> None:
    """Each view equals the panorama sampled in the directions of its pixels."""
    panorama, settings = smooth(240), section(name)
    layout = view_layout(settings, panorama.shape[:2])
    for view, image in zip(layout, ViewCutter(settings)(panorama), strict=True):
        if view is not None:
            positions = panorama_pixels(view_rays(view, (48, 48)), panorama.shape[:2])
            apart = np.abs(sample_panorama(panorama, positions) - image)[2:-2, 2:-2]
            assert apart.mean() < 0.6, view


@pytest.mark.parametrize("name", ["e2p", "sliding_window", "anyres"])
def test_turning_moves_the_front(name: str) -> None:
    panorama, cutter = smooth(), ViewCutter(section(name))
    turned = cutter(panorama, turn_deg=45.0)
    np.testing.assert_array_equal(turned, cutter(np.roll(panorama, -32, axis=1)))
    if name == "e2p":
        np.testing.assert_array_equal(turned[0], cutter(panorama)[1])
    np.testing.assert_array_equal(cutter(panorama, turn_deg=360.0), cutter(panorama))


def test_first_view_of_e2p_is_the_front() -> None:
    assert [view.yaw_deg for view in view_layout(section())] == [0, 45, 90, 135, 180, -135, -90, -45]
    assert view_layout(section(global_view=True))[0] is None


def test_the_reference_leaves_rows_out() -> None:
    """Half of the rows: tan of half the height is half of that of half the width."""
    wide, tall = np.tan(np.radians(view_layout(section("e2p_reference"))[0].fov_deg) / 2)
    assert tall == pytest.approx(wide / 2)


def test_maps_are_computed_once_for_a_size() -> None:
    cutter = ViewCutter(section())
    cutter(smooth(64))
    first = cutter._maps[(64, 128)]
    cutter(smooth(64))
    assert cutter._maps[(64, 128)] is first
    cutter(smooth(32))
    assert set(cutter._maps) == {(64, 128), (32, 64)}


@pytest.mark.parametrize(("height", "expected"), [(400, (96, 192)), (96, (96, 192)), (60, (60, 120))])
def test_shrinking_stops_at_the_resolution_of_views(height: int, expected: tuple[int, int]) -> None:
    assert shrink(np.zeros((height, 2 * height, 3), np.uint8), section()).shape[:2] == expected


def test_shrinking_keeps_fine_detail_from_flickering() -> None:
    """Stripes one pixel wide become grey; sampled as they are they leave bars."""
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    own = ViewCutter(section(size=32))(stripes)
    reference = ViewCutter(section("e2p_reference", size=32))(stripes)
    assert own.std() < 2 < 40 < reference.std()


def test_wide_views_of_the_reference_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"anyres_e2p makes no views of 100 degrees[\s\S]*fov_deg"):
        ViewCutter(section("anyres_e2p", fov_deg=100.0))


@pytest.mark.parametrize("shape", [(64, 128), (64, 128, 4)])
def test_grey_and_transparent_panoramas_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="a panorama has the shape"):
        ViewCutter(section())(np.zeros(shape, np.uint8))


@needs_real
def test_real_projection_of_another_library() -> None:
    panorama = read_image(REAL / "e2p_golden" / "example_input.png")
    expected = read_image(REAL / "e2p_golden" / "example_e2p.png").astype(float)
    rays = view_rays(View(120, 23, (60, 60)), expected.shape[:2], "ends")
    found = sample_panorama(panorama, panorama_pixels(rays, panorama.shape[:2]))
    assert np.abs(found - expected).max() < 0.51


@needs_real
@pytest.mark.parametrize("number", range(6))
def test_real_cube_faces_of_the_author(number: int) -> None:
    panorama = read_image(POND)
    panorama = cv2.resize(panorama, (2048, 1024), interpolation=cv2.INTER_AREA)
    face = read_image(REAL / "jordan_pond_cube" / f"face{number}.jpg").astype(float)
    rays = view_rays(View(*FACES[number], (90, 90)), face.shape[:2])
    found = sample_panorama(panorama, panorama_pixels(rays, panorama.shape[:2]))
    assert np.corrcoef(found.ravel(), face.ravel())[0, 1] > 0.96


@needs_real
def test_real_views_agree_where_they_overlap() -> None:
    panorama, settings = read_image(POND), ViewsSection()
    assert min(overlap_psnr(ViewCutter(settings)(panorama), view_layout(settings, panorama.shape[:2]))) > 35
