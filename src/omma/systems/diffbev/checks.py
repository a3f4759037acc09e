"""What must be there before an image is read: labels and depths, or the command that makes them."""

from __future__ import annotations

import warnings

from omma.errors import DataError
from omma.systems.diffbev.layouts import LABELS, Items

LABEL_STEP, DEPTH_STEP = "omma prepare nuscenes-bev-labels", "omma prepare nuscenes-depth"


def require_labels(items: Items, split: str, *, needed: bool) -> None:
    """Raise DataError unless every image has a label, or none and none is needed."""
    missing = _missing(items.labels, items)
    if not missing or (len(missing) == len(items) and not needed):
        return
    raise DataError(
        f"{items.folder / LABELS / split}: {len(missing)} of {len(items)} images have no label, first "
        f"{missing[0]}.png",
        f"`{LABEL_STEP} root={items.folder}` makes them from nuScenes tables and maps; "
        "data.cameras=[...] leaves the images of other cameras out",
    )


def require_depths(items: Items, split: str, *, needed: bool) -> None:
    """Raise DataError if no image has a depth and some are needed; tell once how many have none.

    An image without depth counts as one whose depth is unknown everywhere.
    """
    missing = _missing(items.depths, items)
    if not missing:
        return
    folder, hint = items.folder / LABELS / f"{split}_depth", f"`{DEPTH_STEP} root={items.folder}` makes them"
    if len(missing) == len(items) and needed:
        raise DataError(
            f"{folder}: no image of {split} has a depth file", f"{hint}; or set system.depth_loss.name=none"
        )
    warnings.warn(
        f"{folder}: {len(missing)} of {len(items)} images have no depth file and count as unknown, first "
        f"{missing[0]}.npz; {hint}",
        stacklevel=3,
    )


def _missing(names: list[str | None], items: Items) -> list[str]:
    return [token for token, name in zip(items.tokens, names, strict=True) if name is None]
