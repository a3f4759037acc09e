"""Random changes of a person in training: where the crop lies, which way it faces, how much it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omma.core.keypoints import UPPER, mirrored_order
from omma.systems.sdpose.config import AugmentSection
from omma.systems.sdpose.crops import UNIT_PX, Points, Size, place_box

_MANY_JOINTS = 8  # people with more may be cut to a half
_HALF_PADDING = 1.5
_FEWEST_PREFERRED = 2  # a half with more joints is taken as drawn
_FEWEST = 2
_LARGEST_ROTATION = 2.0  # standard deviations


class Random(Protocol):
    """The draws that are needed; `numpy.random.Generator` and `RandomState` have them."""

    def random(self) -> float:
        """A number of [0, 1)."""
        ...

    def uniform(self, low: float, high: float, size: int) -> NDArray[np.float64]:
        """Numbers of [low, high)."""
        ...

    def standard_normal(self) -> Any:
        """A normal number."""
        ...


@dataclass(frozen=True)
class Placed:
    """A person and the crop around it.

    Args:
        center: (2,) x, y of the crop's centre in pixels of the image.
        scale: (2,) width, height of the crop in the image over 200 pixels.
        joints: (K, 3) x, y in pixels of the image and 0 for absent, 1 for hidden, 2 for seen.
        rotation_deg: of the crop.
        mirrored: whether the image is mirrored; all else belongs to the mirrored one then.
    """

    center: Points
    scale: NDArray[np.floating]
    joints: Points
    rotation_deg: float = 0.0
    mirrored: bool = False


def change(person: Placed, rng: Random, settings: AugmentSection, *, image_width: int, size: Size) -> Placed:
    """All changes in the reference's order, with its draws.

    Args:
        person: as annotated.
        rng: where the draws come from.
        settings: how much and how often.
        image_width: pixels of the image.
        size: (H, W) of the crop.
    """
    person = shift(person, rng, settings)
    if rng.random() <= settings.flip_chance:
        person = mirror(person, image_width)
    many = (person.joints[:, 2] > 0).sum() > _MANY_JOINTS
    if many and rng.random() < settings.half_body_chance:
        person = take_half(person, rng, settings, size)
    return zoom_and_turn(person, rng, settings)


def shift(person: Placed, rng: Random, settings: AugmentSection) -> Placed:
    """Move the centre by up to `shift` crop sides along x and y, with a chance."""
    if rng.random() >= settings.shift_chance:
        return person
    step = rng.uniform(-1.0, 1.0, 2) * settings.shift * person.scale * UNIT_PX
    return replace(person, center=(person.center + step).astype(np.float32))


def mirror(person: Placed, image_width: int) -> Placed:
    """Left to right, with left and right joints swapped; absent joints lie at 0, 0."""
    joints = person.joints[mirrored_order()]
    joints[:, 0] = image_width - 1 - joints[:, 0]
    joints[joints[:, 2] == 0] = 0
    center = np.array([image_width - 1 - person.center[0], person.center[1]], np.float32)
    return replace(person, center=center, joints=joints, mirrored=not person.mirrored)


def take_half(person: Placed, rng: Random, settings: AugmentSection, size: Size) -> Placed:
    """Crop to the joints of the upper or the lower body; a person of fewer than two joints there stays."""
    present = np.flatnonzero(person.joints[:, 2] > 0)
    is_upper = np.isin(present, UPPER)
    upper, lower = present[is_upper], present[~is_upper]
    drawn = rng.standard_normal() if settings.half_body_draw == "published" else rng.random()
    chosen = upper
    if not (drawn < 0.5 and len(upper) > _FEWEST_PREFERRED) and len(lower) > _FEWEST_PREFERRED:
        chosen = lower
    if len(chosen) < _FEWEST:
        return person
    places = person.joints[chosen, :2]
    low, high = places.min(0), places.max(0)
    scale = place_box(np.concatenate([low, high - low]), size, _HALF_PADDING)[1]
    return replace(person, center=places.mean(0), scale=scale)


def zoom_and_turn(person: Placed, rng: Random, settings: AugmentSection) -> Placed:
    """A normal factor of the crop's size, and with a chance a normal angle; both are limited."""
    spread, angle = settings.scale, settings.rotation_deg
    factor = np.clip(rng.standard_normal() * spread + 1, 1 - spread, 1 + spread)
    limit = _LARGEST_ROTATION * angle
    turn = float(np.clip(rng.standard_normal() * angle, -limit, limit))
    turned = rng.random() <= settings.rotation_chance
    return replace(person, scale=person.scale * factor, rotation_deg=turn if turned else 0.0)
