"""Where moving actors can cast shade, and how much open sky the ground around all actors sees."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.lookup import look_up
from omma.world.mesh import Float
from omma.world.scene import ActorState

_SMALL = ("pedestrian", "rider", "bicycle", "motorcycle", "traffic_cone", "barrier")
_SHIFT_BITS = 4


class ContactShade:
    """Darker ground under and around actors within 60 m, as their bodies hide the sky.

    Args:
        actors: all of them.
        centre: (2,) scene position in the middle.
    """

    def __init__(self, actors: Sequence[ActorState], centre: NDArray[np.floating]) -> None:
        self._cell_m, self._low = 0.25, (centre - 60).astype(np.float32)
        cover = np.zeros((480, 480), np.float32)
        for actor in actors:
            corners = _fixed((actor.footprint - self._low) / self._cell_m)
            cv2.fillPoly(
                cover, [corners], 0.35 if actor.class_name in _SMALL else 0.85, cv2.LINE_8, _SHIFT_BITS
            )
        self._open = 1 - cv2.GaussianBlur(cover, (0, 0), 0.45 / self._cell_m)

    def open_sky(self, xy: Float) -> Float:
        """(N,) share of the sky seen from ground positions (N, 2)."""
        return look_up(self._open, (xy - self._low) * np.float32(1 / self._cell_m), cv2.BORDER_REPLICATE)


class MoverShadows:
    """A map of where moving actors may stand between a point and the sun.

    Points are pushed along the sun's rays onto z = 0, where every box has a fixed outline whatever the height
    of the point.

    Args:
        movers: the actors that move.
        sun_direction: (3,) unit vector towards the sun.
        centre: (2,) scene position in the middle of the map.
    """

    def __init__(
        self, movers: Sequence[ActorState], sun_direction: Float, centre: NDArray[np.floating]
    ) -> None:
        self._cell_m, cells = 0.5, 640
        self._low = (centre - cells * self._cell_m / 2).astype(np.float32)
        self._slope = sun_direction[:2] / sun_direction[2]
        self._map = np.zeros((cells, cells), np.uint8)
        for actor in movers:
            spots = actor.corners[:, :2] - actor.corners[:, 2:] * self._slope
            hull = cv2.convexHull(((spots - self._low) / self._cell_m).astype(np.float32))
            cv2.fillPoly(self._map, [_fixed(hull)], 255, cv2.LINE_8, _SHIFT_BITS)
        self._map = cv2.dilate(self._map, np.ones((5, 5), np.uint8))

    def possible(self, position: Float) -> NDArray[np.bool_]:
        """(N,) whether an actor may shade scene positions (3, N); never false where one does."""
        spots = position[:2] - self._slope[:, None] * position[2]
        cells = (spots - self._low[:, None]) * np.float32(1 / self._cell_m)
        return look_up(self._map, np.ascontiguousarray(cells.T), cv2.BORDER_CONSTANT) > 0


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.rint(points * 2**_SHIFT_BITS).astype(np.int32)
