"""What every RGB-D reader produces: one RgbdFrame a picture, with readers of its colour and its depth.

Depth is along the optical axis, in metres, float32 (H, W); 0 is unknown. A source reads when asked, pickles,
and knows its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omma.data.io import image_size, read_bytes, read_image, read_npy, read_npz, read_picture
from omma.errors import DataError

MILLIMETRES, KITTI = 1000.0, 256.0  # stored value of one metre
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
DEPTH_SUFFIXES = (".png", ".npy", ".npz")
DEPTH_KEY = "depth"

Colour = NDArray[np.uint8]
Depth = NDArray[np.float32]


class ColourSource(Protocol):
    """Where a colour image comes from."""

    def read(self) -> Colour:
        """(H, W, 3) uint8 RGB."""
        ...

    def size(self) -> tuple[int, int]:
        """(H, W) without reading the pixels."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is made of."""
        ...


class DepthSource(Protocol):
    """Where a depth map comes from."""

    def read(self) -> Depth:
        """(H, W) float32 metres, finite, 0 where unknown."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is made of."""
        ...


@dataclass(frozen=True)
class RgbdFrame:
    """One picture with its depth.

    Args:
        token: unique name.
        dataset: name of the data set, for tables over several.
        image: colour source.
        depth: true depth; none for pictures to predict.
        max_depth_m: depth that the data set counts as 1 when it is normalised.
        raw: measured input depth of the same picture; none where the input is made from the true depth.
        intrinsics: (3, 3) in pixels of the image, where known.
    """

    token: str
    dataset: str
    image: ColourSource
    depth: DepthSource | None
    max_depth_m: float
    raw: DepthSource | None = None
    intrinsics: NDArray[np.float64] | None = None

    @property
    def files(self) -> list[Path]:
        """Every file of the frame."""
        sources = [source for source in (self.image, self.depth, self.raw) if source is not None]
        return [file for source in sources for file in source.files]


@dataclass(frozen=True)
class ImageFile:
    """A colour image in a file of its own.

    Args:
        path: the file.
        rows: keep only so many rows at the bottom; none keeps all.
    """

    path: Path
    rows: int | None = None

    def read(self) -> Colour:
        """See ColourSource."""
        image = read_image(self.path)
        return image if self.rows is None else image[-self.rows :]

    def size(self) -> tuple[int, int]:
        """See ColourSource."""
        height, width = image_size(self.path)
        return (height if self.rows is None else min(self.rows, height)), width

    @property
    def files(self) -> Sequence[Path]:
        """See ColourSource."""
        return (self.path,)


@dataclass(frozen=True)
class DepthFile:
    """A depth map in a file of its own: a 16-bit picture, .npy, or .npz with the array `depth`.

    Args:
        path: the file.
        units_per_metre: stored value of one metre.
        rows: keep only so many rows at the bottom; none keeps all.
    """

    path: Path
    units_per_metre: float
    rows: int | None = None

    def read(self) -> Depth:
        """See DepthSource.

        Raises:
            DataError: the file is missing, damaged or 8-bit, or holds NaN or values below 0.
        """
        depth = self._read_all()
        return depth if self.rows is None else depth[-self.rows :]

    def _read_all(self) -> Depth:
        if self.path.suffix.lower() == ".png":
            return checked_depth(read_picture(self.path), str(self.path), self.units_per_metre)
        units = read_npz(self.path, DEPTH_KEY) if self.path.suffix.lower() == ".npz" else read_npy(self.path)
        return checked_depth(units, str(self.path), self.units_per_metre)

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


@dataclass(frozen=True)
class StoredImage:
    """A colour image in a file that holds more.

    Args:
        path: the file.
        key: what the file calls it.
        load: reads the array of a file under a key; a function of a module, which worker processes can load.
    """

    path: Path
    key: str
    load: Callable[[Path, str], NDArray[Any]]

    def read(self) -> Colour:
        """See ColourSource."""
        return checked_colour(self.load(self.path, self.key), f"{self.path}, {self.key}")

    def size(self) -> tuple[int, int]:
        """See ColourSource; the whole file has to be read."""
        height, width = self.read().shape[:2]
        return height, width

    @property
    def files(self) -> Sequence[Path]:
        """See ColourSource."""
        return (self.path,)


