"""The plan of a scene: a bent grid of streets with lanes, markings, crossings, sidewalks and blocks.

Everything is planned in straight street coordinates (u along the ego's street, v to its left) and bent into
the scene frame (x, y in metres) by a smooth map, so that streets curve and cross at skew angles. The ego's
street runs along v = 0; traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]

U_RANGE_M = (-140.0, 240.0)
V_RANGE_M = (-125.0, 125.0)
OUTSIDE_M = 320.0
CORNER_M = 5.0
CROSSWALK_M = 3.2
CURB_HEIGHT_M = 0.15


@dataclass(frozen=True)
class Bend:
    """The smooth map from street coordinates to the scene frame.

    Args:
        amplitude_m: (2,) how far the streets along u and along v swing aside.
        wavelength_m: (2,) length of one swing.
        phase: (2,) radians.
    """

    amplitude_m: tuple[float, float]
    wavelength_m: tuple[float, float]
    phase: tuple[float, float]

    def xy(self, uv: ArrayLike) -> Points:
        """Scene positions (..., 2) of street coordinates (..., 2)."""
        uv = np.asarray(uv, float)
        angle = 2 * np.pi * uv / np.array(self.wavelength_m) + np.array(self.phase)
        swing = np.array(self.amplitude_m) * np.sin(angle)
        return uv + swing[..., ::-1]

    def yaw(self, uv: ArrayLike, along: int, sign: int = 1) -> float:
        """Direction in radians of a street at one point; `along` is 0 for u and 1 for v, `sign` its sense."""
        step = np.zeros(2)
        step[along] = 0.5 * sign
        ahead, behind = self.xy(np.asarray(uv) + step), self.xy(np.asarray(uv) - step)
        return float(np.arctan2(*(ahead - behind)[::-1]))

    def outline(self, uv: ArrayLike, step_m: float = 4.0) -> Points:
        """A closed polygon (n, 2) of street coordinates in the scene frame, its sides cut into steps."""
        start = np.asarray(uv, float)
        way = np.roll(start, -1, axis=0) - start
        counts = np.maximum(1, np.ceil(np.hypot(*way.T) / step_m)).astype(int)
        side = np.arange(len(start)).repeat(counts)
        share = (np.arange(len(side)) - (np.cumsum(counts) - counts)[side]) / counts[side]
        return self.xy(start[side] + way[side] * share[:, None])


@dataclass(frozen=True)
class Street:
    """A street of the grid.

    Args:
        along: axis it runs along, 0 for u and 1 for v.
        offset_m: where it lies on the other axis.
        lanes: lanes per direction.
        lane_m: width of a lane.
        shoulder_m: strip for bicycles beside the outer lane.
        parking_m: parking strip beside the curb, 0 for none.
    """

    along: int
    offset_m: float
    lanes: int
    lane_m: float
    shoulder_m: float
    parking_m: float

    @property
    def half_m(self) -> float:
        """Half the width between the curbs."""
        return self.lanes * self.lane_m + self.shoulder_m + self.parking_m

    def uv(self, s: ArrayLike, aside: ArrayLike) -> Points:
        """Street coordinates (..., 2) at `s` along the street and `aside` to the left of growing s."""
        s, aside = np.broadcast_arrays(np.asarray(s, float), np.asarray(aside, float))
        if self.along == 0:
            return np.stack([s, self.offset_m + aside], -1)
        return np.stack([self.offset_m - aside, s], -1)

    def quads(self, s: tuple[float, float], aside: tuple[float, float]) -> Points:
        """(n, 4, 2) street coordinates of a strip between two positions along and two aside, in pieces."""
        cuts = np.linspace(s[0], s[1], 1 + max(1, int(np.ceil((s[1] - s[0]) / 6.0))))
        return self.rectangles((cuts[:-1], cuts[1:]), aside)

    def rectangles(self, s: tuple[ArrayLike, ArrayLike], aside: tuple[ArrayLike, ArrayLike]) -> Points:
        """(n, 4, 2) street coordinates of rectangles; every bound is a number or (n,) numbers."""
        low, high, right, left = np.broadcast_arrays(*s, *aside)
        return self.uv(np.stack([low, high, high, low], -1), np.stack([right, right, left, left], -1))


@dataclass(frozen=True)
class Block:
    """Raised ground between four streets.

    Args:
        low: (u, v) of its corner at the curb.
        high: (u, v) of the opposite corner.
        sidewalk_m: width of the sidewalk along its border.
        paved: whether its inside is paved (else grass).
    """

    low: tuple[float, float]
    high: tuple[float, float]
    sidewalk_m: float
    paved: bool

    def border(self, inset_m: float = 0.0) -> Points:
        """(n, 2) street coordinates of its border moved inwards, with round corners, counter-clockwise."""
        low, high = np.array(self.low) + inset_m, np.array(self.high) - inset_m
        radius = max(CORNER_M - inset_m, 0.3)
        centres = [(high[0], low[1]), (high[0], high[1]), (low[0], high[1]), (low[0], low[1])]
        inward = [(-1, 1), (-1, -1), (1, -1), (1, 1)]
        turns = np.linspace(0, np.pi / 2, 7)
        arcs = []
        for number, (corner, into) in enumerate(zip(centres, inward, strict=True)):
            angle = turns + (number - 1) * np.pi / 2
            arcs.append(
                np.array(corner) + radius * (np.array(into) + np.stack([np.cos(angle), np.sin(angle)], 1))
            )
        return np.concatenate(arcs)

    def tiles(self, inset_m: float = CORNER_M, size_m: float = 16.0) -> Points:
        """(n, 4, 2) street coordinates of rectangles that fill its inside, `inset_m` off its border."""
        low, high = np.array(self.low) + inset_m, np.array(self.high) - inset_m
        u, v = (np.linspace(a, b, 1 + int(np.ceil((b - a) / size_m))) for a, b in zip(low, high, strict=True))
        grid = np.stack(np.meshgrid(u, v, indexing="ij"), -1)
        return np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], 2).reshape(-1, 4, 2)


@dataclass(frozen=True)
class Plan:
    """Streets, blocks and paint of a scene; paint is (n, 4, 2) quadrilaterals in the scene frame, metres."""

    bend: Bend
    streets: tuple[Street, ...]
    blocks: tuple[Block, ...]
    white: Points
    yellow: Points
    zebra: Points
    crosswalks: Points

    @property
    def main(self) -> Street:
        """The ego's street."""
        return self.streets[0]

    @cached_property
    def outlines(self) -> list[tuple[Points, Points | None]]:
        """Per block its curb and, where its inside is grass, the border of the grass; (n, 2), scene frame."""
        return [
            (
                self.bend.outline(block.border()),
                None if block.paved else self.bend.outline(block.border(block.sidewalk_m)),
            )
            for block in self.blocks
        ]

    def crossings(self, street: Street) -> list[Street]:
        """The streets that cross `street`, in the order of their positions along it."""
        return sorted((s for s in self.streets if s.along != street.along), key=lambda s: s.offset_m)

    def stretches(self, street: Street) -> list[tuple[float, float]]:
        """(from, to) along a street between the junctions, clear of corners and crosswalks."""
        return _stretches(street, self.crossings(street))


