"""Cameras and LiDAR: rays into a snapshot, and what comes back as pictures and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import in_image, invert_rigid, project_points, transform_points
from omma.world.cast import MISS
from omma.world.mesh import Float
from omma.world.render import Renderer
from omma.world.scene import Snapshot

# where inside a pixel the extra rays of an edge pixel go
SUBPIXELS = np.float32([(-0.33, 0.33), (-0.2, 0.2)])  # (u, v), one column a ray

_EDGE_STEP = 22  # display levels
_VISIBILITY_POINTS = 40
_NEAR_M = 0.05
# pairs of corners whose numbers differ in one bit
_BOX_EDGES = np.array([(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit])


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
    scene_T_cam: NDArray[np.float64]  # noqa: N815  a pose is named to_T_from

    def rays(self, uv: Float) -> tuple[Float, Float]:
        """Rays through pixel positions.

        Args:
            uv: (2, N) float32 pixels.

        Returns:
            (3, N) float32 unit directions in the scene frame, and (N,) depth per metre of ray.
        """
        K, R = self.intrinsics.astype(np.float32), self.scene_T_cam[:3, :3].astype(np.float32)
        x, y = (uv[0] - K[0, 2]) / K[0, 0], (uv[1] - K[1, 2]) / K[1, 1]
        cosine = 1 / np.sqrt(x * x + y * y + 1)
        return R @ np.stack([x * cosine, y * cosine, cosine]), cosine

    def covered(self, boxes: Sequence[NDArray[np.float64]], margin_px: int = 2) -> NDArray[np.bool_]:
        """Pixels (H, W) in which a box may be seen; never false where one is.

        Args:
            boxes: (8, 3) corners each, scene frame.
            margin_px: how much farther a box may reach.
        """
        mask = np.zeros(self.image_size, bool)
        for corners in transform_points(invert_rigid(self.scene_T_cam), np.reshape(boxes, (-1, 8, 3))):
            depth = corners[:, 2]
            if depth.max() <= _NEAR_M:
                continue
            visible = corners if depth.min() >= _NEAR_M else _clipped(corners)
            uv, _ = project_points(self.intrinsics, visible)
            u, v = uv[:, 0], uv[:, 1]
            left, top = max(int(u.min()) - margin_px, 0), max(int(v.min()) - margin_px, 0)
            right, bottom = max(int(u.max()) + margin_px + 1, 0), max(int(v.max()) + margin_px + 1, 0)
            mask[top:bottom, left:right] = True
        return mask

    def centres(self) -> Float:
        """(2, H W) float32 positions of the pixel centres, row by row."""
        height, width = self.image_size
        u, v = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
        return np.stack([np.tile(u, height), v.repeat(width)])


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
    shape, origin = camera.image_size, camera.scene_T_cam[:3, 3]
    uv = camera.centres()
    pixel_rad = 1.0 / camera.intrinsics[0, 0]
    moving = camera.covered([a.corners for a in renderer.snapshot.actors if not a.rests]).ravel()
    directions, cosine = camera.rays(uv)
    samples = renderer.see(origin, directions, pixel_rad, moving)
    rgb = samples.rgb
    edges = np.flatnonzero(edge_pixels(rgb.reshape(*shape, 3)))
    if len(edges):
        extra = (uv[:, None, edges] + SUBPIXELS[:, :, None]).reshape(2, -1)
        finer = renderer.see(
            origin, camera.rays(extra)[0], pixel_rad / 2, np.tile(moving[edges], SUBPIXELS.shape[1])
        )
        rgb[edges] = (rgb[edges] + finer.rgb.reshape(-1, len(edges), 3).sum(0)) / (1 + SUBPIXELS.shape[1])
    return Picture(
        exposed(rgb.reshape(*shape, 3), rng),
        (samples.distance_m * cosine).reshape(shape),
        samples.class_index.reshape(shape),
        samples.instance.reshape(shape),
    )


@dataclass(frozen=True)
class LidarModel:
    """The beams of a spinning LiDAR.

    Args:
        lowest_deg: elevation of its lowest beam.
        highest_deg: elevation of its highest beam.
        beams: one above the other, evenly spaced.
        columns: measurements of each beam in one turn.
    """

    lowest_deg: float = -24.0
    highest_deg: float = 8.0
    beams: int = 64
    columns: int = 1024

    def directions(self) -> Float:
        """(3, beams * columns) float32 unit vectors in the sensor frame, beam by beam from the lowest."""
        elevation = np.radians(np.linspace(self.lowest_deg, self.highest_deg, self.beams))[:, None]
        azimuth = np.linspace(0, 2 * np.pi, self.columns, endpoint=False)[None]
        level = np.cos(elevation)
        grid = np.broadcast_arrays(level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation))
        return np.stack([part.ravel() for part in grid]).astype(np.float32)


@dataclass(frozen=True)
class Sweep:
    """What a LiDAR measured.

    Args:
        xyz: (n, 3) float32 metres in the sensor frame (axes as its pose says).
        instance: (n,) int32, 0 where no actor was hit.
        ring: (n,) int32 number of the beam, 0 the lowest.
        brightness: (n,) float32 albedo of the surface, 0 to 1; paint on the ground is left out.
    """

    xyz: Float
    instance: NDArray[np.int32]
    ring: NDArray[np.int32]
    brightness: Float


def sweep_lidar(
    snapshot: Snapshot,
    scene_T_lidar: NDArray[np.float64],
    rng: np.random.Generator,
    model: LidarModel = LidarModel(),
) -> Sweep:
    """One turn of a LiDAR: 2 to 100 m, 1 cm noise along the beam."""
    beams = model.directions()
    origin = scene_T_lidar[:3, 3].astype(np.float32)[:, None]
    ways = scene_T_lidar[:3, :3].astype(np.float32) @ beams
    hits = snapshot.caster.cast(np.broadcast_to(origin, ways.shape), ways)
    seen = np.flatnonzero((hits.distance > 2) & (hits.distance < 100))
    measured = hits.distance[seen] + rng.normal(0, 0.01, len(seen)).astype(np.float32)
    return Sweep(
        (beams[:, seen] * measured).T,
        snapshot.face_instance[hits.face[seen]],
        (seen // model.columns).astype(np.int32),
        snapshot.pick("albedo", hits.face[seen]).mean(1),
    )


def visible_shares(snapshot: Snapshot, cameras: Sequence[PinholeCamera]) -> dict[int, float]:
    """Share of each actor's surface points inside some picture that no other thing hides, by instance.

    An actor outside all pictures has 0.
    """
    owners, points = [], []
    for actor in snapshot.actors:
        first, last = actor.faces
        faces = np.linspace(first, last - 1, _VISIBILITY_POINTS).astype(int)
        owners += [actor.instance] * len(faces)
        points.append(snapshot.pick("corners", faces).mean(1))
    owner, xyz = np.array(owners, np.int32), np.concatenate(points).astype(np.float64)
    seen, framed = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    for camera in cameras:
        uv, depth_m = project_points(
            camera.intrinsics, transform_points(invert_rigid(camera.scene_T_cam), xyz)
        )
        inside = np.flatnonzero(in_image(uv, depth_m, camera.image_size))
        framed[inside] = True
        hits = snapshot.caster.cast(*_rays_to(camera.scene_T_cam[:3, 3], xyz[inside]))
        met = hits.face != MISS
        seen[inside[met]] |= snapshot.face_instance[hits.face[met]] == owner[inside[met]]
    most = int(owner.max(initial=0)) + 1
    shares = np.bincount(owner[seen], minlength=most) / np.maximum(
        np.bincount(owner[framed], minlength=most), 1
    )
    return {actor.instance: float(shares[actor.instance]) for actor in snapshot.actors}


def _rays_to(origin: NDArray[np.float64], xyz: NDArray[np.float64]) -> tuple[Float, Float]:
    ways = (xyz - origin).T
    ways /= np.linalg.norm(ways, axis=0)
    return np.broadcast_to(np.float32(origin)[:, None], ways.shape), ways.astype(np.float32)


def _clipped(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (n, 3) of the part of a box in front of a camera; `corners` (8, 3) in the camera frame."""
    start, end = corners[_BOX_EDGES[:, 0]], corners[_BOX_EDGES[:, 1]]
    crossing = (start[:, 2] < _NEAR_M) != (end[:, 2] < _NEAR_M)
    start, end = start[crossing], end[crossing]
    share = (_NEAR_M - start[:, 2]) / (end[:, 2] - start[:, 2])
    return np.concatenate([corners[corners[:, 2] >= _NEAR_M], start + share[:, None] * (end - start)])


def edge_pixels(rgb: Float) -> NDArray[np.bool_]:
    """(H W,) whether a pixel of a picture (H, W, 3) differs clearly in brightness from a neighbour."""
    grey = rgb @ np.float32((0.3, 0.59, 0.11))
    edge = np.zeros(grey.shape, bool)
    down, across = np.abs(np.diff(grey, axis=0)) > _EDGE_STEP, np.abs(np.diff(grey, axis=1)) > _EDGE_STEP
    edge[:-1] |= down
    edge[1:] |= down
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    return edge.ravel()


def exposed(rgb: Float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Display values (H, W, 3) as a sensor gives them: slight exposure error and noise, 8 bits."""
    gain = np.float32(np.exp(rng.normal(0, 0.035)))
    noise = rng.standard_normal(rgb.shape, np.float32)
    noisy = rgb * gain + noise * (np.float32(1.0) + np.float32(0.006) * rgb)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
