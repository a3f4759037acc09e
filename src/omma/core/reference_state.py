"""Reading checkpoints of the original projects: plain names, grids and image sizes they hold, strict loading.

Users: lss, diffbev, g2_monodepth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from omma.core.geometry import feature_pixels, frustum
from omma.core.grid import Bounds, depth_bins
from omma.errors import CheckpointError

_WRAPPERS = ("module.", "model.")


def plain_state(content: Mapping[str, Any], *containers: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint under their names without wrappers' prefixes.

    Args:
        content: tensors or arrays by name, bare or under one of `containers`.
        containers: keys that may hold them.

    Raises:
        CheckpointError: it holds something else.
    """
    for container in containers:
        content = content.get(container, content)
    plain: dict[str, Tensor] = {}
    for key, value in content.items():
        while key.startswith(_WRAPPERS):
            key = key.split(".", 1)[1]
        try:
            plain[key] = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise CheckpointError(
                f"checkpoint entry {key} is a {type(value).__name__}, not a tensor",
                hint=f"weights are expected bare or under {' or '.join(containers)}",
            ) from None
    return plain


def shape_of(weights: Mapping[str, Tensor], key: str, project: str) -> tuple[int, ...]:
    """Shape of a tensor.

    Raises:
        CheckpointError: it is missing.
    """
    if key not in weights:
        raise CheckpointError(f"the checkpoint has no {key}", hint=f"it is not one of {project}")
    return tuple(weights[key].shape)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], project: str) -> None:
    """Load everything or say what does not fit; leaves the model in eval mode.

    Args:
        model: what the state is for.
        state: under the model's names.
        project: whose checkpoint it should be, for the message.

    Raises:
        CheckpointError: keys are missing, left over or of another shape.
    """
    wanted = model.state_dict()
    problems = {
        "missing": sorted(set(wanted) - set(state)),
        "left over": sorted(set(state) - set(wanted)),
        "of another shape": sorted(k for k in set(wanted) & set(state) if wanted[k].shape != state[k].shape),
    }
    found = [f"{len(keys)} {what}: {', '.join(keys[:8])}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"the checkpoint does not fit the network; {'; '.join(found)}",
            hint=f"is it one of {project}, complete, and with the published layers?",
        )
    model.load_state_dict(dict(state))
    model.eval()


def grid_bounds(dx: Tensor, bx: Tensor, nx: Tensor) -> list[Bounds]:
    """(low, high, step) of the three axes of cell sizes, first centres and numbers of cells, each (3,)."""
    bounds = []
    for step, centre, cells in zip(dx.tolist(), bx.tolist(), nx.tolist(), strict=True):
        step, centre = round(step, 6), round(centre, 6)  # float32 rounding off: 0.4 comes as 0.4000000059
        low = centre - step / 2
        bounds.append((low, low + cells * step, step))
    return bounds


def frustum_settings(points: Tensor) -> tuple[Bounds, tuple[int, int]]:
    """Depth bounds and image (height, width) that a stored frustum (D, h, w, 3) was made for.

    Raises:
        CheckpointError: it is not evenly spaced from the first pixel and depth to the last.
    """
    depths_m = points[:, 0, 0, 2].double()
    step = round(float(depths_m[-1] - depths_m[0]) / max(len(depths_m) - 1, 1), 6) or 1.0
    low = round(float(depths_m[0]), 6)
    dbound = (low, low + step * len(depths_m), step)
    image_size = round(float(points[0, -1, 0, 1])) + 1, round(float(points[0, 0, -1, 0])) + 1
    h, w = points.shape[1:3]
    expected = frustum(feature_pixels(image_size, (h, w)), torch.from_numpy(depth_bins(*dbound)))
    if expected.shape != points.shape or not torch.allclose(expected, points.float(), atol=1e-2):
        raise CheckpointError(
            f"the checkpoint's frustum {list(points.shape)} is not that of an image of {image_size[0]} x "
            f"{image_size[1]} pixels with evenly spaced depths",
            hint="it was made by changed code; without its frustum key, image_size and grid_conf are used",
        )
    return dbound, image_size