def cut_quads(quads: Points, step_m: float = 8.0) -> Points:
    """Quadrilaterals (n, 4, 2) cut across where their first side is long, so that they follow the bend."""
    pieces = []
    for a, b, c, d in quads:
        share = np.linspace(0, 1, 1 + max(1, int(np.hypot(*(b - a)) / step_m)))[:, None]
        low, high = a + share * (b - a), d + share * (c - d)
        pieces.append(np.stack([low[:-1], low[1:], high[1:], high[:-1]], 1))
    return np.concatenate(pieces)


def plan_streets(rng: np.random.Generator) -> Plan:
    """A random grid of streets around the ego's street."""
    bend = Bend(
        (float(rng.uniform(0, 12)), float(rng.uniform(0, 8))),
        (float(rng.uniform(260, 420)), float(rng.uniform(220, 400))),
        (float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi))),
    )
    streets = [_street(rng, 0, 0.0, main=True)]
    streets += [_street(rng, 0, side * rng.uniform(62, 95)) for side in (-1, 1)]
    position = U_RANGE_M[0] + rng.uniform(0, 60)
    while position < U_RANGE_M[1]:
        streets.append(_street(rng, 1, position))
        position += rng.uniform(58, 115)
    blocks = _blocks(rng, streets)
    marks = [_markings(street, [s for s in streets if s.along != street.along]) for street in streets]
    painted = [bend.xy(np.concatenate([quads for m in marks for quads in m[kind]])) for kind in range(4)]
    return Plan(bend, tuple(streets), blocks, *painted)


