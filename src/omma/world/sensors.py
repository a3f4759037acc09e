"""Cameras and LiDAR: rays into a snapshot, and what comes back as pictures and points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omma.world.mesh import Float
from omma.world.render import Renderer, Samples

# where inside a pixel the extra rays of an edge pixel go
_SUBPIXELS = np.float32([(-0.25, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)])


@dataclass(frozen=True)
class PinholeCamera:
    """A camera without distortion.

    Args:
        intrinsics: (3, 3) pixels; pixel (0, 0) covers the interval from 0 to 1.
        image_size: (H, W).
        scene_T_cam: (4, 4) pose; camera frame x right, y down, z forward.
    """

    intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]
    scene_T_cam: NDArray[np.float64]

    def rays(self, uv: Float) -> tuple[Float, Float]:
        """Rays through pixel positions.

        Args:
            uv: (N, 2) pixels.

        Returns:
            (N, 3) float32 origins and directions in the scene frame; a direction's part along the optical axis is
            1, so that the length of a ray is its depth.
        """
        K, R = self.intrinsics, self.scene_T_cam[:3, :3]
        x, y = (uv[:, 0] - K[0, 2]) / K[0, 0], (uv[:, 1] - K[1, 2]) / K[1, 1]
        directions = np.stack([x, y, np.ones_like(x)], 1) @ R.T
        origins = np.broadcast_to(self.scene_T_cam[:3, 3].astype(np.float32), directions.shape)
        return np.ascontiguousarray(origins), directions.astype(np.float32)

    def centres(self) -> Float:
        """(H W, 2) float32 positions of the pixel centres, row by row."""
        height, width = self.image_size
        v, u = np.mgrid[0:height, 0:width]
        return np.stack([u.ravel() + 0.5, v.ravel() + 0.5], 1).astype(np.float32)


@dataclass(frozen=True)
class Picture:
    """What a camera saw.

    Args:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 metres along the optical axis, infinite for the sky.
        class_index: (H, W) uint8 index into `omma.world.scene.CLASSES`.
        instance: (H, W) int32, 0 where no actor is seen.
    """

    rgb: NDArray[np.uint8]
    depth_m: Float
    class_index: NDArray[np.uint8]
    instance: NDArray[np.int32]


def take_picture(renderer: Renderer, camera: PinholeCamera, rng: np.random.Generator) -> Picture:
    """Render a picture with smoothed edges, slight exposure error and sensor noise drawn from `rng`."""
    shape = camera.image_size
    uv = camera.centres()
    pixel_rad = 1.0 / camera.intrinsics[0, 0]
    samples = renderer.see(*camera.rays(uv), pixel_rad)
    rgb = samples.rgb
    edges = np.flatnonzero(_edges(samples, shape))
    if len(edges):
        extra = (uv[edges, None] + _SUBPIXELS).reshape(-1, 2)
        finer = renderer.see(*camera.rays(extra), pixel_rad / 2).rgb.reshape(len(edges), -1, 3)
        rgb[edges] = finer.mean(1)
    return Picture(
        _exposed(rgb.reshape(*shape, 3), rng),
        samples.t.reshape(shape),
        samples.class_index.reshape(shape),
        samples.instance.reshape(shape),
    )


def _edges(samples: Samples, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(H W,) whether a pixel differs clearly in brightness from a neighbour."""
    rgb = samples.rgb.reshape(*shape, 3)
    edge = np.zeros(shape, bool)
    grey = rgb @ np.float32((0.3, 0.59, 0.11))
    down, across = np.abs(np.diff(grey, axis=0)) > 14, np.abs(np.diff(grey, axis=1)) > 14
    edge[:-1] |= down
    edge[1:] |= down
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    return edge.ravel()


def _exposed(rgb: Float, rng: np.random.Generator) -> NDArray[np.uint8]:
    gain = np.float32(np.exp(rng.normal(0, 0.035)))
    noise = rng.standard_normal(rgb.shape, np.float32)
    noisy = rgb * gain + noise * (np.float32(1.0) + np.float32(0.006) * rgb)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
