"""Object keypoint similarity (OKS), suppression of doubles by it, and scores of people. User: sdpose.

OKS is the mean over joints of exp(-d^2 / (2 (2 sigma)^2 area)): 1 is the same place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omma.core.keypoints import SIGMAS

_TINY = float(np.spacing(1))
_MOST_KEPT = 20


def closeness(
    squares: NDArray[np.floating], areas: NDArray[np.floating], sigmas: tuple[float, ...] = SIGMAS
) -> NDArray[np.float64]:
    """The similarity of single joints.

    Args:
        squares: (..., K) squared distances in pixels.
        areas: (...) of the people in square pixels.
        sigmas: of the K joints.
    """
    spread = 2 * (2 * np.asarray(sigmas)) ** 2
    return np.exp(-squares / spread / (np.asarray(areas, np.float64)[..., None] + _TINY))


def oks(keypoints: NDArray[np.floating], areas: NDArray[np.floating]) -> NDArray[np.float64]:
    """OKS of each pair of predicted people over all joints, with the mean of both areas.

    Args:
        keypoints: (N, K, 2 or more) x, y in pixels.
        areas: (N,) square pixels.

    Returns:
        (N, N).
    """
    places = np.asarray(keypoints, np.float64)[..., :2]
    squares = ((places[:, None] - places[None]) ** 2).sum(-1)
    areas = np.asarray(areas, np.float64)
    return closeness(squares, (areas[:, None] + areas[None]) / 2).mean(-1)


def oks_nms(
    keypoints: NDArray[np.floating],
    areas: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    threshold: float,
) -> list[int]:
    """Keep the best of people that are more alike than the threshold.

    Args:
        keypoints: (N, K, 2 or more) pixels.
        areas: (N,) square pixels.
        scores: (N,).
        threshold: largest OKS of two that are both kept.

    Returns:
        indices kept, best first; of equal scores the later one comes first.
    """
    alike = oks(keypoints, areas)
    order = scores.argsort()[::-1]
    kept: list[int] = []
    while order.size:
        kept.append(int(order[0]))
        order = order[1:][alike[order[0], order[1:]] <= threshold]
    return kept


def soft_oks_nms(
    keypoints: NDArray[np.floating],
    areas: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    threshold: float,
    most: int = _MOST_KEPT,
) -> list[int]:
    """Keep people in the order of their scores, which sink by exp(-OKS^2 / threshold) with each one kept.

    Args:
        keypoints: (N, K, 2 or more) pixels.
        areas: (N,) square pixels.
        scores: (N,).
        threshold: the larger, the less scores sink.
        most: people kept.

    Returns:
        indices kept, best first.
    """
    alike = oks(keypoints, areas)
    order = scores.argsort()[::-1]
    kept: list[int] = []
    sinking = np.asarray(scores, np.float64)[order]
    while order.size and len(kept) < most:
        kept.append(int(order[0]))
        sinking = sinking[1:] * np.exp(-(alike[order[0], order[1:]] ** 2) / threshold)
        ranks = sinking.argsort()[::-1]
        order, sinking = order[1:][ranks], sinking[ranks]
    return kept


def rescore(
    box_scores: NDArray[np.floating], joint_scores: NDArray[np.floating], *, visible_score: float = 0.2
) -> NDArray[np.float64]:
    """Scores of people: the box's times the mean of its joints' above a threshold, 0 where none is.

    Args:
        box_scores: (N,).
        joint_scores: (N, K).
        visible_score: a joint counts above it.
    """
    counted = joint_scores > visible_score
    sums = np.where(counted, joint_scores, 0).sum(-1, dtype=np.float64)
    return box_scores * sums / np.maximum(counted.sum(-1), 1)
