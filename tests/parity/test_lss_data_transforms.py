"""Image changes, their random draws and the box raster against the reference's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fill import load_arrays
from PIL import Image

from omma.core.grid import BevGrid
from omma.data.transforms import (
    PlacedChange,
    central_image_change,
    draw_image_change,
    fill_boxes,
    masks_to_grid,
    resize_image,
)

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "lss"


@pytest.mark.parametrize("index", range(7))
def test_img_transform(index: int) -> None:
    """Matrices to 1e-5; pixels within the two levels that another resampler may differ (one is measured)."""
    case = load_arrays(CASES / "img_transform.npz")
    scale, width, height, *crop, flip, angle = case["params"][index]
    window = tuple(int(side) for side in crop)
    placed = PlacedChange((int(height), int(width)), (scale, scale), window, bool(flip), float(angle))
    rotation, translation = placed.matrices()
    np.testing.assert_allclose(rotation[:2, :2], case["post_rot"][index], atol=1e-5)
    np.testing.assert_allclose(translation[:2], case["post_tran"][index], atol=1e-5)
    difference = np.abs(placed.apply(case["image"]).astype(int) - case["out"][index])
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.02


def test_resampling_is_that_of_pillow() -> None:
    """Downscaling by the factors of training stays within one grey level of Pillow's bicubic filter."""
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    for size in ((20, 35), (41, 88), (67, 120)):
        pillow = np.asarray(Image.fromarray(image).resize(size[::-1]))
        assert np.abs(resize_image(image, size).astype(int) - pillow).max() <= 1


def test_sample_augmentation() -> None:
    """Same draws in the same order from the same generator, same rounding: equal to the last bit."""
    case = load_arrays(CASES / "sample_augmentation.npz")
    confs = json.loads(str(case["confs"]))
    for number, conf in enumerate(confs):
        sizes = (conf["H"], conf["W"]), tuple(conf["final_dim"])
        generator = np.random.RandomState(100 + number)
        for row in case["rows"][case["rows"][:, 0] == number]:
            if row[1]:
                change = draw_image_change(
                    generator,
                    *sizes,
                    scale=conf["resize_lim"],
                    bottom_crop=conf["bot_pct_lim"],
                    rotate_deg=conf["rot_lim"],
                    flip=conf["rand_flip"],
                )
            else:
                change = central_image_change(*sizes, conf["bot_pct_lim"])
            height, width = change.resized
            ours = [change.scale, width, height, *change.crop, change.flip, change.rotate_deg]
            assert ours == row[3:].tolist()


def test_box_raster() -> None:
    case = load_arrays(CASES / "box_raster.npz")
    grid = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))
    np.testing.assert_array_equal(fill_boxes(case["corners"], grid), case["image"])


def test_label_sampling_rows() -> None:
    """A 360-cell mask at 0.4 m taken to 200 cells at 0.5 m uses the expected source rows."""
    case = load_arrays(CASES / "dataset_official_layout.npz")
    grid = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))
    rows = np.broadcast_to(np.arange(360)[:, None], (360, 360))
    in_lss_orientation = rows[None, ::-1, ::-1]
    sampled = masks_to_grid(in_lss_orientation, 0.4, grid)[0]
    np.testing.assert_array_equal(sampled[:, 0], case["nearest_row_for_lss_index_360"])


def test_simbev_raster_seen_by_lift_splat() -> None:
    """SimBEV's mask of a box ahead on the left, turned by 180 degrees, covers the box's cell (124, 104)."""
    case = load_arrays(CASES / "simbev_raster.npz")
    mask = np.unpackbits(case["ahead_left_mask"], axis=-1)[:, :360]
    grid = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))
    label = masks_to_grid(mask[None, ::-1, ::-1], 0.4, grid)[0]
    assert label[124, 104] == 1
    ours = fill_boxes(case["ahead_left_polygon_ego"][None], grid)
    overlap = (label & ours).sum() / (label | ours).sum()
    assert overlap > 0.6
    for wrong in (label[::-1], label[:, ::-1], label[::-1, ::-1], label.T):
        assert wrong[124, 104] == 0
