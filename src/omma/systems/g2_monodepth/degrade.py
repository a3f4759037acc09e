"""Making the input depth out of the true depth: noise, blur, holes, outliers, sparsity (spec 4.2).

Depths are normalised, 1 is max_depth, 0 is unknown. All that is random comes from the generator passed.
"code" is what the reference's program does, "guide" what its description says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Colour, Depth
from omma.data.io import read_grey
from omma.systems.g2_monodepth.patterns import ARTEFACTS, Part, draw_keep, parse_pattern, thin

Style = Literal["code", "guide"]
Rng = np.random.Generator
Mask = NDArray[np.bool_]

RELOCATION = (0.8, 1.2)
CODE_SIGMA, GUIDE_SIGMA = (0.01, 0.1), (0.01, 0.05)
BLUR_FACTORS, BLUR_KERNELS = (2, 4, 8, 16), (3, 5, 7)
FEWEST_TO_BLUR = 0.5  # known share; of a sparse map the reference's blur leaves a few wrong blocks
HOLE_SIDE = (0.05, 0.2)
_MOST_RECTANGLES = 8
_TURN_DEG, _SHIFT, _SCALE, _SHEAR_DEG = 180.0, 0.5, (0.5, 4.0), 60.0
_OUTLIER_RANGE = (10, 90)  # percentiles of the picture's depths


@dataclass(frozen=True)
class Degradation:
    """How input depth is made.

    Args:
        style: variant of noise, blur and holes.
        pattern: which depths are kept, and artefacts that are certain; see `patterns`.
        noise: chance of noise.
        blur: chance of blur; with style "code" it is certain where the pattern keeps everything.
        holes: chance of holes.
        outliers: largest share of depths replaced by others of the picture's range.
        relocate: whether true depths are scaled by 0.8 to 1.2 first.
        hole_maps: pictures of holes (0) and no holes (255); none: random rectangles.
    """

    style: Style = "code"
    pattern: str = "mixture"
    noise: float = 0.5
    blur: float = 0.5
    holes: float = 0.8
    outliers: float = 0.0
    relocate: bool = True
    hole_maps: tuple[Path, ...] = ()


GUIDE = Degradation(style="guide", pattern="percent", holes=0.5, relocate=False)


def only_pattern(pattern: str) -> Degradation:
    """No artefact but those that the pattern names, for validation."""
    return Degradation(pattern=pattern, noise=0, blur=0, holes=0, relocate=False)


def relocation_range(depth: Depth) -> tuple[float, float]:
    """Bounds of the factor of all depths, so that none exceeds 1 unless it does already."""
    largest = float(depth.max(initial=0.0))
    return RELOCATION[0], RELOCATION[1] if largest == 0 else min(RELOCATION[1], max(1.0, 1 / largest))


def draw_relocation(depth: Depth, rng: Rng) -> float:
    """A factor for all depths of a picture."""
    return float(rng.uniform(*relocation_range(depth)))


def make_raw(depth: Depth, image: Colour, settings: Degradation, rng: Rng) -> Depth:
    """Input depth out of true depth.

    Args:
        depth: (H, W) normalised true depth.
        image: (H, W, 3) uint8, for patterns of key points.
        settings: what is done.
        rng: where the draws come from.

    Returns:
        (H, W) float32 in [0, 1], 0 where nothing is given.
    """
    parts = parse_pattern(settings.pattern).draw(rng)
    names = {part.name for part in parts}
    if "none" in names:
        return np.zeros_like(depth)
    settings = replace(settings, **{name: 1.0 for name in ("noise", "blur", "holes") if name in names})
    artefacts = _code_artefacts if settings.style == "code" else _guide_artefacts
    raw = artefacts(depth, settings, rng, names - set(ARTEFACTS) == {"full"})
    share = _outlier_share(parts, settings, rng)
    if share:
        raw = add_outliers(raw, share, rng)
    return np.where(draw_keep(parts, raw, image, rng), raw, np.float32(0))


def _outlier_share(parts: Sequence[Part], settings: Degradation, rng: Rng) -> float:
    """The pattern's share, else one up to the settings' largest."""
    for part in parts:
        if part.name == "outliers":
            return part.draw(rng, 0.0)
    return float(rng.uniform(0, settings.outliers)) if settings.outliers else 0.0


def _code_artefacts(depth: Depth, settings: Degradation, rng: Rng, dense: bool) -> Depth:
    raw = depth
    if rng.random() < settings.noise:
        field = rng.normal(0.0, rng.uniform(*CODE_SIGMA), depth.shape)
        raw = add_noise(raw, field, rng.random(depth.shape), float(rng.random()))
    blurred = rng.random() < (1.0 if dense and settings.blur else settings.blur)
    if blurred and (depth > 0).mean() >= FEWEST_TO_BLUR:
        raw = blur_nearest(raw, int(rng.choice(BLUR_FACTORS)))
    raw = np.clip(raw, 0, 1).astype(np.float32)
    if rng.random() < settings.holes:
        raw = np.where(draw_holes(depth.shape, settings.hole_maps, rng), np.float32(0), raw)
    return raw


def _guide_artefacts(depth: Depth, settings: Degradation, rng: Rng, dense: bool) -> Depth:
    raw = depth
    if rng.random() < settings.holes:
        raw = np.where(rectangles(depth.shape, 1, rng), np.float32(0), raw)
    if rng.random() < settings.noise:
        raw = raw * (1 + rng.normal(0.0, rng.uniform(*GUIDE_SIGMA), depth.shape))
    if rng.random() < settings.blur:
        raw = blur_gaussian(raw.astype(np.float32), int(rng.choice(BLUR_KERNELS)))
    return np.clip(raw, 0, 1).astype(np.float32)


def add_noise(
    depth: Depth, field: NDArray[np.floating], uniform: NDArray[np.floating], zero_rate: float
) -> NDArray[np.floating]:
    """The reference's noise: a field, thinned, on known pixels; values may leave [0, 1].

    Args:
        depth: (..., H, W), 0 where unknown.
        field: what is added.
        uniform: numbers of [0, 1); where they exceed `zero_rate` the field counts.
        zero_rate: share of the field that is dropped.
    """
    return depth + field * (thin(uniform, zero_rate) & (depth > 0))


def blur_nearest(depth: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """The reference's blur: every `factor`-th pixel, spread; unknown pixels may become known.

    Args:
        depth: (..., H, W), each side at least `factor`.
        factor: of the sides, rounded down to whole pixels.
    """
    rows, columns = (_coarse_index(side, max(1, side // factor)) for side in depth.shape[-2:])
    return depth[..., rows[:, None], columns]


def _coarse_index(side: int, coarse: int) -> NDArray[np.int64]:
    """Pixel that each takes its value from, by way of an axis with `coarse` pixels."""
    down = np.floor(np.arange(coarse) * (side / coarse)).astype(np.int64)
    up = np.floor(np.arange(side) * (coarse / side)).astype(np.int64)
    return down[up]


def blur_gaussian(depth: Depth, kernel: int) -> Depth:
    """The guide's blur with sigma kernel / 3, over known pixels only; unknown ones stay unknown."""
    known = (depth > 0).astype(np.float32)
    sums, weights = (
        cv2.GaussianBlur(values, (kernel, kernel), kernel / 3)
        for values in (np.ascontiguousarray(depth), known)
    )
    return np.where(known > 0, sums / np.maximum(weights, 1e-6), 0).astype(np.float32)


