"""Point clouds of depth maps, as PLY files that MeshLab, CloudCompare, Blender and Open3D read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import unproject_points
from omma.viz.image import Image

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def depth_points(depth_m: NDArray[np.floating], intrinsics: NDArray[np.floating]) -> NDArray[np.float64]:
    """The point that each pixel's middle shows.

    Args:
        depth_m: (H, W) along the optical axis, metres.
        intrinsics: (3, 3) in pixels, the first pixel from 0 to 1.

    Returns:
        (H, W, 3) metres: x right, y down, z forward.
    """
    rows, columns = np.indices(depth_m.shape)
    middles = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return unproject_points(intrinsics.astype(np.float64), middles, depth_m.astype(np.float64))


def depth_ply(
    depth_m: NDArray[np.floating],
    colours: Image,
    intrinsics: NDArray[np.floating],
    *,
    comments: Sequence[str] = (),
) -> bytes:
    """A binary PLY file of a depth map's points with the picture's colours, row by row.

    Args:
        depth_m: (H, W) metres; pixels that are not above 0 or not finite are left out.
        colours: (H, W, 3).
        intrinsics: (3, 3) in pixels, the first pixel from 0 to 1.
        comments: lines of ASCII text for the header.
    """
    known = np.isfinite(depth_m) & (depth_m > 0)
    points = np.empty(int(known.sum()), _VERTEX)
    points["xyz"] = depth_points(depth_m, intrinsics)[known]
    points["rgb"] = colours[known]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {line}" for line in ("x right, y down, z forward, metres", *comments)),
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
        "end_header",
    ]
    return "\n".join([*header, ""]).encode("ascii", "replace") + points.tobytes()
