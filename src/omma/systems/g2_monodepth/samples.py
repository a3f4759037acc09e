"""RGB-D samples: a picture, its true depth and the input depth, all a function of (seed, epoch, index)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Sample, Samples
from omma.data.formats.rgbd import Colour, Depth, DepthSource, RgbdFrame
from omma.data.formats.rgbd_cache import CachedDepth
from omma.errors import DataError
from omma.systems.g2_monodepth.changes import (
    CROP_AREA,
    JITTER,
    DepthResize,
    Size,
    Window,
    central_window,
    changed_intrinsics,
    crop_resize_colour,
    crop_resize_depth,
    draw_window,
    jitter_colours,
)
from omma.systems.g2_monodepth.checks import name_factor
from omma.systems.g2_monodepth.degrade import Degradation, draw_relocation, make_raw, only_pattern
from omma.systems.g2_monodepth.patterns import MEASURED

_LEAST_REACH = 0.002  # of max_depth: a picture all of whose depths are nearer has the wrong units
_RULE = 20260  # of validation input: the same in every run, whatever its seed


class RgbdSamples(Samples):
    """What both halves share: reading, checking, and the tensors of a sample.

    A sample holds token, dataset and pattern (text); rgb (3, H, W) uint8; depth (true) and point (given),
    each (1, H, W) float32 normalised by max_depth, 0 where unknown; hole_point (1, H, W) float32, 1 where
    point is above 0; max_depth () float32 metres; intrinsics (3, 3) float32 of these pixels, NaN if unknown.

    Args:
        frames: what to read.
        size: (H, W) of the samples; None keeps each picture's own (batches of one).
    """

    def __init__(self, frames: Sequence[RgbdFrame], size: Size | None) -> None:
        self.frames, self.size = list(frames), size

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.frames[index].token

    def files(self) -> list[Path]:
        """See Samples."""
        return sorted({file for frame in self.frames for file in frame.files})

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; an error also names the sample."""
        try:
            return self._load(index, rng)
        except DataError as error:
            raise DataError(f"{error.message} (sample {self.name(index)})", error.hint) from None

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        raise NotImplementedError


class TrainingSamples(RgbdSamples):
    """Samples with random crops, mirroring, colours, and made or measured input depth.

    Args:
        frames: with true depth.
        size: (H, W).
        degradation: how input depth is made.
        depth_resize: see `crop_resize_depth`.
        crop_area: smallest share of a crop that is enlarged to its size.
        jitter: largest change of the colours.
        hue: random hues too.
        measured: chance that a frame's measured input depth is taken as it is, where it has one.
    """

    def __init__(
        self,
        frames: Sequence[RgbdFrame],
        size: Size,
        *,
        degradation: Degradation,
        depth_resize: DepthResize = "auto",
        crop_area: float = CROP_AREA,
        jitter: float = JITTER,
        hue: bool = False,
        measured: float = 1.0,
    ) -> None:
        super().__init__(frames, size)
        self.degradation, self.depth_resize = degradation, depth_resize
        self.crop_area, self.jitter, self.hue, self.measured = crop_area, jitter, hue, measured

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        frame = self.frames[index]
        raw = frame.raw if rng.random() < self.measured else None
        image = frame.image.read()
        size = self._size(frame, image)
        window = draw_window(rng, image.shape[:2], size, area=self.crop_area)
        mirrored = bool(rng.integers(0, 2))
        if frame.depth is None:
            raise _no_depth(frame.files[0])
        depths = [
            read_depth(frame, source, image, window, some=source is frame.depth)
            for source in (frame.depth, raw)
            if source is not None
        ]
        inside = (0, 0, *window[2:])
        maps = [crop_resize_depth(depth, inside, size, self.depth_resize) for depth in depths]
        image = crop_resize_colour(image, window, size)
        image = jitter_colours(image, rng, strength=self.jitter, hue=self.hue)
        if mirrored:
            image, maps = image[:, ::-1], [map_[:, ::-1] for map_ in maps]
        if self.degradation.relocate:
            factor = np.float32(draw_relocation(maps[0], rng))
            maps = [map_ * factor for map_ in maps]
        given = maps[1] if raw is not None else make_raw(maps[0], image, self.degradation, rng)
        pattern = MEASURED if raw is not None else self.degradation.pattern
        intrinsics = _intrinsics(frame, window, size, mirrored=mirrored)
        return _sample(frame, pattern, (image, maps[0], given), intrinsics)

    def _size(self, frame: RgbdFrame, image: Colour) -> Size:
        assert self.size is not None
        fitting = [min(whole, part) for whole, part in zip(image.shape, self.size, strict=False)]
        if tuple(fitting) != tuple(self.size):
            raise DataError(
                f"{frame.image.files[0]}: the picture is {image.shape[0]} x {image.shape[1]}, smaller than "
                f"the crop of {self.size[0]} x {self.size[1]}",
                f"set data.image_size={fitting}, or take small pictures out",
            )
        return self.size


