"""Image changes and their matrices agree with each other; labels follow the ego frame."""

from __future__ import annotations

import numpy as np
import pytest

from omma.core.grid import BevGrid
from omma.data.transforms import (
    PlacedChange,
    central_image_change,
    crop_image,
    draw_ego_change,
    draw_image_change,
    fill_boxes,
    masks_to_grid,
    place_image_change,
    resample_label,
    resize_image,
    rotate_image,
    validation_scale,
)

GRID = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))


def _spot(size: tuple[int, int], u: float, v: float, sigma: float) -> np.ndarray:
    """A white spot centred on a pixel position, where pixel (0, 0) is the middle of the first pixel."""
    y, x = np.mgrid[: size[0], : size[1]]
    value = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return np.repeat(value[..., None], 3, axis=2).astype(np.uint8)


def _centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("seed", range(8))
def test_pixels_go_where_the_matrices_say(seed: int) -> None:
    """A spot of the file lies at A uv + b after resize, crop, mirror and rotation, whatever the aspect."""
    rng = np.random.default_rng(seed)
    change = draw_image_change(
        rng, (224, 480), (128, 352), scale=(0.7, 0.8), bottom_crop=(0, 0.1), rotate_deg=(-5.4, 5.4), flip=True
    )
    placed = place_image_change(change, file_size=(450, 800), source_size=(224, 480), top_crop=30)
    file_uv = np.array([rng.uniform(300, 500), rng.uniform(230, 300)])
    result = placed.apply(_spot((450, 800), *file_uv, sigma=12))
    assert result.shape == (128, 352, 3)
    rotation, translation = placed.matrices()
    # pixel coordinates count from the corner of the first pixel, so its middle is at one half
    expected = (rotation[:2, :2] @ (file_uv + 0.5) + translation[:2]) - 0.5
    np.testing.assert_allclose(_centre(result), expected, atol=0.35)


def test_files_of_another_size_get_their_true_scale() -> None:
    """A 1600 x 900 file under the default 480 x 224 source: middle stays middle, corner stays corner."""
    change = central_image_change((224, 480), (128, 352))
    placed = place_image_change(change, file_size=(900, 1600), source_size=(224, 480))
    rotation, translation = placed.matrices()
    np.testing.assert_allclose(rotation @ [800, 450, 0] + translation, [176, 82 - 36, 0], atol=1e-4)
    np.testing.assert_allclose(rotation @ [1600, 900, 0] + translation, [352, 128, 0], atol=1e-4)
    assert rotation[2].tolist() == [0, 0, 1]


def test_top_crop_keeps_the_aspect_of_wide_files() -> None:
    """1600 x 900 reduced to 480 x 270 less 46 rows: equal scales along both axes, rows cut off the top."""
    change = central_image_change((224, 480), (128, 352))
    placed = place_image_change(change, file_size=(900, 1600), source_size=(224, 480), top_crop=46)
    x, y = placed.scale
    assert x == pytest.approx(0.22)
    assert y == pytest.approx(0.22, rel=0.005)
    assert placed.crop[3] == placed.resized[0], "the window ends at the file's last row"


def test_nominal_scale_is_off_by_less_than_a_pixel() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        change = draw_image_change(rng, (224, 480), (128, 352), scale=(0.64, 0.75))
        true, nominal = (
            place_image_change(change, file_size=(224, 480), source_size=(224, 480), nominal_scale=flag)
            for flag in (False, True)
        )
        assert nominal.scale == (change.scale, change.scale)
        assert abs((nominal.scale[0] - true.scale[0]) * 480) < 1
        assert abs((nominal.scale[1] - true.scale[1]) * 224) < 1


def test_a_window_outside_the_image_is_black() -> None:
    image = np.full((4, 6, 3), 9, np.uint8)
    window = crop_image(image, (-2, 1, 3, 7))
    assert window.shape == (6, 5, 3)
    assert window[:3, 2:].min() == 9
    assert window[3:].max() == window[:, :2].max() == 0
    assert crop_image(image, (10, 10, 12, 12)).max() == 0


