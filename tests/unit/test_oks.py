"""Similarity of people, suppression of doubles, scores, and PCK by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omma.core.keypoints import JOINTS, SIGMAS
from omma.core.oks import closeness, oks, oks_nms, rescore, soft_oks_nms
from omma.core.pck import auc, distances, epe, heatmap_pck, pck

K = len(JOINTS)


def shifted(*offsets: float) -> np.ndarray:
    """(N, K, 2) the same person, moved to the right."""
    base = np.random.default_rng(0).uniform(0, 100, (K, 2))
    return np.stack([base + np.array([offset, 0]) for offset in offsets])


def test_similarity_by_hand() -> None:
    alike = oks(shifted(0, 0, 5), np.full(3, 5000.0))
    expected = np.exp(-25 / (2 * (2 * np.array(SIGMAS)) ** 2 * 5000)).mean()
    np.testing.assert_allclose(
        alike, [[1, 1, expected], [1, 1, expected], [expected, expected, 1]], rtol=1e-9
    )
    uneven = oks(shifted(0, 5), np.array([2000.0, 8000.0]))
    assert uneven[0, 1] == pytest.approx(expected)


def test_a_joint_at_sigma() -> None:
    """Two sigma of the square root of the area away, a joint counts exp(-1/2)."""
    areas = np.array([900.0])
    squares = (2 * np.array(SIGMAS) * 30) ** 2
    np.testing.assert_allclose(closeness(squares[None], areas), np.exp(-0.5))


def test_the_best_of_doubles_is_kept() -> None:
    keypoints, areas = shifted(0, 1, 300, 2), np.full(4, 5000.0)
    scores = np.array([0.5, 0.9, 0.3, 0.7])
    assert oks_nms(keypoints, areas, scores, threshold=0.9) == [1, 2]
    assert oks_nms(keypoints, areas, scores, threshold=1.0) == [1, 3, 0, 2]
    assert oks_nms(keypoints[:0], areas[:0], scores[:0], threshold=0.9) == []


def test_soft_suppression_lowers_doubles() -> None:
    keypoints, areas = shifted(0, 1, 300, 2), np.full(4, 5000.0)
    scores = np.array([0.5, 0.9, 0.3, 0.7])
    assert soft_oks_nms(keypoints, areas, scores, threshold=0.5) == [1, 2, 3, 0]
    assert soft_oks_nms(keypoints, areas, scores, threshold=0.5, most=2) == [1, 2]


def test_scores_of_people() -> None:
    joints = np.array([[0.1, 0.5, 0.9], [0.2, 0.1, 0.0], [0.3, 0.3, 0.3]])
    np.testing.assert_allclose(rescore(np.array([0.5, 1.0, 1.0]), joints), [0.35, 0.0, 0.3])
    np.testing.assert_allclose(rescore(np.ones(3), joints, visible_score=0.05), [0.5, 0.15, 0.3])


def test_pck_by_hand() -> None:
    true = torch.zeros(2, 3, 2)
    pred = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [6.0, 8.0], [9.0, 0.0]]])
    counted = torch.tensor([[True, True, False], [True, True, False]])
    distance = distances(pred, true, counted)
    by_joint, mean = pck(distance, 5.5)
    torch.testing.assert_close(by_joint, torch.tensor([1.0, 0.5, torch.nan]), equal_nan=True)
    assert float(mean) == 0.75
    assert float(epe(distance)) == pytest.approx((5 + 0 + 1 + 10) / 4)
    halved = distances(pred, true, counted, torch.tensor([[2.0, 2.0], [1.0, 1.0]]))
    assert float(epe(halved)) == pytest.approx((2.5 + 0 + 1 + 10) / 4)
    assert float(auc(torch.zeros(1, 1), 30.0)) == pytest.approx(0.95)  # nothing is nearer than 0


def test_accuracy_of_heatmaps() -> None:
    target = torch.zeros(1, 2, 20, 10)
    target[0, :, 10, 5] = 1
    pred = target.roll(2, -1)
    weight = torch.ones(1, 2, 1)
    assert float(heatmap_pck(target, target, weight)) == 1
    assert float(heatmap_pck(pred, target, weight, threshold=0.11)) == 1  # 2 of 20: x by the number of rows
    assert float(heatmap_pck(pred, target, weight, threshold=0.09)) == 0
    assert float(heatmap_pck(pred, target, 0 * weight)) == 0
