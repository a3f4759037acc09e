"""Which known depths are given to the network: sparsity patterns, written as text (spec 4.3).

A pattern is `NAME`, `NAME:NUMBER` or `NAME:LOW~HIGH` (drawn between them); `A&B` keeps what both keep;
`A with noise and holes` also spoils the depths, for certain; `0.5*uniform:100~2000+0.5*lidar` draws one of
several. Numbers with % are shares. Names:

    none, full              nothing, everything
    uniform:1%              each known pixel with this chance; a number without % is a count of pixels
    percent:0~100           a whole percentage of the known pixels, exactly that many (the guide)
    lidar:8, lidar          the scan pattern with so many lines; without a number a random scanner
    sift, orb               key points of the picture; 500 random pixels where there are fewer than 20
    grid:16                 every 16th pixel both ways
    rows:16                 so many of 64 bands of rows, evenly spread
    sector:25%, bottom:25%  all but a random range of columns, all but the lowest rows

and behind `with`: noise, blur, holes (as training makes them) and outliers:10% (that share of the depths).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Colour, Depth
from omma.errors import ConfigError

if TYPE_CHECKING:
    import cv2

Keep = NDArray[np.bool_]
Rng = np.random.Generator

MIXTURE = "0.2*full+0.2*uniform:10%~100%+0.2*uniform:0%~10%+0.4*none"  # the reference's training
PERCENT = "percent:0~100"  # the guide's
MEASURED = "measured"  # not made at all: the input depth that belongs to the picture
_NAMED = {"mixture": MIXTURE, "percent": PERCENT}

FEWEST_KEY_POINTS, INSTEAD_OF_KEY_POINTS = 20, 500
SCAN_COLUMNS, SCAN_PITCH, SCAN_YAW = 200, 0.5, np.pi / 2.1
_BANDS = 64
ARTEFACTS = ("noise", "blur", "holes", "outliers")
_TERM = re.compile(r"(?P<name>[a-z]+)(:(?P<low>[\d.]+)(?P<lu>%?)(~(?P<high>[\d.]+)(?P<hu>%?))?)?")


@dataclass(frozen=True)
class Part:
    """One name with its range.

    Args:
        name: of the pattern.
        low: smallest number; None where none is given.
        high: largest number.
        share: whether the numbers were given with %, and are shares now.
    """

    name: str
    low: float | None = None
    high: float | None = None
    share: bool = False

    def draw(self, rng: Rng, default: float) -> float:
        """A number of the range."""
        if self.low is None or self.high is None:
            return default
        return self.low if self.low == self.high else float(rng.uniform(self.low, self.high))

    def draw_whole(self, rng: Rng, default: int) -> int:
        """A whole number of the range, both ends included."""
        if self.low is None or self.high is None:
            return default
        return int(rng.integers(int(self.low), int(self.high) + 1))


@dataclass(frozen=True)
class Choice:
    """Patterns that one is drawn of.

    Args:
        weights: chances, sum 1.
        patterns: parts of each; what all its parts keep is kept. Artefacts are parts too.
    """

    weights: tuple[float, ...]
    patterns: tuple[tuple[Part, ...], ...]

    def draw(self, rng: Rng) -> tuple[Part, ...]:
        """The parts of one pattern."""
        if len(self.patterns) == 1:
            return self.patterns[0]
        return self.patterns[int(rng.choice(len(self.weights), p=self.weights))]


@lru_cache(maxsize=64)
def parse_pattern(text: str) -> Choice:
    """The patterns that a text names.

    Raises:
        ConfigError: it cannot be read, a name is unknown or a range is empty.
    """
    weights, patterns = [], []
    for term in _NAMED.get(text, text).split("+"):
        weight, star, rest = term.rpartition("*")
        try:
            weights.append(float(weight) if star else 1.0)
        except ValueError:
            raise ConfigError(f"pattern {text!r}: {weight.strip()!r} is no weight", _HELP) from None
        names, *artefacts = re.split(r"\s+with\s+|\s+and\s+", rest.strip())
        keepers = [_parse_part(part, text, _KEEPERS) for part in names.split("&")]
        patterns.append((*keepers, *(_parse_artefact(part, text) for part in artefacts)))
    total = sum(weights)
    if not total > 0 or min(weights) < 0:
        raise ConfigError(f"pattern {text!r}: weights must not be negative, nor all 0")
    return Choice(tuple(weight / total for weight in weights), tuple(patterns))


def _parse_part(part: str, text: str, names: Collection[str]) -> Part:
    match = _TERM.fullmatch(part.replace(" ", ""))
    if match is None or match["name"] not in names:
        raise ConfigError(f"pattern {text!r}: {part!r} is unknown", _HELP)
    if match["low"] is None:
        return Part(match["name"])
    share = bool(match["lu"])
    if match["high"] is not None and bool(match["hu"]) != share:
        raise ConfigError(f"pattern {text!r}: in {part!r} both numbers or none need a %")
    scale = 0.01 if share else 1.0
    low = float(match["low"]) * scale
    high = low if match["high"] is None else float(match["high"]) * scale
    if high < low or (share and high > 1):
        raise ConfigError(f"pattern {text!r}: the range of {part!r} is empty or exceeds 100 %")
    return Part(match["name"], low, high, share)


def _parse_artefact(part: str, text: str) -> Part:
    found = _parse_part(part, text, ARTEFACTS)
    if found.name == "outliers" and not found.share:
        raise ConfigError(f"pattern {text!r}: {part!r} needs a share, such as outliers:10%")
    if found.name != "outliers" and found.low is not None:
        raise ConfigError(f"pattern {text!r}: {part!r}: {found.name} takes no number")
    return found


def draw_keep(parts: tuple[Part, ...], depth: Depth, image: Colour, rng: Rng) -> Keep:
    """The pixels (H, W) that all parts of a pattern keep; artefacts keep all.

    Args:
        parts: of one pattern.
        depth: (H, W), 0 where unknown; unknown pixels may be kept, they stay unknown.
        image: (H, W, 3) uint8, for key points.
        rng: where the draws come from.
    """
    known = depth > 0
    keep = np.ones(depth.shape, bool)
    for part in parts:
        if part.name in _KEEPERS:
            keep &= _KEEPERS[part.name](part, known, image, rng)
    return keep


def thin(uniform: NDArray[np.floating], zero_rate: float) -> Keep:
    """Where uniform numbers of [0, 1) exceed the rate."""
    return uniform > zero_rate


def _none(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    return np.zeros_like(known)


def _full(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    return np.ones_like(known)


def _uniform(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    if part.share or part.low is None:
        return thin(rng.random(known.shape, np.float32), 1 - part.draw(rng, 1.0))
    return _some(known, part.draw_whole(rng, 0), rng)


def _percent(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    return _some(known, int(known.sum()) * part.draw_whole(rng, 100) // 100, rng)


def _some(known: Keep, number: int, rng: Rng) -> Keep:
    """Exactly so many known pixels, or all where there are fewer."""
    places = np.flatnonzero(known)
    keep = np.zeros(known.size, bool)
    keep[rng.choice(places, min(number, len(places)), replace=False)] = True
    return keep.reshape(known.shape)


def _lidar(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    if part.low is not None:
        return scan_pattern(known.shape, part.draw_whole(rng, 0))
    return _random_scan(known.shape, rng)


def scan_pattern(size: tuple[int, ...], lines: int) -> Keep:
    """Pixels (H, W) of the scan pattern that methods are compared on: 200 columns, given number of lines."""
    height, width = size
    pitch = np.linspace(-SCAN_PITCH, SCAN_PITCH, lines)
    yaw = np.linspace(-SCAN_YAW, SCAN_YAW, SCAN_COLUMNS)
    return _project_scan(pitch, yaw, (height, (width / 2, height / 2)), (height, width))


def _random_scan(size: tuple[int, ...], rng: Rng) -> Keep:
    height, width = size
    camera = rng.uniform(1.5, 2.0) * height, (rng.uniform(-0.5, 1.5) * width, rng.uniform(0.5, 0.7) * height)
    pitch = np.linspace(rng.uniform(-0.2, -0.15), rng.uniform(0.25, 0.30), int(rng.integers(8, 64)))
    yaw = np.linspace(-SCAN_YAW, SCAN_YAW, int(rng.integers(400, 1000)))
    return _project_scan(pitch, yaw, camera, (height, width))


def _project_scan(
    pitch: NDArray[np.float64],
    yaw: NDArray[np.float64],
    camera: tuple[float, tuple[float, float]],
    size: tuple[int, int],
) -> Keep:
    """Pixels that rays of these angles fall on; `camera` is the focal length and the principal point."""
    focal, (cx, cy) = camera
    pitches, yaws = np.meshgrid(pitch, yaw, indexing="ij")
    x, y, z = np.cos(pitches) * np.sin(yaws), np.sin(pitches), np.cos(pitches) * np.cos(yaws)
    columns = np.rint(focal * x / z + cx).astype(np.int64)
    rows = np.rint(focal * y / z + cy).astype(np.int64)
    inside = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    keep = np.zeros(size, bool)
    keep[rows[inside], columns[inside]] = True
    return keep


def _sift(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    import cv2  # here: a recipe is read without it

    return _key_points(cv2.SIFT.create(), known, image, rng)


def _orb(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    import cv2

    return _key_points(cv2.ORB.create(nfeatures=2000), known, image, rng)


def _key_points(detector: cv2.Feature2D, known: Keep, image: Colour, rng: Rng) -> Keep:
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    keep = np.zeros_like(known)
    for point in detector.detect(grey, None):
        column, row = (int(value) for value in point.pt)
        keep[row, column] = True
    if (keep & known).sum() < FEWEST_KEY_POINTS:
        return _some(known, INSTEAD_OF_KEY_POINTS, rng)
    return keep


def _grid(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    step = max(1, part.draw_whole(rng, 16))
    keep = np.zeros_like(known)
    keep[step // 2 :: step, step // 2 :: step] = True
    return keep


def _rows(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    number = min(part.draw_whole(rng, 16), _BANDS)
    chosen = np.zeros(_BANDS, bool)
    chosen[np.arange(number) * _BANDS // max(number, 1)] = True
    bands = np.arange(known.shape[0]) * _BANDS // known.shape[0]
    return np.broadcast_to(chosen[bands][:, None], known.shape)


def _sector(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    width = known.shape[1]
    missing = round(part.draw(rng, 0.25) * width)
    first = int(rng.integers(0, width - missing + 1))
    keep = np.ones_like(known)
    keep[:, first : first + missing] = False
    return keep


def _bottom(part: Part, known: Keep, image: Colour, rng: Rng) -> Keep:
    keep = np.ones_like(known)
    keep[known.shape[0] - round(part.draw(rng, 0.25) * known.shape[0]) :] = False
    return keep


_KEEPERS: dict[str, Callable[[Part, Keep, Colour, Rng], Keep]] = {
    "none": _none,
    "full": _full,
    "uniform": _uniform,
    "percent": _percent,
    "lidar": _lidar,
    "sift": _sift,
    "orb": _orb,
    "grid": _grid,
    "rows": _rows,
    "sector": _sector,
    "bottom": _bottom,
}
_HELP = (
    f"names are {', '.join(_KEEPERS)}; write 0.5*uniform:1%~10%+0.5*lidar:64, or mixture, or percent; "
    f"behind `with`: {', '.join(ARTEFACTS)}"
)