class ValidationSamples(RgbdSamples):
    """Samples whose input depth is the same in every epoch and run: each picture with each pattern.

    Sample i shows picture i // P with pattern i % P of P patterns. Pictures are cut in the middle to the
    aspect of `size`; depths take the nearest pixel.

    Args:
        frames: with true depth, or, for prediction, without.
        size: (H, W); None keeps each picture's own.
        patterns: sparsity patterns; "measured" takes the input depth that belongs to the frame.
    """

    def __init__(self, frames: Sequence[RgbdFrame], size: Size | None, *, patterns: Sequence[str]) -> None:
        super().__init__(frames, size)
        self.patterns = tuple(patterns)

    def __len__(self) -> int:
        return len(self.frames) * len(self.patterns)

    def name(self, index: int) -> str:
        """See Samples; with several patterns TOKEN@PATTERN."""
        token, pattern = self.frames[index // len(self.patterns)].token, self.pattern(index)
        return token if len(self.patterns) == 1 else f"{token}@{pattern}"

    def pattern(self, index: int) -> str:
        """The pattern of a sample."""
        return self.patterns[index % len(self.patterns)]

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        sample = self.of_frame(index // len(self.patterns), [self.pattern(index)])[0]
        return sample | {"token": self.name(index)}

    def of_frame(self, place: int, patterns: Sequence[str]) -> list[Sample]:
        """One picture with each of several input depths; its files are read once.

        Args:
            place: of the frame.
            patterns: see the class; a sample's input is the same whatever other patterns there are.
        """
        frame = self.frames[place]
        image, depth, raw = read_arrays(frame, measured=MEASURED in patterns)
        size = self.size or (image.shape[0], image.shape[1])
        window = central_window(image.shape[:2], size)
        image = crop_resize_colour(image, window, size)
        depth = crop_resize_depth(depth, window, size, "nearest")
        measured = np.zeros_like(depth) if raw is None else crop_resize_depth(raw, window, size, "nearest")
        intrinsics = _intrinsics(frame, window, size)
        samples = []
        for pattern in patterns:
            fixed = np.random.default_rng([_RULE, zlib.crc32(f"{frame.token}@{pattern}".encode())])
            given = measured if pattern == MEASURED else make_raw(depth, image, only_pattern(pattern), fixed)
            samples.append(_sample(frame, pattern, (image, depth, given), intrinsics))
        return samples


def read_arrays(frame: RgbdFrame, *, measured: bool) -> tuple[Colour, Depth, Depth | None]:
    """Picture (H, W, 3) uint8, true depth and measured input depth (H, W), normalised by max_depth.

    True depth is 0 everywhere where the frame has none. Depths beyond max_depth count as unknown.

    Args:
        frame: what to read.
        measured: whether to read measured input depth, where the frame has it.

    Raises:
        DataError: a file is missing, damaged or not of the picture's size.
    """
    image = frame.image.read()
    maps = [
        None if source is None else read_depth(frame, source, image)
        for source in (frame.depth, frame.raw if measured else None)
    ]
    return image, np.zeros(image.shape[:2], np.float32) if maps[0] is None else maps[0], maps[1]


def read_depth(
    frame: RgbdFrame,
    source: DepthSource,
    image: Colour,
    window: Window | None = None,
    *,
    some: bool = False,
) -> Depth:
    """A depth map of a frame, or a window of it, normalised by max_depth; of a cache only the window is read.

    Args:
        frame: that it belongs to.
        source: what to read.
        image: the frame's picture, whose size the whole map must have.
        window: none takes the whole.
        some: whether the whole map must have a known depth.

    Raises:
        DataError: the map is missing, damaged, empty, not of the picture's size, or its units are wrong.
    """
    top, left, height, width = window or (0, 0, *image.shape[:2])
    if isinstance(source, CachedDepth):
        shape, whole = source.shape, np.array(source.extremes, np.float32)
        part = source.read_window((top, left, height, width))
    else:
        whole = source.read()
        shape, part = whole.shape, whole[top : top + height, left : left + width]
    file = source.files[0]
    if shape != image.shape[:2]:
        raise DataError(
            f"{file}: depth is {shape[0]} x {shape[1]}, the picture "
            f"{frame.image.files[0]} {image.shape[0]} x {image.shape[1]}",
            "both must have one size: resize depth with the nearest neighbour, or register it",
        )
    if some and not whole.any():
        raise _no_depth(file)
    _check_range(whole[whole > 0], frame.max_depth_m, file)
    scaled = part / np.float32(frame.max_depth_m)
    return np.where(scaled <= 1, scaled, np.float32(0))


def _no_depth(file: Path) -> DataError:
    return DataError(
        f"{file}: no depth is known in it, all are 0", "leave the picture out, or write its depth again"
    )


def _check_range(known: Depth, max_depth_m: float, path: Path) -> None:
    """Refuse known depths of a picture that lie all beyond, or all far below, max_depth."""
    if known.size and (known.min() > max_depth_m or known.max() < _LEAST_REACH * max_depth_m):
        wrong = "exceed" if known.min() > max_depth_m else f"are below {_LEAST_REACH:.1%} of"
        raise DataError(
            f"{path}: all depths {wrong} max_depth {max_depth_m:g} m, from {known.min():.3g} to "
            f"{known.max():.3g} m",
            name_factor(known, max_depth_m) or "set data.max_depth to what the data set holds",
        )


def _intrinsics(
    frame: RgbdFrame, window: tuple[int, int, int, int], size: Size, *, mirrored: bool = False
) -> NDArray[np.float64]:
    if frame.intrinsics is None:
        return np.full((3, 3), np.nan)
    return changed_intrinsics(frame.intrinsics, window, size, mirrored=mirrored)


def _sample(
    frame: RgbdFrame, pattern: str, arrays: tuple[Colour, Depth, Depth], intrinsics: NDArray[np.float64]
) -> Sample:
    image, depth, given = arrays
    point = torch.from_numpy(np.ascontiguousarray(given, np.float32))[None]
    return {
        "token": frame.token,
        "dataset": frame.dataset,
        "pattern": pattern,
        "rgb": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "depth": torch.from_numpy(np.ascontiguousarray(depth, np.float32))[None],
        "point": point,
        "hole_point": (point > 0).float(),
        "max_depth": torch.tensor(frame.max_depth_m, dtype=torch.float32),
        "intrinsics": torch.from_numpy(intrinsics.astype(np.float32)),
    }


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack the tensors of samples along a new first axis; texts become lists.

    Raises:
        DataError: pictures of a batch differ in size.
    """
    sizes = {tuple(sample["rgb"].shape[1:]) for sample in samples}
    if len(sizes) > 1:
        listed = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise DataError(
            f"pictures of one batch have sizes {listed}, first {samples[0]['token']}",
            "set data.image_size, or evaluate with batches of one",
        )
    return {
        key: torch.stack([sample[key] for sample in samples])
        if isinstance(value, torch.Tensor)
        else [sample[key] for sample in samples]
        for key, value in samples[0].items()
    }


@dataclass(frozen=True)
class FillingCollate:
    """Collates samples and adds filled (B, 1, H, W), their given depths with the pixels between filled in.

    Args:
        fill: makes a whole map (H, W) of one with zeros.
    """

    fill: Callable[[Depth], Depth]

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """See the class."""
        batch = collate(samples)
        filled = [torch.from_numpy(self.fill(point[0].numpy()))[None] for point in batch["point"]]
        return batch | {"filled": torch.stack(filled)}
