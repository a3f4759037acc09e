"""People of simple limbs around the 17 COCO joints: walking, standing, riding.

Person frame: x ahead, y to the person's left, z up, origin on the ground below the hips; metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omma.world.mesh import Colour, Float, Material, Mesh, frame_along

JOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
SKINS: tuple[Colour, ...] = ((0.58, 0.36, 0.26), (0.46, 0.27, 0.18), (0.28, 0.15, 0.09), (0.12, 0.06, 0.04))
HAIRS: tuple[Colour, ...] = ((0.02, 0.015, 0.01), (0.08, 0.04, 0.02), (0.25, 0.15, 0.06), (0.35, 0.35, 0.35))
CLOTHES: tuple[Colour, ...] = (
    (0.05, 0.08, 0.20),
    (0.50, 0.05, 0.05),
    (0.65, 0.63, 0.58),
    (0.03, 0.03, 0.035),
    (0.08, 0.25, 0.14),
    (0.60, 0.42, 0.08),
    (0.20, 0.21, 0.24),
    (0.10, 0.28, 0.48),
    (0.38, 0.14, 0.30),
)

SHOE: Colour = (0.03, 0.028, 0.026)
_EYE: Colour = (0.012, 0.01, 0.01)

# shares of the body height
_HIP, _SHOULDER, _HEAD = 0.525, 0.815, 0.925
_HIP_HALF, _SHOULDER_HALF, _HEAD_RADIUS = 0.052, 0.108, 0.062
THIGH, SHIN, UPPER_ARM, FOREARM = 0.245, 0.24, 0.17, 0.155


@dataclass(frozen=True)
class Look:
    """How a person looks.

    Args:
        height_m: body height.
        build: girth, 1 is average.
        skin: colour.
        hair: colour, or that of the helmet.
        top: colour.
        legs: colour.
        helmet: whether it replaces the hair.
        short_sleeves: whether the forearms are bare.
        short_legs: whether the shins are bare.
        skirt: whether a skirt covers the thighs.
        long_hair: whether it covers the neck.
        eyes: whether they are drawn, as seen from near.
    """

    height_m: float
    build: float
    skin: Colour
    hair: Colour
    top: Colour
    legs: Colour
    helmet: bool = False
    short_sleeves: bool = False
    short_legs: bool = False
    skirt: bool = False
    long_hair: bool = False
    eyes: bool = False


def random_look(rng: np.random.Generator, *, helmet: bool = False) -> Look:
    """A person to draw, adults mostly."""
    height = rng.uniform(1.1, 1.4) if rng.random() < 0.1 else rng.normal(1.73, 0.08)
    skin, hair = SKINS[rng.integers(len(SKINS))], HAIRS[rng.integers(len(HAIRS))]
    top, legs = CLOTHES[rng.integers(len(CLOTHES))], CLOTHES[rng.integers(len(CLOTHES))]
    return Look(
        float(np.clip(height, 1.1, 1.95)), float(rng.uniform(0.88, 1.15)), skin, hair, top, legs, helmet
    )


def random_portrait(rng: np.random.Generator) -> Look:
    """A person to draw from near: with eyes and varied clothes."""
    look, (sleeves, legs, hair) = random_look(rng), rng.random(3)
    return replace(
        look,
        short_sleeves=sleeves < 0.45,
        short_legs=legs < 0.3,
        skirt=0.2 < legs < 0.35,
        long_hair=hair < 0.4,
        eyes=True,
    )


def walking_joints(height_m: float, phase: float, stride: float = 1.0) -> Float:
    """Joints of a person in mid-walk.

    Args:
        height_m: body height.
        phase: radians; one full turn is two steps.
        stride: swing of arms and legs, 0 (standing) to 1 (brisk).

    Returns:
        (17, 3) float32 in the person frame, order `JOINTS`; the lower foot stands on the ground.
    """
    joints = np.zeros((17, 3))
    _place_trunk(joints, lean=0.02 * stride)
    for side, sign in ((0, 1), (1, -1)):  # left, right
        swing = phase if sign > 0 else phase + np.pi
        thigh = stride * 0.45 * np.sin(swing)
        knee = stride * (0.12 + 0.75 * max(0.0, np.sin(swing + 1.2)) ** 2)
        joints[13 + side] = joints[11 + side] + THIGH * _swung(thigh)
        joints[15 + side] = joints[13 + side] + SHIN * _swung(thigh - knee)
        arm = -stride * 0.5 * np.sin(swing)
        outward = np.array([0, 0.12 * sign, 0])
        joints[7 + side] = joints[5 + side] + UPPER_ARM * (_swung(arm) + outward)
        joints[9 + side] = joints[7 + side] + FOREARM * (_swung(arm + 0.25 + 0.3 * stride) + 0.3 * outward)
    joints[:, 2] += 0.05 - joints[15:, 2].min()
    return (joints * height_m).astype(np.float32)


def _swung(angle: float) -> NDArray[np.float64]:
    """Unit vector that hangs down, swung ahead by `angle` radians."""
    return np.array([np.sin(angle), 0.0, -np.cos(angle)])


def _place_trunk(joints: NDArray[np.float64], *, lean: float, base: float = _HIP) -> None:
    up = np.array([np.sin(lean), 0.0, np.cos(lean)])
    ahead = np.array([np.cos(lean), 0.0, -np.sin(lean)])
    hips = np.array([0.0, 0.0, base])
    left = np.array([0.0, 1.0, 0.0])
    r = _HEAD_RADIUS
    head = hips + (_HEAD - _HIP) * up
    joints[0] = head + 0.92 * r * ahead - 0.15 * r * up
    joints[1], joints[2] = (head + 0.8 * r * ahead + s * 0.4 * r * left + 0.2 * r * up for s in (1, -1))
    joints[3], joints[4] = (head + s * 0.78 * r * left for s in (1, -1))
    joints[5], joints[6] = (hips + (_SHOULDER - _HIP) * up + s * _SHOULDER_HALF * left for s in (1, -1))
    joints[11], joints[12] = (hips + s * _HIP_HALF * left for s in (1, -1))


def riding_joints(height_m: float, seat: Float, hand: Float, foot: Float) -> Float:
    """Joints of somebody sitting on a two-wheeler.

    Args:
        height_m: body height.
        seat: (3,) where the hips rest, person frame.
        hand: (3,) grip of the left hand; the right one mirrors y.
        foot: (3,) place of the left ankle; the right one mirrors y.

    Returns:
        (17, 3) float32, order `JOINTS`.
    """
    joints = np.zeros((17, 3))
    _place_trunk(joints, lean=0.5)
    joints *= height_m
    joints += np.asarray(seat) - joints[11:13].mean(0)
    for side, sign in ((0, 1), (1, -1)):
        mirror = np.array([1, sign, 1])
        joints[9 + side], joints[15 + side] = hand * mirror, foot * mirror
        elbow_out = np.array([-0.4, sign * 0.7, -0.6])
        arm, leg = (UPPER_ARM * height_m, FOREARM * height_m), (THIGH * height_m, SHIN * height_m)
        joints[7 + side], joints[9 + side] = bent_limb(joints[5 + side], joints[9 + side], arm, elbow_out)
        joints[13 + side], joints[15 + side] = bent_limb(
            joints[11 + side], joints[15 + side], leg, np.array([1.0, sign * 0.25, 0.4])
        )
    return joints.astype(np.float32)


def bent_limb(
    root: NDArray, goal: NDArray, lengths: tuple[float, float], towards: NDArray
) -> tuple[NDArray, NDArray]:
    """Middle and end of a limb of two parts, such as an arm.

    Args:
        root: (3,) where it starts.
        goal: (3,) where it should end; it ends on the way there where that is too far or too near.
        lengths: of its parts.
        towards: (3,) direction in which its middle is bent.
    """
    reach = goal - root
    distance = float(np.clip(np.linalg.norm(reach), abs(lengths[0] - lengths[1]) + 1e-3, sum(lengths) - 1e-3))
    axis = reach / np.linalg.norm(reach)
    along = (distance**2 + lengths[0] ** 2 - lengths[1] ** 2) / (2 * distance)
    side = towards - axis * (towards @ axis)
    side /= np.linalg.norm(side)
    middle = root + axis * along + side * np.sqrt(max(lengths[0] ** 2 - along**2, 0.0))
    return middle, root + axis * distance


class _Limbs:
    """Collects tapering limbs and builds their mesh in one go."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []

    def add(
        self, start: Float, end: Float, radii: tuple[float, float], colour: Colour, widen: float = 1.0
    ) -> None:
        """A limb between two points (3,) with radii at both; `widen` stretches it to the sides."""
        self._rows.append((start, end, radii, colour, widen))

    def mesh(self, left: Float, sides: int) -> Mesh:
        """All limbs; `left` (3,) is the direction in which they are widened."""
        starts, ends, radii, colours, widen = (
            np.array(column, float) for column in zip(*self._rows, strict=True)
        )
        profile, faces = _limb_pattern(sides)
        along = ends - starts
        lengths = np.linalg.norm(along, axis=1)
        axis = along / lengths[:, None]
        side = left - axis * (axis @ left)[:, None]
        tilted = np.linalg.norm(side, axis=1) > 0.3
        x = np.where(tilted[:, None], side, frame_along(axis)[:, :, 0])
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        frames = np.stack([x, np.cross(axis, x), axis], 1)  # (L, 3 axes, xyz)
        wide = frames * np.stack([widen, np.ones_like(widen), np.ones_like(widen)], 1)[..., None]
        radius = np.where(profile[:, 3] > 0, radii[:, 1:], radii[:, :1])[..., None]
        local = profile[:, :3] * radius
        local[..., 2] += profile[:, 3] * lengths[:, None]
        points = starts[:, None] + local @ wide
        normals = profile[:, :3] @ frames
        count = len(starts) * len(faces)
        return Mesh(
            points[:, faces].reshape(count, 3, 3).astype(np.float32),
            normals[:, faces].reshape(count, 3, 3).astype(np.float32),
            np.repeat(colours, len(faces), axis=0).astype(np.float32),
            np.full(count, Material.MATTE, np.uint8),
            np.zeros((count, 3, 3), np.float32),
        )


