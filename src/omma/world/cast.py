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
        t: (N,) float32 length in units of the ray's direction, infinite for a miss.
        face: (N,) int32 triangle, `MISS` for none.
        barycentric: (N, 2) float32 weights of the triangle's second and third corner.
    """

    t: Float
    face: NDArray[np.int32]
    barycentric: Float


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

    def cast(self, origins: Float, directions: Float) -> Hits:
        """First hits of (N, 3) float32 rays; directions need not have unit length."""
        first = _run(self._resting, origins, directions)
        if self._moving is None:
            return first
        other = _run(self._moving, origins, directions)
        nearer = other.t < first.t
        face = np.where(nearer, other.face + self._num_resting, first.face)
        weights = np.where(nearer[:, None], other.barycentric, first.barycentric)
        return Hits(np.minimum(first.t, other.t), face, weights)

    def blocked(self, origins: Float, directions: Float) -> NDArray[np.bool_]:
        """Whether (N, 3) float32 rays meet anything at all."""
        hit = self._resting.run(origins, directions, query="OCCLUDED") != MISS
        if self._moving is not None:
            hit |= self._moving.run(origins, directions, query="OCCLUDED") != MISS
        return hit


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


def _run(scene: Any, origins: Float, directions: Float) -> Hits:
    found = scene.run(origins, directions, output=True)
    missed = found["primID"] == MISS
    t = np.where(missed, np.float32(np.inf), found["tfar"])
    return Hits(t, found["primID"], np.stack([found["u"], found["v"]], 1))
