"""Ray casting with Embree: which triangle each ray meets first, and whether anything is in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.errors import DataError
from omma.world.mesh import Float

MISS = -1


@dataclass(frozen=True)
class Hits:
    """Where N rays end.

    Args:
        distance: (N,) float32 metres along the ray, infinite for a miss.
        face: (N,) int32 triangle, `MISS` for none.
        u: (N,) float32 weight of the triangle's second corner.
        v: (N,) float32 weight of its third corner.
    """

    distance: Float
    face: NDArray[np.int32]
    u: Float
    v: Float


class Caster:
    """Casts rays at resting and moving triangles; numbers of moving ones follow those of the resting ones.

    Args:
        resting: scene from `accelerate`, used for many instants.
        num_resting: number of its triangles.
        moving: (F, 3, 3) float32 corners at this instant.
    """

    def __init__(self, resting: Any, num_resting: int, moving: Float) -> None:
        self._resting = resting
        self._num_resting = num_resting
        self._moving = accelerate(moving) if len(moving) else None

    def cast(self, origins: Float, directions: Float, maybe_moving: NDArray[np.bool_] | None = None) -> Hits:
        """First hits of rays.

        Args:
            origins: (3, N) float32.
            directions: (3, N) float32 unit vectors.
            maybe_moving: (N,) rays that can meet something moving, all by default.
        """
        starts, ways = _by_ray(origins, directions)
        first = _run(self._resting, starts, ways)
        rays = self._candidates(maybe_moving, len(starts))
        if len(rays):
            other = _run(self._moving, starts[rays], ways[rays])
            nearer = np.flatnonzero(other.distance < first.distance[rays])
            spots = rays[nearer]
            first.distance[spots], first.face[spots] = (
                other.distance[nearer],
                other.face[nearer] + self._num_resting,
            )
            first.u[spots], first.v[spots] = other.u[nearer], other.v[nearer]
        return first

    def blocked(
        self, origins: Float, directions: Float, maybe_moving: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Whether rays meet anything at all; arguments as in `cast`."""
        starts, ways = _by_ray(origins, directions)
        hit = self._resting.run(starts, ways, query="OCCLUDED") != MISS
        rays = self._candidates(maybe_moving, len(starts))
        if len(rays):
            hit[rays] |= self._moving.run(starts[rays], ways[rays], query="OCCLUDED") != MISS
        return hit

    def _candidates(self, maybe_moving: NDArray[np.bool_] | None, count: int) -> NDArray[np.intp]:
        if self._moving is None:
            return np.zeros(0, np.intp)
        return np.arange(count) if maybe_moving is None else np.flatnonzero(maybe_moving)


def accelerate(corners: Float) -> Any:
    """Embree scene of (F, 3, 3) float32 triangles.

    Raises:
        DataError: Embree is not installed.
    """
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise DataError(
            "the procedural world needs the ray caster embreex, which is not installed",
            hint="pip install embreex (wheels exist for Linux and Windows on x86-64 and for macOS); "
            "everything but `omma world` and `omma demo` works without it",
        ) from error
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners, np.float32))
    return scene


def _by_ray(origins: Float, directions: Float) -> tuple[Float, Float]:
    return np.ascontiguousarray(origins.T), np.ascontiguousarray(directions.T)


def _run(scene: Any, starts: Float, ways: Float) -> Hits:
    found = scene.run(starts, ways, output=True)
    distance = found["tfar"]
    distance[found["primID"] == MISS] = np.inf
    return Hits(distance, found["primID"], found["u"], found["v"])
