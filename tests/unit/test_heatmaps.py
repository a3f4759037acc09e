"""Heatmaps: what is drawn is found again, at borders too, and mirroring is undone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omma.core.heatmaps import Encoding, decode, encode, flip_back, to_image
from omma.core.keypoints import FLIP_PAIRS, JOINTS, SIGMAS, SKELETON, UPPER, mirrored_order

SIZE = (24, 18)


def joints_inside(count: int, margin: float = 16.0) -> torch.Tensor:
    """(1, count, 2) random places in a crop, away from its borders."""
    limits = torch.tensor([SIZE[1], SIZE[0]]) * 4 - 2 * margin
    return torch.rand(1, count, 2, generator=torch.Generator().manual_seed(0)) * limits + margin


def test_joints_of_a_person() -> None:
    assert len(JOINTS) == len(SIGMAS) == 17
    for left, right in FLIP_PAIRS:
        assert JOINTS[left].replace("left", "right") == JOINTS[right]
        assert SIGMAS[left] == SIGMAS[right]
    assert mirrored_order()[:3] == [0, 2, 1]
    assert {name for link in SKELETON for name in link} <= set(JOINTS)
    assert len(SKELETON) == 19
    assert next(JOINTS[index] for index in range(17) if index not in UPPER) == "left_hip"


@pytest.mark.parametrize(
    ("encoding", "method", "tolerance"),
    [("unbiased", "unbiased", 0.02), ("udp", "udp", 0.02), ("classic", "none", 0.5), ("megvii", "none", 1.0)],
)
def test_a_drawn_joint_is_found_again(encoding: Encoding, method: str, tolerance: float) -> None:
    joints = joints_inside(40, margin=28.0)  # blurring what a border cuts off moves it a little
    target, weight = encode(joints, torch.ones(1, 40), SIZE, encoding=encoding)
    assert target.shape == (1, 40, *SIZE)
    assert weight.shape == (1, 40, 1)
    assert weight.min() == 1
    coords, scores = decode(target, method=method)
    cells = torch.tensor([SIZE[1], SIZE[0]], dtype=torch.float32)
    step = (4 * cells - 1) / (cells - 1) if encoding == "udp" else 4
    assert (coords - joints / step).abs().max() <= tolerance
    assert scores.min() > 0.8


def test_peak_is_one_only_on_a_cell() -> None:
    joints = torch.tensor([[[32.0, 40.0], [34.0, 40.0]]])
    target, _ = encode(joints, torch.ones(1, 2), SIZE)
    assert target[0, 0, 10, 8] == 1
    assert target[0, 1].max() == pytest.approx(math.exp(-0.25 / 8))


def test_little_weight_keeps_its_weight_but_draws_nothing() -> None:
    joints, visible = joints_inside(3), torch.tensor([[0.4, 0.6, 0.0]])
    target, weight = encode(joints, visible, SIZE)
    torch.testing.assert_close(weight[0, :, 0], visible[0])
    assert target[0, 0].max() == target[0, 2].max() == 0
    assert target[0, 1].max() > 0.9


@pytest.mark.parametrize("encoding", ["unbiased", "classic", "udp", "megvii"])
def test_far_outside_has_no_weight(encoding: Encoding) -> None:
    joints = torch.tensor([[[-60.0, 40.0], [40.0, 400.0]]])
    target, weight = encode(joints, torch.ones(1, 2), SIZE, encoding=encoding)
    assert weight.max() == target.max() == 0


def test_empty_maps_have_no_place() -> None:
    maps = torch.stack([torch.zeros(SIZE), torch.full(SIZE, -1.0)])[None]
    for method in ("unbiased", "default", "none"):
        coords, scores = decode(maps, method=method)
        assert (coords == -1).all()
        torch.testing.assert_close(scores, torch.tensor([[0.0, -1.0]]))


def test_quarter_step_goes_to_the_higher_neighbour() -> None:
    maps = torch.zeros(1, 1, *SIZE)
    maps[0, 0, 10, 8] = 1.0
    maps[0, 0, 10, 9] = maps[0, 0, 9, 8] = 0.5
    torch.testing.assert_close(decode(maps, method="default")[0], torch.tensor([[[8.25, 9.75]]]))
    maps = torch.zeros(1, 1, *SIZE)
    maps[0, 0, 1, 8] = 1.0  # too near to the border
    torch.testing.assert_close(decode(maps, method="default")[0], torch.tensor([[[8.0, 1.0]]]))


def test_long_steps_can_be_refused() -> None:
    noise = torch.rand(4, 17, *SIZE, generator=torch.Generator().manual_seed(1)) * 0.01
    free, bound = decode(noise)[0], decode(noise, largest_step=1.5)[0]
    cells = decode(noise, method="none")[0]
    assert (free - cells).norm(dim=-1).max() > 1.5
    taken = (bound - cells).norm(dim=-1)
    assert taken.max() <= 1.5
    short = (free - cells).norm(dim=-1) <= 1.5
    torch.testing.assert_close(bound[short], free[short])
    assert (taken[~short] == 0).all()


def dark_of_one(heatmap: np.ndarray) -> np.ndarray:
    """DARK of a single map, joint by joint, as one writes it down first."""
    import cv2

    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    padded = np.zeros((height + 10, width + 10), np.float32)
    padded[5:-5, 5:-5] = heatmap
    blurred = cv2.GaussianBlur(padded, (11, 11), 0)[5:-5, 5:-5]
    logs = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10)).astype(np.float64)
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return np.array([x, y], np.float64)
    gradient = 0.5 * np.array([logs[y, x + 1] - logs[y, x - 1], logs[y + 1, x] - logs[y - 1, x]])
    xx = 0.25 * (logs[y, x + 2] - 2 * logs[y, x] + logs[y, x - 2])
    yy = 0.25 * (logs[y + 2, x] - 2 * logs[y, x] + logs[y - 2, x])
    xy = 0.25 * (logs[y + 1, x + 1] - logs[y - 1, x + 1] - logs[y + 1, x - 1] + logs[y - 1, x - 1])
    return np.array([x, y]) - np.linalg.solve(np.array([[xx, xy], [xy, yy]]), gradient)


def test_all_joints_at_once_as_one_by_one() -> None:
    joints = joints_inside(30, margin=-4.0)
    noise = torch.rand(1, 30, *SIZE, generator=torch.Generator().manual_seed(2)) * 0.05
    maps = encode(joints, torch.ones(1, 30), SIZE)[0] + noise
    expected = [dark_of_one(one) for one in maps[0].numpy()]
    np.testing.assert_allclose(decode(maps)[0][0], expected, atol=2e-3)


def test_a_mirrored_crop_gives_the_same_joints() -> None:
    """A network without a side: what it says of the mirrored crop, flipped back, lies 3/4 of a cell off."""
    joints = joints_inside(17)
    mirrored = joints[:, mirrored_order()] * torch.tensor([-1.0, 1.0])
    mirrored[..., 0] += 4 * SIZE[1] - 1
    maps = encode(mirrored, torch.ones(1, 17), SIZE)[0]
    plain = decode(flip_back(maps, shift=False))[0] * 4 - joints
    torch.testing.assert_close(plain.mean(1), torch.tensor([[-3.0, 0.0]]), rtol=0, atol=0.1)
    shifted = decode(flip_back(maps))[0] * 4 - joints
    torch.testing.assert_close(shifted.mean(1), torch.tensor([[1.0, 0.0]]), rtol=0, atol=0.1)


def test_image_coordinates() -> None:
    center, scale = torch.tensor([[100.0, 80.0]]), torch.tensor([[0.5, 0.75]])
    corners = torch.tensor([[[0.0, 0.0], [18.0, 24.0], [9.0, 12.0]]])
    expected = torch.tensor([[[50.0, 5.0], [150.0, 155.0], [100.0, 80.0]]])
    torch.testing.assert_close(to_image(corners, center, scale, SIZE), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_gpu_gives_the_same() -> None:
    maps = encode(joints_inside(17), torch.ones(1, 17), SIZE)[0]
    on_gpu = decode(encode(joints_inside(17).cuda(), torch.ones(1, 17).cuda(), SIZE)[0])
    torch.testing.assert_close(on_gpu[0].cpu(), decode(maps)[0], rtol=0, atol=1e-3)
