import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omma.errors import DataError
from omma.viz.image import (
    Tile,
    blend,
    colour_map,
    draw_text,
    panel,
    read_image,
    resize_map,
    resize_photo,
    save_png,
    shorten,
    text_width,
)


def test_a_saved_image_comes_back_equal_also_under_a_hangul_path(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path = tmp_path / "새 폴더" / "그림 1.png"
    save_png(path, image)
    assert np.array_equal(read_image(path), image)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(path, np.zeros((50, 50, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path)


def test_maps_keep_their_colours_and_photos_are_antialiased() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2] = 255
    assert set(np.unique(resize_map(image, 13, 6))) == {0, 255}
    assert 100 < resize_photo(image, 2, 2).mean() < 155
    assert resize_map(image, 13, 6).shape == (13, 6, 3)


def test_colour_map_ends_and_missing_values() -> None:
    values = np.array([[0.0, 10.0, 99.0, np.nan]])
    coloured = colour_map(values, name="gray", lowest=0, highest=10, missing=(1, 2, 3))
    assert coloured[0].tolist() == [[0, 0, 0], [255, 255, 255], [255, 255, 255], [1, 2, 3]]
    nothing = colour_map(np.full((2, 2), np.nan), missing=(1, 2, 3))
    assert nothing.tolist() == [[[1, 2, 3]] * 2] * 2


def test_a_constant_map_has_one_colour() -> None:
    assert len(np.unique(colour_map(np.full((3, 3), 5.0)).reshape(-1, 3), axis=0)) == 1


def test_blend_is_linear_in_opacity() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    mixed = blend(image, (200, 0, 100), np.array([[0.0, 0.5, 1.0]]))
    assert mixed[0].tolist() == [[100, 100, 100], [150, 50, 100], [200, 0, 100]]


def test_text_lands_at_its_anchor_and_leaves_the_input_alone() -> None:
    image = np.full((40, 200, 3), 255, np.uint8)
    written = draw_text(image, "IoU 0.33", (190, 20), anchor="rm", size=16)
    assert image.min() == 255
    columns = np.flatnonzero((written < 128).any(axis=(0, 2)))
    assert columns.max() <= 190
    assert columns.min() >= 190 - text_width("IoU 0.33", 16) - 1


def test_long_text_is_cut_to_the_width() -> None:
    short = shorten("a very long caption " * 5, 13, 120)
    assert short.endswith("…")
    assert text_width(short, 13) <= 120
    assert shorten("short", 13, 120) == "short"
    assert shorten("wide", 13, 1) == "…"


def test_panel_rows_fill_the_width_and_keep_aspect() -> None:
    red, blue = np.zeros((100, 200, 3), np.uint8), np.zeros((100, 100, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = panel(
        [[Tile(red, "red"), Tile(blue, "blue")], [Tile(red)]], width=640, gap=8, margin=16, title="t"
    )
    assert sheet.shape[1] == 640
    in_red = (sheet == (255, 0, 0)).all(axis=-1)
    in_blue = (sheet == (0, 0, 255)).all(axis=-1)
    height = int((640 - 32 - 8) / 3)
    assert in_blue.sum() == height * height
    row = np.flatnonzero(in_blue.any(axis=1))[0]
    assert np.flatnonzero(in_red[row])[0] == 16
    assert np.flatnonzero(in_blue[row])[-1] == 640 - 16 - 1


def test_a_tall_tile_stops_at_the_row_height() -> None:
    sheet = panel([[Tile(np.zeros((300, 100, 3), np.uint8))]], width=640, max_row_height=90, margin=10, gap=0)
    assert (sheet == 0).all(axis=-1).any(axis=1).sum() == 90


def test_viz_and_report_load_no_torch() -> None:
    modules = ", ".join(f"omma.viz.{name}" for name in ("image", "bev", "camera", "curves", "video"))
    code = f"import sys, {modules}, omma.report.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
