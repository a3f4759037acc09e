"""The painted ground of a scene: surface and paint under a point, sharp nearby and smooth far away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.lookup import look_up
from omma.world.mesh import Float
from omma.world.streets import Plan, Points

ASPHALT = np.float32([[0.085], [0.085], [0.088]])
PAVING = np.float32([[0.36], [0.345], [0.32]])
GRASS = np.float32([[0.085], [0.125], [0.035]])
WHITE = np.float32([[0.62], [0.62], [0.6]])
YELLOW = np.float32([[0.50], [0.31], [0.05]])
# ground kinds, as `Ground.kinds` tells them
ROAD, SIDEWALK, TERRAIN, LINE = range(4)

_TILE_M, _WEAR_M, _TILE_PX = 6.4, 76.8, 256
_SHIFT_BITS = 4
_AA_CELLS = 0.7  # OpenCV's smooth outline makes a polygon that much larger on every side


@dataclass(frozen=True)
class _Map:
    """Coverage (H, W, 4) uint8 of block, paving, white and yellow paint; `origin` is the first texel."""

    coverage: NDArray[np.uint8]
    origin: tuple[float, float]
    cell_m: float

    def at(self, xy: Float) -> Float:
        """(4, N) float32 coverage 0 to 1 at scene positions (N, 2), bilinear; nothing outside the map."""
        cells = (xy - np.float32(self.origin)) * np.float32(1 / self.cell_m)
        return _shares(look_up(self.coverage, cells, cv2.BORDER_CONSTANT))


def _shares(texels: NDArray[np.uint8]) -> Float:
    """(C, N) float32 0 to 1 of bytes (N, C)."""
    return np.ascontiguousarray(texels.T).astype(np.float32) * np.float32(1 / 255)


class Ground:
    """Surface and paint of the plan's ground.

    Args:
        plan: streets and blocks.
        centre: scene position (x, y) around which the ground is drawn in detail.
    """

    def __init__(self, plan: Plan, centre: tuple[float, float]) -> None:
        self._near = _draw(plan, (centre[0] - 130, centre[1] - 84), (2600, 1680), 0.1)
        self._far = _draw(plan, (centre[0] - 280, centre[1] - 200), (1120, 800), 0.5)

    def coverage(self, xy: Float, footprint_m: Float) -> Float:
        """What covers the ground.

        Args:
            xy: (N, 2) float32 scene positions.
            footprint_m: (N,) float32 size of a pixel on the ground.

        Returns:
            (4, N) float32 shares of block, paving, white and yellow paint.
        """
        near, far = self._near.at(xy), self._far.at(xy)
        sharpness = np.clip(np.float32(0.2) / (footprint_m + np.float32(0.03)), 1, 3.5)
        near -= np.float32(0.5)
        near *= sharpness
        near += np.float32(0.5)
        np.clip(near, 0, 1, out=near)
        height, width = self._near.coverage.shape[:2]
        column, row = (xy.T - np.float32(self._near.origin)[:, None]) * np.float32(1 / self._near.cell_m)
        outside = (column < 0) | (row < 0) | (column > width - 1) | (row > height - 1)
        blend = np.clip((footprint_m - np.float32(0.18)) * np.float32(1 / 0.4), 0, 1)
        blend[outside] = 1
        far -= near
        far *= blend
        return near + far

    def albedo(self, xy: Float, coverage: Float, footprint_m: Float) -> Float:
        """(3, N) linear albedo at scene positions (N, 2), with grain, slabs and wear."""
        fade = np.clip(np.float32(1.2) - footprint_m / np.float32(0.12), 0, 1)
        grain = 1 + (_tiled(_grain_tile(), xy, _TILE_M) * 2 - 1) * fade
        wear = _tiled(_wear_tile(), xy, _WEAR_M)
        block, paved, white, yellow = coverage
        road = ASPHALT * (grain[0] * (np.float32(0.8) + np.float32(0.4) * wear[0]))
        worn = np.float32(0.82) + np.float32(0.18) * np.minimum(grain[0] * grain[0], np.float32(1.2))
        road += (WHITE * worn - road) * white
        road += (YELLOW * worn - road) * yellow
        field = GRASS * (grain[2] * (np.float32(0.55) + np.float32(0.9) * wear[1]))
        field += (PAVING * (grain[1] * (np.float32(0.85) + np.float32(0.3) * wear[2])) - field) * paved
        field -= road
        field *= block
        return road + field

    @staticmethod
    def kinds(coverage: Float) -> NDArray[np.uint8]:
        """(N,) ROAD, SIDEWALK, TERRAIN or LINE by what covers most of the spot."""
        block, paved, white, yellow = coverage > np.float32(0.5)
        kinds = (white | yellow).astype(np.uint8) * np.uint8(LINE)
        kinds[block] = np.where(paved[block], np.uint8(SIDEWALK), np.uint8(TERRAIN))
        return kinds


def _tiled(tile: NDArray[np.uint8], xy: Float, size_m: float) -> Float:
    cells = np.mod(xy * np.float32(_TILE_PX / size_m), np.float32(_TILE_PX))
    return _shares(look_up(tile, cells, cv2.BORDER_WRAP))


def _draw(plan: Plan, low: tuple[float, float], shape_xy: tuple[int, int], cell_m: float) -> _Map:
    shape = (shape_xy[1], shape_xy[0])
    block, paved, white, yellow = (np.zeros(shape, np.uint8) for _ in range(4))

    def fixed(polygons: Points) -> NDArray[np.int32]:
        return np.rint((polygons - low) * (2**_SHIFT_BITS / cell_m)).astype(np.int32, order="C")

    for curb, lawn in plan.outlines:
        for layer in (block, paved):
            cv2.fillPoly(layer, [fixed(curb)], 255, cv2.LINE_AA, _SHIFT_BITS)
        if lawn is not None:
            cv2.fillPoly(paved, [fixed(lawn)], 0, cv2.LINE_AA, _SHIFT_BITS)
    for quads, layer in ((plan.white, white), (plan.zebra, white), (plan.yellow, yellow)):
        for quad in fixed(_narrowed(_within(quads, low, shape_xy, cell_m), 2 * _AA_CELLS * cell_m)):
            cv2.fillConvexPoly(layer, quad, 255, cv2.LINE_AA, _SHIFT_BITS)
    return _Map(cv2.merge([block, paved, white, yellow]), low, cell_m)


def _narrowed(quads: Points, by_m: float) -> Points:
    """Quadrilaterals (n, 4, 2) with less width across their first side, at least none."""
    right, left = quads[:, [0, 1]], quads[:, [3, 2]]
    width = np.linalg.norm(left - right, axis=-1, keepdims=True)
    inset = (left - right) * (np.minimum(by_m, width) / width / 2)
    return np.concatenate([right + inset, (left - inset)[:, ::-1]], 1)


def _within(quads: Points, low: tuple[float, float], shape_xy: tuple[int, int], cell_m: float) -> Points:
    high = np.array(low) + np.array(shape_xy) * cell_m
    return quads[((quads > low) & (quads < high)).all((1, 2))]


@lru_cache(maxsize=1)
def _grain_tile() -> NDArray[np.uint8]:
    """Repeating detail of asphalt, paving slabs and grass, mean 0.5."""
    rng = np.random.default_rng(71)
    asphalt = 0.5 + 0.06 * _noise(rng, (1,)) + 0.015 * _noise(rng, (8,))
    slabs = 0.52 + 0.03 * _noise(rng, (2, 16))
    joint = np.arange(_TILE_PX) % (_TILE_PX // 8) < 1
    slabs[joint] -= 0.16
    slabs[:, joint] -= 0.16
    grass = 0.5 + 0.13 * _noise(rng, (1, 3)) + 0.06 * _noise(rng, (20,))
    return _as_bytes(asphalt, slabs, grass)


@lru_cache(maxsize=1)
def _wear_tile() -> NDArray[np.uint8]:
    """Repeating broad stains of road, meadow and paving, mean 0.5."""
    rng = np.random.default_rng(72)
    return _as_bytes(*(0.5 + 0.13 * _noise(rng, (3, 9, 26)) for _ in range(3)))


def _noise(rng: np.random.Generator, scales_px: tuple[int, ...]) -> Float:
    """Repeating smooth noise of unit variance, the sum of one octave per scale."""
    total = np.zeros((_TILE_PX, _TILE_PX), np.float32)
    for scale in scales_px:
        white = np.tile(rng.standard_normal((_TILE_PX, _TILE_PX), np.float32), (3, 3))
        smooth = cv2.GaussianBlur(white, (0, 0), scale * 0.6)[_TILE_PX:-_TILE_PX, _TILE_PX:-_TILE_PX]
        total += smooth / smooth.std()
    return total / total.std()


def _as_bytes(*layers: Float) -> NDArray[np.uint8]:
    return np.clip(np.stack(layers, -1) * 255, 0, 255).astype(np.uint8)