def person(look: Look, joints: Float, sides: int = 8) -> Mesh:
    """Body of a person around posed joints.

    Args:
        look: height, build and colours.
        joints: (17, 3) in the person frame, order `JOINTS`.
        sides: of each limb; from 8 on its ends are rounded.
    """
    body = _Limbs()
    left = (joints[5] - joints[6]) / np.linalg.norm(joints[5] - joints[6])
    _add_trunk(body, look, joints)
    _add_head(body, look, joints)
    for side in (0, 1):
        _add_arm_and_leg(body, look, joints[5 + side :: 2])
    return body.mesh(left, sides)


def _add_trunk(body: _Limbs, look: Look, joints: Float) -> None:
    h, b = look.height_m, look.build
    shoulders, hips = joints[5:7].mean(0), joints[11:13].mean(0)
    up = (shoulders - hips) / np.linalg.norm(shoulders - hips)
    body.add(hips, hips + 0.05 * h * up, (0.06 * b * h, 0.06 * b * h), look.legs, 1.45)
    body.add(hips + 0.07 * h * up, shoulders - 0.055 * h * up, (0.058 * b * h, 0.066 * b * h), look.top, 1.5)
    body.add(joints[5], joints[6], (0.036 * h, 0.036 * h), look.top)
    body.add(shoulders - 0.01 * h * up, joints[3:5].mean(0), (0.032 * h, 0.03 * h), look.skin)


