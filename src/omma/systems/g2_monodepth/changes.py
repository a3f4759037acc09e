"""Joint changes of a picture and its depth maps: crop, resize, mirror; colours of the picture (spec 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from omma.data.formats.nuscenes_depth import scatter_nearest
from omma.data.formats.rgbd import Colour, Depth

DepthResize = Literal["auto", "bilinear", "nearest", "scatter"]
Size = tuple[int, int]
Window = tuple[int, int, int, int]  # top, left, height, width

CROP_AREA, CROP_RATIO = 0.64, (3 / 4, 4 / 3)
JITTER, HUE_RANGE = 0.2, (-0.1, 0.1)
_FULLY_KNOWN = 0.999  # of the resized validity; exactly 1 would leave it to the last bit when shrinking
_SPARSE = 0.5  # maps with a smaller known share lose everything between their points to bilinear resizing
_ATTEMPTS = 10
_LEVELS = np.arange(256.0)
_GREY = (0.299, 0.587, 0.114)


def draw_window(rng: np.random.Generator, file_size: Size, size: Size, *, area: float = CROP_AREA) -> Window:
    """A random window of `size`, and within it one with a share of its area and a ratio of 3/4 to 4/3.

    Args:
        rng: where the draws come from.
        file_size: (H, W) of the picture, at least `size`.
        size: (H, W) of the result.
        area: smallest such share.
    """
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(file_size, size, strict=True))
    for _ in range(_ATTEMPTS):
        pixels = size[0] * size[1] * rng.uniform(area, 1.0)
        ratio = math.exp(rng.uniform(*(math.log(bound) for bound in CROP_RATIO)))
        height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < height <= size[0] and 0 < width <= size[1]:
            inner_top = int(rng.integers(0, size[0] - height + 1))
            inner_left = int(rng.integers(0, size[1] - width + 1))
            return top + inner_top, left + inner_left, height, width
    return top, left, size[0], size[1]


def central_window(file_size: Size, size: Size) -> Window:
    """The largest window in the middle with the aspect of `size`."""
    scale = min(whole / part for whole, part in zip(file_size, size, strict=True))
    height, width = (min(whole, round(part * scale)) for whole, part in zip(file_size, size, strict=True))
    return (file_size[0] - height) // 2, (file_size[1] - width) // 2, height, width


def crop_resize_colour(image: Colour, window: Window, size: Size) -> Colour:
    """The window of (H, W, 3) uint8, resized bilinearly with antialiasing."""
    top, left, height, width = window
    cut = image[top : top + height, left : left + width]
    if (height, width) == size:
        return cut
    planes = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)
    return F.resize(planes, list(size), antialias=True).permute(1, 2, 0).numpy()


def crop_resize_depth(depth: Depth, window: Window, size: Size, how: DepthResize = "bilinear") -> Depth:
    """The window of a depth map, resized.

    Args:
        depth: (H, W), 0 where unknown.
        window: part of it.
        size: (H, W) of the result.
        how: "bilinear" keeps a pixel only where all its neighbours are known, as the reference does;
            "nearest" takes the nearest pixel; "scatter" carries every known pixel to its place, the smallest
            depth where several meet; "auto" is "scatter" where less than half is known, else "bilinear".
    """
    top, left, height, width = window
    cut = depth[top : top + height, left : left + width]
    if (height, width) == size:
        return cut
    if how == "auto":
        how = "scatter" if (cut > 0).mean() < _SPARSE else "bilinear"
    if how == "bilinear":
        return _masked_bilinear(cut, size)
    if how == "nearest":
        return cut[_nearest(height, size[0])][:, _nearest(width, size[1])]
    rows, columns = np.nonzero(cut)
    values = cut[rows, columns]
    return scatter_nearest(_places(rows, height, size[0]), _places(columns, width, size[1]), values, size)


def _masked_bilinear(cut: Depth, size: Size) -> Depth:
    known = (cut > 0).astype(np.float32)
    if all(part <= whole for part, whole in zip(cut.shape, size, strict=True)):
        # enlarging has nothing to antialias; OpenCV is several times faster at it
        resized, validity = (cv2.resize(values, size[::-1]) for values in (cut, known))
    else:
        planes = torch.from_numpy(np.stack([cut, known]))
        resized, validity = F.resize(planes, list(size), antialias=True).numpy()
    return np.where(validity > _FULLY_KNOWN, resized, np.float32(0))


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    return _places(np.arange(new), new, old)


def _places(index: NDArray[np.int64], old: int, new: int) -> NDArray[np.int64]:
    """Pixels of an axis of length `old` in one of length `new`, middle to middle."""
    return np.minimum((index + 0.5) * new / old, new - 1).astype(np.int64)


def changed_intrinsics(
    intrinsics: NDArray[np.float64], window: Window, size: Size, *, mirrored: bool
) -> NDArray[np.float64]:
    """Camera matrix (3, 3) of the changed picture; pixel 0 covers the interval from 0 to 1."""
    top, left, height, width = window
    changed = intrinsics.copy()
    changed[:2, 2] -= (left, top)
    changed[0] *= size[1] / width
    changed[1] *= size[0] / height
    if mirrored:
        changed[0, 2] = size[1] - changed[0, 2]
    return changed


def jitter_colours(
    image: Colour, rng: np.random.Generator, *, strength: float = JITTER, hue: bool = False
) -> Colour:
    """Brightness, contrast and saturation by factors about 1, in random order; the hue if wanted.

    Args:
        image: (H, W, 3) uint8.
        rng: where the draws come from.
        strength: how far a factor is from 1 at most.
        hue: turn the hue by up to a tenth of the circle too, as the guide does.
    """
    steps: list[Callable[[Colour, float], Colour]] = [_brighten, _set_contrast, _saturate]
    factors = [float(rng.uniform(1 - strength, 1 + strength)) for _ in steps]
    if hue:
        steps.append(_turn_hue)
        factors.append(float(rng.uniform(*HUE_RANGE)))
    image = np.ascontiguousarray(image)
    for step in rng.permutation(len(steps)):
        image = steps[step](image, factors[step])
    return image


def _brighten(image: Colour, factor: float) -> Colour:
    return _look_up(image, _LEVELS * factor)


def _set_contrast(image: Colour, factor: float) -> Colour:
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return _look_up(image, _LEVELS * factor + mean * (1 - factor))


def _look_up(image: Colour, levels: NDArray[np.float64]) -> Colour:
    return cv2.LUT(image, np.rint(levels.clip(0, 255)).astype(np.uint8))


def _saturate(image: Colour, factor: float) -> Colour:
    """Each channel between the pixel's grey and itself, or beyond."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.tile(_GREY, (3, 1)))


def _turn_hue(image: Colour, factor: float) -> Colour:
    planes = torch.from_numpy(image).permute(2, 0, 1)
    return np.ascontiguousarray(F.adjust_hue(planes, factor).permute(1, 2, 0).numpy())
