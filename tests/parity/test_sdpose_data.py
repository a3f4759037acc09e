"""Crops, their random changes and target heatmaps against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sampled import check_sampled

from omma.core.heatmaps import encode, to_image
from omma.core.keypoints import visible_weights
from omma.systems.sdpose.augment import Placed, change, mirror, shift, take_half, zoom_and_turn
from omma.systems.sdpose.config import AugmentSection
from omma.systems.sdpose.crops import crop_matrix, cut, move_points, place_box

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "sdpose"
CROP, HEATMAP = (256, 192), (64, 48)
PUBLISHED = AugmentSection()


class Recorded:
    """Draws as they were recorded; anything else is an error."""

    def __init__(self, *, normal=(), uniform01=(), uniform=None):
        self._normal, self._uniform01, self._uniform = iter(normal), iter(uniform01), uniform

    def standard_normal(self):
        return next(self._normal)

    def random(self):
        return next(self._uniform01)

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1, 1, 2)
        return self._uniform


def load(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(CASES / f"{name}.npz"))


def person() -> Placed:
    """The person of the augmentation cases."""
    case = load("augment")
    joints = np.concatenate([case["joints"][:, :2], case["visible"][:, :1]], 1)
    return Placed(*place_box(case["chain.bbox"], CROP, 1.25), joints)


def check_crop(found: np.ndarray, expected: np.ndarray) -> None:
    """OpenCV's versions differ by up to 4 grey levels on a few pixels."""
    apart = np.abs(found.ravel()[::17].astype(int) - expected)
    assert apart.mean() <= 0.15
    assert apart.max() <= 6


def test_boxes_become_crops() -> None:
    case = load("affine")
    for index, box in enumerate(case["boxes_xywh"]):
        center, scale = place_box(box, CROP, 1.25)
        np.testing.assert_allclose(center, case["center"][index], atol=1e-6)
        np.testing.assert_allclose(scale, case["scale"][index], rtol=1e-6)
        matrix = crop_matrix(
            case["center"][index],
            case["scale"][index],
            CROP,
            rotation_deg=float(case["rotation_deg"][index]),
        )
        np.testing.assert_allclose(matrix, case["matrix"][index], rtol=1e-6, atol=1e-6)
        whole = np.vstack([matrix, [0, 0, 1]])
        np.testing.assert_allclose(np.linalg.inv(whole)[:2], case["matrix_inverse"][index], atol=1e-4)
        moved = move_points(case["points"], matrix)
        np.testing.assert_allclose(moved, case["points_transformed"][index], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 30])
def test_pixels_of_a_crop(degrees: int) -> None:
    case = load("affine")
    matrix = crop_matrix(*place_box(case["warp_box"], CROP, 1.25), CROP, rotation_deg=degrees)
    check_crop(cut(case["image"], matrix, CROP), case[f"warped_rot{degrees}__every17"])


def test_heatmap_coordinates_in_the_image() -> None:
    case = {name: torch.from_numpy(array) for name, array in load("affine").items()}
    found = to_image(case["heat_points"], case["center"], case["scale"], HEATMAP)
    torch.testing.assert_close(found, case["heat_points_in_image"], rtol=0, atol=1e-4)


def test_mirrored_person() -> None:
    case = load("augment")
    mirrored = mirror(person(), int(case["image_width"]))
    np.testing.assert_array_equal(mirrored.joints[:, :2], case["flipped_joints"][:, :2])
    np.testing.assert_array_equal(mirrored.joints[:, 2], case["flipped_visible"][:, 0])


@pytest.mark.parametrize("index", range(12))
def test_half_bodies(index: int) -> None:
    case = load("augment")
    found = take_half(person(), Recorded(normal=[case[f"half_body.{index}.randn"]]), PUBLISHED, CROP)
    np.testing.assert_allclose(found.center, case[f"half_body.{index}.center"], atol=1e-4)
    np.testing.assert_allclose(found.scale, case[f"half_body.{index}.scale"], rtol=1e-6)