def _add_head(body: _Limbs, look: Look, joints: Float) -> None:
    h = look.height_m
    head = joints[3:5].mean(0)
    ahead = joints[0] - head
    up = head - joints[5:7].mean(0)
    up /= np.linalg.norm(up)
    crown = head + 0.022 * h * up - 0.16 * ahead
    cover = 0.067 * h if look.helmet else 0.056 * h
    body.add(head - 0.022 * h * up, head + 0.018 * h * up, (0.047 * h, 0.057 * h), look.skin)
    body.add(crown - 0.008 * h * up, crown + 0.012 * h * up, (cover, cover), look.hair)
    body.add(head + 0.6 * ahead, joints[0], (0.014 * h, 0.009 * h), look.skin)
    if look.long_hair and not look.helmet:
        back = head - 0.45 * ahead
        body.add(back, back - 0.07 * h * up, (0.05 * h, 0.04 * h), look.hair, 1.2)
    if look.eyes:
        for eye in joints[1:3]:
            body.add(eye, eye + 0.05 * ahead, (0.0065 * h, 0.004 * h), _EYE)


def _add_arm_and_leg(body: _Limbs, look: Look, chain: Float) -> None:
    """Limbs of one side; `chain` is its shoulder, elbow, wrist, hip, knee and ankle."""
    h, b = look.height_m, look.build
    shoulder, elbow, wrist, hip, knee, ankle = chain
    hand = wrist + (wrist - elbow) / np.linalg.norm(wrist - elbow) * 0.045 * h
    body.add(shoulder, elbow, (0.033 * b * h, 0.027 * b * h), look.top)
    body.add(elbow, wrist, (0.026 * b * h, 0.021 * h), look.skin if look.short_sleeves else look.top)
    body.add(wrist, hand, (0.018 * h, 0.021 * h), look.skin)
    body.add(hip, knee, (0.05 * b * h, 0.037 * b * h), look.legs)
    if look.skirt:
        body.add(hip, hip + 0.85 * (knee - hip), (0.056 * b * h, 0.068 * b * h), look.legs, 1.1)
    bare = look.short_legs or look.skirt
    body.add(knee, ankle, (0.035 * b * h, 0.027 * h), look.skin if bare else look.legs)
    shin = (ankle - knee) / np.linalg.norm(ankle - knee)
    toe = np.array([1.0, 0.0, 0.0]) - shin * shin[0]
    heel = ankle + 0.012 * h * shin
    body.add(heel, heel + toe / np.linalg.norm(toe) * 0.085 * h, (0.026 * h, 0.022 * h), SHOE)


