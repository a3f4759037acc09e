"""Types of grid axes and depth bins in recipes: [low, high, step] in metres, checked when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from omma.core.grid import BevGrid, Bounds, depth_bins
from omma.errors import ConfigError


def check_axis(bounds: Bounds) -> Bounds:
    """The bounds of a grid axis if they hold whole cells; else ValueError in one line."""
    return _in_one_line(lambda: BevGrid(bounds, bounds, bounds), bounds)


def check_depth(bounds: Bounds) -> Bounds:
    """The bounds of depth bins if they hold any ahead of the camera; else ValueError in one line."""
    return _in_one_line(lambda: depth_bins(*bounds), bounds)


def _in_one_line(check: Callable[[], object], bounds: Bounds) -> Bounds:
    """The bounds if the check passes; else its message without the axis, which the key names already."""
    try:
        check()
    except ConfigError as error:
        raise ValueError(f"{error.message.removeprefix('grid axis x: ')}; {error.hint}") from None
    return bounds


Axis = Annotated[Bounds, AfterValidator(check_axis)]
DepthAxis = Annotated[Bounds, AfterValidator(check_depth)]