def add_outliers(depth: Depth, share: float, rng: Rng) -> Depth:
    """Replace a share of the known depths by numbers between their 10th and 90th percentile."""
    known = depth > 0
    if not known.any():
        return depth
    chosen = known & (rng.random(depth.shape) < share)
    low, high = np.percentile(depth[known], _OUTLIER_RANGE)
    return np.where(chosen, rng.uniform(low, high, depth.shape), depth).astype(np.float32)


def draw_holes(size: tuple[int, ...], hole_maps: Sequence[Path], rng: Rng) -> Mask:
    """Random holes (H, W): a map of the library, or rectangles, cropped, turned, sheared and mirrored.

    Raises:
        DataError: the map is damaged.
    """
    height, width = size
    if hole_maps:
        holes = _crop_holes(
            read_grey(hole_maps[int(rng.integers(len(hole_maps)))]) == 0, (height, width), rng
        )
    else:
        holes = rectangles(size, int(rng.integers(1, _MOST_RECTANGLES + 1)), rng)
    matrix = _random_affine((height, width), rng)
    turned = cv2.warpAffine(holes.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    return turned[::-1] if rng.random() < 0.5 else turned


def _crop_holes(holes: Mask, size: tuple[int, int], rng: Rng) -> Mask:
    """A random window; a map that is too small is enlarged first."""
    scale = max(1.0, *(part / whole for part, whole in zip(size, holes.shape, strict=True)))
    if scale > 1:
        larger = tuple(max(part, round(side * scale)) for part, side in zip(size, holes.shape, strict=True))
        resized = cv2.resize(holes.astype(np.uint8), larger[::-1], interpolation=cv2.INTER_NEAREST)
        holes = resized > 0
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(holes.shape, size, strict=True))
    return holes[top : top + size[0], left : left + size[1]]


def _random_affine(size: tuple[int, int], rng: Rng) -> NDArray[np.float64]:
    """Turn, shift, scale and shear along x about the picture's middle, (2, 3)."""
    height, width = size
    angle, shear = (
        np.radians(rng.uniform(-_TURN_DEG, _TURN_DEG)),
        np.radians(rng.uniform(-_SHEAR_DEG, _SHEAR_DEG)),
    )
    shift = [rng.uniform(-_SHIFT, _SHIFT) * side for side in (width, height)]
    cos, sin = np.cos(angle), np.sin(angle)
    linear = (
        rng.uniform(*_SCALE) * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, np.tan(shear)], [0, 1]])
    )
    middle = np.array([width / 2, height / 2])
    return np.column_stack([linear, middle + shift - linear @ middle])


def rectangles(size: tuple[int, ...], number: int, rng: Rng) -> Mask:
    """Upright rectangles with sides of 5 to 20 % of the picture's, (H, W), true inside."""
    holes = np.zeros(size, bool)
    for _ in range(number):
        sides = [max(1, round(rng.uniform(*HOLE_SIDE) * side)) for side in size]
        top, left = (int(rng.integers(0, side - own + 1)) for side, own in zip(size, sides, strict=True))
        holes[top : top + sides[0], left : left + sides[1]] = True
    return holes