def _street(rng: np.random.Generator, along: int, offset_m: float, *, main: bool = False) -> Street:
    lanes = int(rng.choice([1, 2], p=[0.4, 0.6])) if main else int(rng.choice([1, 2], p=[0.7, 0.3]))
    parking = 2.3 if rng.random() < 0.75 else 0.0
    return Street(
        along, float(offset_m), lanes, float(rng.uniform(3.2, 3.7)), float(rng.uniform(0.9, 1.5)), parking
    )


def _blocks(rng: np.random.Generator, streets: list[Street]) -> tuple[Block, ...]:
    gaps = []
    for along in (1, 0):  # streets along v bound the blocks in u
        edges = sorted((s.offset_m, s.half_m) for s in streets if s.along == along)
        middle = np.mean(U_RANGE_M) if along == 1 else 0.0
        bounds = [(middle - OUTSIDE_M, 0.0), *edges, (middle + OUTSIDE_M, 0.0)]
        gaps.append([(a + half_a, b - half_b) for (a, half_a), (b, half_b) in pairwise(bounds)])
    return tuple(
        Block((u0, v0), (u1, v1), float(rng.uniform(3.2, 5.0)), bool(rng.random() < 0.3))
        for u0, u1 in gaps[0]
        for v0, v1 in gaps[1]
    )


def _arm_m(crossing: Street) -> float:
    """Distance from the middle of a junction to the stop line."""
    return crossing.half_m + CORNER_M + CROSSWALK_M + 1.0


def _stretches(street: Street, crossings: list[Street]) -> list[tuple[float, float]]:
    low, high = U_RANGE_M if street.along == 0 else V_RANGE_M
    crossings = sorted(crossings, key=lambda s: s.offset_m)
    starts = [low - 60, *(c.offset_m + _arm_m(c) for c in crossings)]
    ends = [*(c.offset_m - _arm_m(c) for c in crossings), high + 60]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if b - a > 4]


def _markings(street: Street, crossings: list[Street]) -> tuple[list[Points], ...]:
    white: list[Points] = []
    yellow: list[Points] = []
    zebra: list[Points] = []
    crosswalks: list[Points] = []
    half = street.half_m
    for start, end in _stretches(street, crossings):
        yellow += [street.quads((start, end), (aside - 0.05, aside + 0.05)) for aside in (-0.2, 0.2)]
        white += _lane_lines(street, start, end)
    for crossing in crossings:
        for sign in (-1, 1):
            stop = crossing.offset_m + sign * _arm_m(crossing)
            white.append(street.quads((stop - 0.2, stop + 0.2), (-half, -0.3) if sign < 0 else (0.3, half)))
            near = crossing.offset_m + sign * (crossing.half_m + CORNER_M)
            band = (min(near, near + sign * CROSSWALK_M), max(near, near + sign * CROSSWALK_M))
            bars = np.arange(0.4 - half, half - 0.5, 1.1)
            crosswalks.append(street.quads(band, (-half, half)))
            zebra.append(street.rectangles(band, (bars, bars + 0.55)))
    return white, yellow, zebra, crosswalks


def _lane_lines(street: Street, start: float, end: float) -> list[Points]:
    strips = []
    for sign in (-1, 1):
        edge = sign * street.lanes * street.lane_m
        strips.append(street.quads((start, end), (edge - 0.06, edge + 0.06)))
        for lane in range(1, street.lanes):
            aside = sign * lane * street.lane_m
            dashes = np.arange(start + 1, end - 3, 9.0)
            strips.append(street.rectangles((dashes, dashes + 3), (aside - 0.06, aside + 0.06)))
    return strips