@pytest.mark.parametrize("index", range(8))
def test_zoom_and_rotation(index: int) -> None:
    case = load("augment")
    *normal, last = case[f"scale_rot.{index}.draws_randn_randn_rand"]
    before = Placed(np.zeros(2, np.float32), np.array([1.5, 2.0]), person().joints)
    found = zoom_and_turn(before, Recorded(normal=normal, uniform01=[last]), PUBLISHED)
    np.testing.assert_allclose(found.scale, case[f"scale_rot.{index}.scale"], rtol=1e-9)
    assert found.rotation_deg == pytest.approx(float(case[f"scale_rot.{index}.rotation"]), abs=1e-9)


def test_shift_of_the_centre() -> None:
    case = load("augment")
    before = Placed(case["shift.center_in"], case["shift.scale"], person().joints)
    found = shift(before, Recorded(uniform01=[0.0], uniform=case["shift.uniform"]), PUBLISHED)
    np.testing.assert_allclose(found.center, case["shift.center"], atol=1e-4)


@pytest.mark.parametrize("seed", [4, 9])
def test_whole_chain(seed: int) -> None:
    case, image = load("augment"), load("affine")["image"]
    expected = {key.removeprefix(f"chain.{seed}."): value for key, value in case.items()}
    rng = np.random.RandomState(seed)
    found = change(person(), rng, PUBLISHED, image_width=image.shape[1], size=CROP)
    assert found.mirrored == bool(expected["flipped"])
    assert found.rotation_deg == pytest.approx(float(expected["rotation"]), abs=1e-9)
    np.testing.assert_allclose(found.center, expected["center"], atol=1e-4)
    np.testing.assert_allclose(found.scale, expected["scale"], rtol=1e-6)
    matrix = crop_matrix(found.center, found.scale, CROP, rotation_deg=found.rotation_deg)
    pixels = np.ascontiguousarray(image[:, ::-1]) if found.mirrored else image
    check_crop(cut(pixels, matrix, CROP), expected["img__every17"])
    visible = found.joints[:, 2]
    joints = np.where(visible[:, None] > 0, move_points(found.joints[:, :2], matrix), found.joints[:, :2])
    np.testing.assert_allclose(joints, expected["joints"][:, :2], atol=1e-4)
    np.testing.assert_array_equal(visible, expected["visible"][:, 0])
    target, weight = encode(torch.from_numpy(joints)[None], torch.from_numpy(visible)[None], HEATMAP)
    np.testing.assert_array_equal(weight[0], expected["target_weight"])
    np.testing.assert_allclose(target[0].double().sum((1, 2)), expected["target_sum"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "encoding", "sigma"),
    [
        ("classic", "classic", 2),
        ("unbiased", "unbiased", 2),
        ("unbiased_sigma3", "unbiased", 3),
        ("udp", "udp", 2),
        ("megvii", "megvii", 2),
    ],
)
def test_targets(name: str, encoding: str, sigma: float) -> None:
    case = load("targets")
    joints, visible = torch.from_numpy(case["joints_xy"])[None], torch.from_numpy(case["visible"])[None]
    target, weight = encode(joints, visible, HEATMAP, encoding=encoding, sigma=sigma)
    np.testing.assert_array_equal(weight[0], case[f"{name}.weight"])
    arrays = {key: value for key, value in case.items() if key.startswith(f"{name}.target")}
    if f"{name}.sum" in case:
        np.testing.assert_allclose(target[0].double().sum((1, 2)), case[f"{name}.sum"], rtol=1e-5, atol=1e-4)
        check_sampled(target[0, [0, 7, 9]], arrays, f"{name}.target_3kpts", 1e-6)
    else:
        check_sampled(target[0], arrays, f"{name}.target", 1e-6)


def test_weights_of_hard_joints() -> None:
    case = load("targets")
    joints, visible = torch.from_numpy(case["joints_xy"])[None], torch.from_numpy(case["visible"])[None]
    weight = encode(joints, visible, HEATMAP, encoding="classic")[1]
    np.testing.assert_allclose(visible_weights(weight[0, :, 0]), case["classic_jointweights.weight"][:, 0])