@dataclass(frozen=True)
class StoredDepth:
    """A depth map in metres in a file that holds more.

    Args:
        path: the file.
        key: what the file calls it.
        load: see StoredImage.
    """

    path: Path
    key: str
    load: Callable[[Path, str], NDArray[Any]]

    def read(self) -> Depth:
        """See DepthSource."""
        return checked_depth(self.load(self.path, self.key), f"{self.path}, {self.key}")

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


def checked_colour(image: NDArray[Any], where: str) -> Colour:
    """An array that has to be a picture (H, W, 3) uint8; `where` is for messages.

    Raises:
        DataError: it is none.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"{where}: shape {image.shape} of {image.dtype}, expected (H, W, 3) uint8")
    return image


def checked_depth(units: NDArray[Any], where: str, units_per_metre: float = 1.0) -> Depth:
    """Stored numbers as metres.

    Args:
        units: (H, W), or with axes of one element besides.
        where: file and place, for messages.
        units_per_metre: stored value of one metre.

    Raises:
        DataError: it is no map of numbers, has eight bits only, or a value is NaN, infinite or below 0.
    """
    depth = units.squeeze() if units.ndim > 2 else units
    hint = "store 16-bit units or float32 metres; a coloured or grey picture of depth is no depth"
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        channels = f", {depth.shape[2]} channels" if depth.ndim == 3 else ""
        raise DataError(
            f"{where}: depth has shape {units.shape} of {units.dtype}{channels}, expected (H, W) numbers",
            hint,
        )
    if depth.dtype.itemsize == 1:
        raise DataError(f"{where}: depth has {depth.dtype} values, expected a 16-bit depth picture", hint)
    bad = ~np.isfinite(depth)
    if bad.any():
        raise DataError(
            f"{where}: {int(bad.sum())} of {depth.size} depths are NaN or infinite",
            "write 0 where depth is unknown",
        )
    if depth.size and depth.min() < 0:
        raise DataError(f"{where}: depth goes down to {depth.min():g}", "write 0 where depth is unknown")
    return (depth / np.float32(units_per_metre)).astype(np.float32)


def find_files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder by their path in it without suffix, with forward slashes, sorted.

    Raises:
        DataError: two files differ in their suffix alone.
    """
    found: dict[str, Path] = {}
    wanted = set(suffixes)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in wanted or not path.is_file():
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same name", "keep one of the two")
        found[stem] = path
    return found


def pair_by_stem(
    images: dict[str, Path], depths: dict[str, Path], where: Path
) -> list[tuple[str, Path, Path]]:
    """(stem, image, depth) of every image, paired by name and not by order.

    Raises:
        DataError: there is no image, or an image has no depth.
    """
    if not images:
        raise DataError(f"{where}: has no image ({', '.join(IMAGE_SUFFIXES)})")
    missing = [stem for stem in images if stem not in depths]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(images)} images have no depth, first {missing[0]}",
            "an image and its depth have the same name below rgb/ and depth/; take images without depth out",
        )
    return [(stem, path, depths[stem]) for stem, path in images.items()]


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """Camera matrix (3, 3) of a text file of 9 or 12 numbers, row by row.

    Raises:
        DataError: the file is missing or holds something else.
    """
    return parse_intrinsics(read_bytes(path).decode("utf-8", "replace"), str(path))


def parse_intrinsics(text: str, where: str) -> NDArray[np.float64]:
    """Camera matrix (3, 3) of 9 or 12 numbers, row by row; `where` is for messages.

    Raises:
        DataError: it is another text.
    """
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise DataError(f"{where}: not a text of numbers") from None
    if len(numbers) not in (9, 12):
        raise DataError(f"{where}: holds {len(numbers)} numbers, expected 9 (3 x 3) or 12 (3 x 4)")
    return np.array(numbers, np.float64).reshape(3, -1)[:, :3]