@lru_cache(maxsize=4)
def _limb_pattern(sides: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Points of a unit capsule (x, y, z, which end 0 or 1) from tip to tip, and its triangles."""
    half = [(1.0, 0.0, 0.0), (1.0, 0.0, 1.0)]
    if sides >= 8:
        r, z = np.cos(np.pi / 3), np.sin(np.pi / 3)
        half = [(r, -z, 0.0), *half, (r, z, 1.0)]
    turn = np.arange(sides) * 2 * np.pi / sides
    points = [(0.0, 0.0, -1.0, 0.0)]
    points += [(r * np.cos(t), r * np.sin(t), z, end) for r, z, end in half for t in turn]
    points.append((0.0, 0.0, 1.0, 1.0))
    here = np.arange(sides)
    after = (here + 1) % sides
    faces = [np.stack([np.zeros(sides, int), 1 + after, 1 + here], 1)]
    for ring in range(len(half) - 1):
        low, high = 1 + ring * sides, 1 + (ring + 1) * sides
        faces.append(np.stack([low + here, low + after, high + after], 1))
        faces.append(np.stack([low + here, high + after, high + here], 1))
    last = 1 + (len(half) - 1) * sides
    faces.append(np.stack([last + here, last + after, np.full(sides, len(points) - 1)], 1))
    return np.array(points), np.concatenate(faces)
