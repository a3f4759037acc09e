"""First weights with which keypoint tokens read places from the start, for small networks on little data.

With the published first weights attention passes on next to nothing, and a small network keeps drawing the
mean posture for long. Here visual tokens carry their place, attention hands on what it looks at, and the
output draws a blob at a place: a heatmap is the attention of its keypoint, which then learns where to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omma.systems.sdpose.stemnet import StemNet

if TYPE_CHECKING:
    from omma.systems.sdpose.model import SDPose, TokenHead

_RIDGE = 1e-2
_MLP_GAIN = 0.5  # perceptrons begin quietly beside the attention


@torch.no_grad()
def start_as_readout(model: SDPose, *, sigma: float) -> None:
    """Set a network's first weights so; learned positions are drawn anew, as large as features.

    The convolutions of StemNet start as usual in networks with ReLU; HRNet keeps its weights.

    Args:
        model: as built.
        sigma: of a blob, heatmap cells.
    """
    for module in model.backbone.modules() if isinstance(model.backbone, StemNet) else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    head = model.head
    if head.position == "learnable":
        head.positions[:, : head.num_keypoints] = 0
        nn.init.normal_(head.positions[:, head.num_keypoints :])
    nn.init.xavier_uniform_(head.patch_to_token.weight)
    for layer in head.encoder.layers:
        same = torch.eye(layer.proj.in_features)
        nn.init.xavier_uniform_(layer.qkv.weight)
        layer.qkv.weight[-len(same) :] = same
        layer.proj.weight.copy_(same)
        for index in (0, 2):
            nn.init.xavier_uniform_(layer.mlp[index].weight, gain=_MLP_GAIN)
    _draw_blobs(head, sigma)


def _draw_blobs(head: TokenHead, sigma: float) -> None:
    """Let the last layer of the output draw a blob in the middle of the patch whose position it is given."""
    *before, last = head.output
    features = nn.Sequential(*before)(head.positions[0, head.num_keypoints :])
    features = features.double()
    blobs = patch_blobs(head.grid, head.patch, sigma).double()
    ridge = _RIDGE * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(features.T @ features + ridge, features.T @ blobs)
    last.weight.copy_(weight.T)
    last.bias.zero_()


def patch_blobs(grid: tuple[int, int], patch: tuple[int, int], sigma: float) -> Tensor:
    """A blob in the middle of each patch.

    Args:
        grid: (rows, columns) of patches.
        patch: (rows, columns) of cells of one.
        sigma: in cells.

    Returns:
        (rows x columns, cells) float32, height 1.
    """
    sides = []
    for count, length in zip(grid, patch, strict=True):
        middle = (torch.arange(count) + 0.5) * length - 0.5
        apart = torch.arange(count * length) - middle[:, None]
        sides.append(torch.exp(-(apart**2) / (2 * sigma**2)))
    return torch.einsum("ry,cx->rcyx", *sides).flatten(2).flatten(0, 1)
