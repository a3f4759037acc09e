"""The 17 joints of a person as COCO numbers them. User: sdpose."""

from __future__ import annotations

import torch
from torch import Tensor

JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
FLIP_PAIRS = tuple((left, left + 1) for left in range(1, 17, 2))  # (left, right)
UPPER = tuple(range(11))  # head and arms; the others are hips and legs
SKELETON = (
    ("left_ankle", "left_knee"),
    ("left_knee", "left_hip"),
    ("right_ankle", "right_knee"),
    ("right_knee", "right_hip"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"),
    ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_eye", "right_eye"),
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
    ("left_ear", "left_shoulder"),
    ("right_ear", "right_shoulder"),
)

# Of nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles: how far annotators disagree, as a share
# of the person's size; and how much a joint's heatmap may count more, for hard ones.
_SPREAD = (0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)
_WEIGHT = (1.0, 1.0, 1.0, 1.0, 1.2, 1.5, 1.0, 1.2, 1.5)
SIGMAS = tuple(_SPREAD[(joint + 1) // 2] for joint in range(len(JOINTS)))
JOINT_WEIGHTS = tuple(_WEIGHT[(joint + 1) // 2] for joint in range(len(JOINTS)))


def mirrored_order(pairs: tuple[tuple[int, int], ...] = FLIP_PAIRS, joints: int = len(JOINTS)) -> list[int]:
    """For each joint, the one that takes its place in a mirrored picture."""
    order = list(range(joints))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def visible_weights(weights: Tensor) -> Tensor:
    """Weights (B, K) of joints with elbows, knees times 1.2 and wrists, ankles times 1.5."""
    return weights * torch.tensor(JOINT_WEIGHTS, dtype=weights.dtype, device=weights.device)
