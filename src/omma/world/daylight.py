"""Sun, sky and haze of a scene, in linear radiance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.lookup import look_up
from omma.world.mesh import Float

_CLOUD_PX = 512


@dataclass(frozen=True)
class Daylight:
    """The light of a scene.

    Args:
        sun_direction: (3,) float32 unit vector towards the sun, scene frame.
        sun: (3,) radiance of a white surface facing the sun.
        zenith: (3,) radiance of the sky overhead.
        horizon: (3,) radiance of the sky at the horizon, and of the haze.
        clouds: share of the sky that is clouded, 0 to 1.
        haze_m: distance at which haze has taken 63 per cent of the contrast.
        cloud_shift: (2,) which part of the clouds is overhead.
    """

    sun_direction: Float
    sun: Float
    zenith: Float
    horizon: Float
    clouds: float
    haze_m: float
    cloud_shift: tuple[float, float]

    @property
    def ambient(self) -> Float:
        """(3,) mean radiance of the sky."""
        return 0.55 * self.zenith + 0.45 * self.horizon

    def sky(self, directions: Float) -> Float:
        """Radiance of the clear sky.

        Args:
            directions: (3, N) float32 unit vectors; below the horizon the horizon's colour holds.

        Returns:
            (3, N) float32.
        """
        horizon = self.horizon[:, None]
        blend = 1 - np.exp(np.float32(-3.2) * np.maximum(directions[2], 0))
        wide = power_of_two(np.clip(self.sun_direction @ directions, 0, 1), 3)
        disc = power_of_two(wide, 5)
        glow = np.float32(0.16) * wide + np.float32(0.5) * disc
        return horizon + (self.zenith[:, None] - horizon) * blend + self.sun[:, None] * glow

    def clouded_sky(self, directions: Float) -> Float:
        """Radiance of the sky with its clouds; arguments as in `sky`."""
        colour, up = self.sky(directions), directions[2]
        cells = directions[:2] * (np.float32(60) / np.maximum(up, np.float32(0.04)))
        cells = np.mod(cells.T + np.float32(self.cloud_shift), np.float32(_CLOUD_PX))
        density = look_up(_clouds(), np.ascontiguousarray(cells), cv2.BORDER_WRAP)
        cover = np.clip((density - np.float32(1 - self.clouds)) * 4, 0, 1)
        cover *= np.clip(up * 7 - np.float32(0.2), 0, 1)
        white = (0.8 * self.ambient.mean() + 0.2 * self.ambient) * 1.5 + self.sun * 0.12
        cloud = white.astype(np.float32)[:, None] * (np.float32(1.05) - np.float32(0.3) * density)
        return colour + (cloud - colour) * (cover * np.float32(0.85))


def power_of_two(x: Float, squarings: int) -> Float:
    """X to the power 2**squarings, far faster than the general power."""
    for _ in range(squarings):
        x = x * x
    return x


def random_daylight(rng: np.random.Generator) -> Daylight:
    """Daylight from low sun to overcast."""
    elevation, azimuth = np.radians(rng.uniform(17, 62)), rng.uniform(0, 2 * np.pi)
    overcast = rng.random() < 0.22
    low = float(np.clip(1 - elevation / np.radians(40), 0, 1))
    warm = np.array([1.0, 0.93 - 0.14 * low, 0.82 - 0.32 * low])
    sun = warm * (0.35 if overcast else rng.uniform(2.3, 2.9))
    zenith = (
        np.array([0.55, 0.58, 0.62]) if overcast else np.array([0.20, 0.36, 0.72]) * rng.uniform(0.85, 1.15)
    )
    horizon = (
        np.array([0.72, 0.74, 0.76])
        if overcast
        else np.array([0.66, 0.76, 0.86]) + low * np.array([0.12, 0, -0.12])
    )
    direction = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    return Daylight(
        np.float32(direction),
        sun.astype(np.float32),
        zenith.astype(np.float32),
        horizon.astype(np.float32),
        float(rng.uniform(0.75, 0.9) if overcast else rng.uniform(0.2, 0.6)),
        float(rng.uniform(500, 1400)),
        (float(rng.uniform(0, _CLOUD_PX)), float(rng.uniform(0, _CLOUD_PX))),
    )


@lru_cache(maxsize=1)
def _clouds() -> NDArray[np.float32]:
    """A repeating (512, 512) picture of cloud density, 0 to 1."""
    rng = np.random.default_rng(73)
    total = np.zeros((_CLOUD_PX, _CLOUD_PX), np.float32)
    for scale, weight in ((40, 1.0), (16, 0.5), (6, 0.25), (2.5, 0.12)):
        white = np.tile(rng.standard_normal((_CLOUD_PX, _CLOUD_PX), np.float32), (3, 3))
        smooth = cv2.GaussianBlur(white, (0, 0), scale)[_CLOUD_PX:-_CLOUD_PX, _CLOUD_PX:-_CLOUD_PX]
        total += weight * smooth / smooth.std()
    return (total.argsort(axis=None).argsort() / total.size).reshape(total.shape).astype(np.float32)
