"""The eight ways a map can lie: as it is, turned or mirrored. Users: lss, diagnose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

AS_IT_IS = "as it is"
SYMMETRIES: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    AS_IT_IS: lambda m: m,
    "turned by 180 degrees": lambda m: m[..., ::-1, ::-1],
    "mirrored left to right": lambda m: m[..., ::-1],
    "mirrored front to back": lambda m: m[..., ::-1, :],
    "with its axes swapped": lambda m: m.swapaxes(-1, -2),
    "with its axes swapped and turned by 180 degrees": lambda m: m.swapaxes(-1, -2)[..., ::-1, ::-1],
    "turned by 90 degrees": lambda m: m.swapaxes(-1, -2)[..., ::-1, :],
    "turned by 270 degrees": lambda m: m.swapaxes(-1, -2)[..., ::-1],
}
_KEEP_THE_SHAPE = 4


def symmetries(shape: tuple[int, int]) -> list[str]:
    """Names of the symmetries that leave a map of this shape in its shape: eight for a square, else four.

    Axis 0 of a map runs ahead, axis 1 to a side; an array may have more axes in front of these two.
    """
    return list(SYMMETRIES) if shape[0] == shape[1] else list(SYMMETRIES)[:_KEEP_THE_SHAPE]
