"""A depth camera with structured light, in the manner of the first Kinect: what it measures, where it fails.

It compares a projected pattern with a stored one: depth = focal x baseline / disparity, in steps of an eighth
of a pixel, so that steps and noise grow with the square of depth. It measures nothing where the pattern does
not fall, comes back too weak, or is outshone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.indoors import IndoorRenderer, Shot
from omma.world.mesh import Float, Material
from omma.world.sensors import PinholeCamera

FOCAL_PX = 580.0  # of the sensor itself, whatever the size of the picture
BASELINE_M = 0.075  # the projector is to the right of the camera
STEP_PX = 0.125
NOISE_PX = 0.06
NEAREST_M, FARTHEST_M = 0.5, 8.0
_GLOSSY = (Material.PAINT, Material.METAL)
_LEAST_SIGNAL = 0.004
_STEEP = 0.12  # cosine below which the pattern is too stretched to be matched
_SUN_LIMIT = 0.25


class Hole(IntFlag):
    """Why a pixel has no depth."""

    SHADOW = 1  # something hides it from the projector
    RANGE = 2
    WEAK = 4  # dark, far or seen at a grazing angle
    GLASS = 8  # the pattern goes through or off it
    SUN = 16
    RAGGED = 32  # beside a depth edge


@dataclass(frozen=True)
class Measured:
    """What the depth camera gives.

    Args:
        depth_m: (H, W) float32 along the optical axis, 0 in holes.
        holes: (H, W) uint8 `Hole`, 0 where there is depth.
    """

    depth_m: Float
    holes: NDArray[np.uint8]


def measure(
    renderer: IndoorRenderer, shot: Shot, camera: PinholeCamera, rng: np.random.Generator
) -> Measured:
    """Depth of a shot as the sensor sees it.

    Args:
        renderer: of the shot, to find what the projector does not reach.
        shot: the picture.
        camera: the camera that took it.
        rng: of the noise.
    """
    shape = camera.image_size
    holes = np.zeros(shape, np.uint8)

    def mark(where: NDArray[np.bool_], why: Hole) -> None:
        holes[where.reshape(shape)] |= int(why)

    mark(_shaded(renderer, shot, camera), Hole.SHADOW)
    depth_m = shot.depth_m
    mark((depth_m < NEAREST_M) | (depth_m > FARTHEST_M), Hole.RANGE)
    surface, grain = shot.surface, _grain(rng, shape)
    facing = -(surface.normal * surface.view).sum(0)
    strength = (0.012 + surface.albedo.mean(0)) * facing / np.maximum(surface.distance, 0.1) ** 2
    limit = _LEAST_SIGNAL * np.exp(0.5 * grain.ravel())
    limit *= np.where(np.isin(surface.material, _GLOSSY), 3.0, 1.0)
    mark((strength < limit) | (facing < _STEEP * np.exp(0.3 * grain.ravel())), Hole.WEAK)
    mark((surface.material == Material.GLASS) | (surface.material == Material.GLOW), Hole.GLASS)
    mark(shot.sunlit > _SUN_LIMIT, Hole.SUN)
    mark(_beside_edges(depth_m) & (rng.random(shape) < 0.6), Hole.RAGGED)
    return Measured(np.where(holes == 0, _quantised(depth_m, rng), 0).astype(np.float32), holes)


def _quantised(depth_m: Float, rng: np.random.Generator) -> Float:
    disparity = FOCAL_PX * BASELINE_M / np.maximum(depth_m, 0.1)
    coarse = _grain(rng, depth_m.shape)
    noisy = disparity + NOISE_PX * (rng.standard_normal(depth_m.shape, np.float32) + coarse)
    steps = np.maximum(np.rint(noisy / STEP_PX), 1)
    return (FOCAL_PX * BASELINE_M / (steps * STEP_PX)).astype(np.float32)


def _shaded(renderer: IndoorRenderer, shot: Shot, camera: PinholeCamera) -> NDArray[np.bool_]:
    """(H W,) pixels whose surface the projector does not see."""
    projector = camera.scene_T_cam @ np.array([BASELINE_M, 0, 0, 1])
    origin = np.float32(projector[:3])[:, None]
    way = shot.surface.position - origin
    distance = np.sqrt((way * way).sum(0))
    hits = renderer.caster.cast(np.broadcast_to(origin, way.shape), (way / distance).astype(np.float32))
    return hits.distance < distance * np.float32(0.995) - np.float32(0.01)


def _beside_edges(depth_m: Float) -> NDArray[np.bool_]:
    """(H, W) pixels next to a step in depth of more than 4 per cent."""
    low, high = cv2.erode(depth_m, np.ones((3, 3))), cv2.dilate(depth_m, np.ones((3, 3)))
    bent = np.abs(low + high - 2 * depth_m)  # even slopes, however steep, have no step
    return bent > 0.04 * depth_m


def _grain(rng: np.random.Generator, shape: tuple[int, int]) -> Float:
    """(H, W) smooth noise of unit spread."""
    white = rng.standard_normal(shape, np.float32)
    sigma = 2.5 * shape[1] / 640 + 0.5
    smooth = cv2.GaussianBlur(white, (0, 0), sigma)
    return smooth * np.float32(2 * np.sqrt(np.pi) * sigma)