def test_rotation_is_counter_clockwise_on_the_screen() -> None:
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 18] = 255
    rotated = rotate_image(image, 90)
    assert rotated[2, 10, 0] == 255, "what was to the right is on top"


def test_same_size_is_not_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    assert resize_image(image, (8, 8)) is image


def test_validation_scale_covers_the_image() -> None:
    assert validation_scale((224, 480), (128, 352)) == pytest.approx(352 / 480)
    assert validation_scale((100, 480), (128, 352)) == pytest.approx(1.28)


def test_turning_the_ego_frame_moves_a_label_like_a_point() -> None:
    label = np.zeros((1, 200, 200), np.uint8)
    label[0, 119:128, 100:105] = 1  # 9.5..14 m ahead, 0..2.5 m left
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = resample_label(label, GRID, quarter)
    assert turned.sum() == label.sum()
    rows, columns = np.nonzero(turned[0])
    x, y = GRID.centres("x")[rows].mean(), GRID.centres("y")[columns].mean()
    old = np.array([GRID.centres("x")[119:128].mean(), GRID.centres("y")[100:105].mean(), 0])
    np.testing.assert_allclose([x, y], (quarter @ old)[:2], atol=1e-6)


def test_mirroring_the_ego_frame_is_exact_and_undoes_itself() -> None:
    label = (np.random.default_rng(0).random((2, 200, 200)) > 0.9).astype(np.float32)
    mirror = np.diag([1.0, -1, 1])
    mirrored = resample_label(label, GRID, mirror)
    np.testing.assert_array_equal(mirrored, label[:, :, ::-1])
    np.testing.assert_array_equal(resample_label(mirrored, GRID, mirror), label)


def test_ego_changes_are_orthogonal_and_cover_both_hands() -> None:
    rng = np.random.default_rng(0)
    changes = [draw_ego_change(rng, rotate_deg=20, flip=True) for _ in range(40)]
    for change in changes:
        np.testing.assert_allclose(change @ change.T, np.eye(3), atol=1e-12)
    determinants = [np.linalg.det(change) for change in changes]
    assert min(determinants) == pytest.approx(-1)
    assert max(determinants) == pytest.approx(1)
    angle = np.degrees(np.arcsin(draw_ego_change(rng, rotate_deg=20, flip=False)[1, 0]))
    assert abs(angle) <= 20


def test_masks_of_equal_cells_are_cropped_in_the_middle() -> None:
    masks = np.arange(360 * 360).reshape(1, 360, 360)
    grid = BevGrid((-51.2, 51.2, 0.4), (-51.2, 51.2, 0.4), (-10, 10, 20))
    np.testing.assert_array_equal(masks_to_grid(masks, 0.4, grid), masks[:, 52:308, 52:308])


def test_what_masks_do_not_cover_is_empty() -> None:
    grid = BevGrid((-8, 24, 1), (-8, 8, 1), (-10, 10, 20))
    picked = masks_to_grid(np.ones((1, 20, 20), bool), 1.0, grid)[0]
    assert picked.shape == (32, 16)
    assert picked[:18].all()
    assert not picked[18:].any()


def test_filled_box_covers_its_middle_and_the_right_axes() -> None:
    box = np.array([[[10, 1], [14, 1], [14, 3], [10, 3.0]]])
    image = fill_boxes(box, GRID)
    rows, columns = np.nonzero(image)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 128, 102, 106)


def test_placed_change_without_rotation_and_flip_is_resize_and_crop() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    placed = PlacedChange((20, 30), (0.5, 0.5), (5, 4, 25, 20), flip=False, rotate_deg=0.0)
    np.testing.assert_array_equal(placed.apply(image), resize_image(image, (20, 30))[4:20, 5:25])
