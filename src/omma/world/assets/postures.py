"""Postures of people: walking, running, standing, bending, squatting, kneeling, sitting, with moving arms.

All is in the person frame of `people` and in shares of the body height until the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omma.world.assets.people import FOREARM, SHIN, THIGH, UPPER_ARM, bent_limb, riding_joints, walking_joints
from omma.world.mesh import Float

STANDING = ("stand", "walk", "run", "bend", "squat", "kneel", "lunge")
_CHANCES = (0.40, 0.24, 0.08, 0.09, 0.07, 0.04, 0.08)
_ANKLE = 0.05  # height of an ankle above the ground
_SEAT = 0.27  # height of a seat
_HEAD_JOINTS, _SHOULDERS, _UPPER = slice(0, 5), slice(5, 7), slice(0, 11)

# where a hand is from its shoulder and which way its elbow points: ahead, outwards, up
_ARMS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hang": ((0.03, 0.06, -0.305), (-1.0, 0.4, 0.0)),
    "up": ((0.03, 0.04, 0.30), (0.0, 1.0, 0.0)),
    "wave": ((0.05, 0.14, 0.20), (0.0, 1.0, -0.4)),
    "aside": ((0.02, 0.31, 0.02), (0.0, 0.2, -1.0)),
    "ahead": ((0.31, 0.02, 0.02), (0.0, 0.5, -1.0)),
    "hip": ((0.03, -0.005, -0.20), (-0.5, 1.0, 0.0)),
    "phone": ((0.05, -0.035, 0.09), (0.35, 0.6, -1.0)),
    "head": ((-0.01, -0.02, 0.15), (0.0, 1.0, 0.2)),
    "fold": ((0.12, -0.15, -0.13), (0.0, 0.7, -1.0)),
    "read": ((0.18, -0.07, -0.09), (-0.2, 0.5, -1.0)),
}
_BOTH = ("hang", "up", "aside", "ahead", "hip", "head", "fold", "read")


def random_joints(rng: np.random.Generator, height_m: float) -> Float:
    """A person on their feet in some posture.

    Returns:
        (17, 3) float32 in the person frame, the lowest ankle just above the ground.
    """
    return standing_joints(rng, height_m, str(rng.choice(STANDING, p=_CHANCES)))


def standing_joints(rng: np.random.Generator, height_m: float, kind: str) -> Float:
    """A person on their feet.

    Args:
        rng: of what a kind leaves open.
        height_m: body height.
        kind: one of `STANDING`.

    Returns:
        as `random_joints`.
    """
    stride = {"walk": rng.uniform(0.4, 1.1), "run": rng.uniform(1.3, 1.8)}.get(kind, 0.06)
    joints = walking_joints(1.0, float(rng.uniform(0, 2 * np.pi)), float(stride)).astype(float)
    lean, drop = 0.0, 0.0
    if kind == "bend":
        lean, drop = rng.uniform(0.6, 1.5), rng.uniform(0, 0.08)
    elif kind == "squat":
        lean, drop = rng.uniform(0.2, 0.7), rng.uniform(0.18, 0.38)
    elif kind == "kneel":
        lean, drop = rng.uniform(-0.05, 0.3), 0.23
    elif kind == "lunge":
        lean, drop = rng.uniform(0.0, 0.4), rng.uniform(0.06, 0.18)
    elif kind == "run":
        lean = rng.uniform(0.05, 0.3)
    if kind not in ("walk", "run"):
        _place_legs(joints, rng, kind, float(drop), float(lean))
    _turn(joints, _UPPER, joints[11:13].mean(0), _rotation(rng.normal(0, 0.2), lean, rng.normal(0, 0.06)))
    _move_arms(joints, rng, swinging=kind in ("walk", "run"), leaning=lean > 0.5)
    _turn_head(joints, rng, lean)
    joints[:, 2] += _ANKLE - min(joints[15:, 2].min(), joints[13:15, 2].min() - 0.01)
    return (joints * height_m).astype(np.float32)


def sitting_joints(rng: np.random.Generator, height_m: float, seat_m: float) -> Float:
    """A person on a seat, feet ahead of it.

    Args:
        rng: of trunk, arms, legs and head.
        height_m: body height.
        seat_m: height of the seat.

    Returns:
        (17, 3) float32 in the person frame; the hips are above its origin.
    """
    seat = np.array([0.0, 0.0, seat_m / height_m + 0.045])
    foot = np.array([rng.uniform(0.14, 0.3), rng.uniform(0.04, 0.12), _ANKLE])
    joints = riding_joints(1.0, seat, np.array([0.2, 0.08, 0.37]), foot).astype(float)
    lean = rng.uniform(-0.65, -0.15)  # riders lean ahead
    _turn(joints, _UPPER, joints[11:13].mean(0), _rotation(rng.normal(0, 0.15), lean, rng.normal(0, 0.05)))
    if rng.random() < 0.5:
        _rest_hands(joints)
    else:
        _move_arms(joints, rng, swinging=False, leaning=False)
    _turn_head(joints, rng, 0.0)
    return (joints * height_m).astype(np.float32)


def _rotation(turn: float, lean: float, tilt: float) -> NDArray[np.float64]:
    """(3, 3): tilted to the right, then leaning ahead, then turned to the left, radians."""
    c, s = np.cos(tilt), np.sin(tilt)
    aside = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    c, s = np.cos(lean), np.sin(lean)
    ahead = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ ahead @ aside


def _turn(
    joints: NDArray[np.float64], which: slice, about: NDArray[np.float64], rotation: NDArray[np.float64]
) -> None:
    joints[which] = (joints[which] - about) @ rotation.T + about


def _place_legs(
    joints: NDArray[np.float64], rng: np.random.Generator, kind: str, drop: float, lean: float
) -> None:
    """Put the feet down beside or before each other under hips that are lower by `drop`."""
    hips = joints[11:13].mean(0)
    joints[:13] -= (0.12 * np.sin(lean), 0, drop)  # the hips balance the head
    front = int(rng.integers(2))
    width = rng.uniform(0.0, 0.05) + 0.15 * (rng.random() < 0.15)
    ground = hips[2] - THIGH - SHIN + 0.004
    for side, sign in ((0, 1), (1, -1)):
        step = {"lunge": 0.2, "squat": 0.03, "kneel": 0.16}.get(kind, rng.normal(0, 0.025))
        step *= 1 if side == front else -1
        foot = np.array([step, sign * (0.05 + width), ground])
        if kind == "kneel" and side != front:
            foot = np.array([-0.24, sign * 0.06, ground])
            joints[13 + side], joints[15 + side] = _knelt(joints[11 + side], foot)
            continue
        out = np.array([1.0, sign * rng.uniform(0.05, 0.5), 0.3])
        joints[13 + side], joints[15 + side] = bent_limb(joints[11 + side], foot, (THIGH, SHIN), out)


def _knelt(hip: NDArray[np.float64], foot: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    knee = np.array([hip[0], foot[1], hip[2] - np.sqrt(max(THIGH**2 - (foot[1] - hip[1]) ** 2, 0.0))])
    away = foot + np.array([0, 0, 0.02]) - knee
    return knee, knee + SHIN * away / np.linalg.norm(away)


def _move_arms(
    joints: NDArray[np.float64], rng: np.random.Generator, *, swinging: bool, leaning: bool
) -> None:
    """Give the arms something to do; `swinging` ones often keep to it, those of a `leaning` trunk hang."""
    if swinging and rng.random() < 0.7:
        return
    both = str(rng.choice(_BOTH)) if rng.random() < 0.45 else None
    for side in (0, 1):
        if swinging and rng.random() < 0.5:
            continue
        kind = both or ("hang" if rng.random() < 0.45 else str(rng.choice(list(_ARMS))))
        _place_arm(joints, side, "hang" if leaning and rng.random() < 0.7 else kind, rng, upright=leaning)


def _place_arm(
    joints: NDArray[np.float64], side: int, kind: str, rng: np.random.Generator, *, upright: bool
) -> None:
    sign = 1 - 2 * side
    across = joints[5] - joints[6]
    left = across / np.linalg.norm(across)
    up = joints[_SHOULDERS].mean(0) - joints[11:13].mean(0)
    up = np.array([0.0, 0, 1]) if upright else up / np.linalg.norm(up)
    ahead = np.cross(left, up)
    frame = np.stack([ahead / np.linalg.norm(ahead), sign * left, up], 1)
    reach, elbow = _ARMS[kind]
    shoulder = joints[5 + side]
    hand = shoulder + frame @ (np.array(reach) + rng.normal(0, 0.022, 3))
    lengths = (UPPER_ARM, FOREARM)
    joints[7 + side], joints[9 + side] = bent_limb(shoulder, hand, lengths, frame @ np.array(elbow))


def _rest_hands(joints: NDArray[np.float64]) -> None:
    """Hands on the knees."""
    for side, sign in ((0, 1), (1, -1)):
        hand = joints[11 + side] + 0.8 * (joints[13 + side] - joints[11 + side]) + (0, 0, 0.06)
        joints[7 + side], joints[9 + side] = bent_limb(
            joints[5 + side], hand, (UPPER_ARM, FOREARM), np.array([-0.6, sign * 0.8, -0.3])
        )


def _turn_head(joints: NDArray[np.float64], rng: np.random.Generator, lean: float) -> None:
    neck = joints[_SHOULDERS].mean(0) + 0.25 * (joints[3:5].mean(0) - joints[_SHOULDERS].mean(0))
    turn, nod = np.clip(rng.normal(0, 0.35), -0.9, 0.9), rng.normal(0.05, 0.15) - 0.35 * lean
    _turn(joints, _HEAD_JOINTS, neck, _rotation(float(turn), float(nod), 0.0))
