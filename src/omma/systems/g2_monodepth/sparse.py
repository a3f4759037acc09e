"""Features of sparse depth maps: the second branch of the sparse auxiliary network (arXiv 2103.16690).

Dense convolutions under a mask give what sparse ones do: a pixel without a known neighbour stays unknown and
0, and batch statistics are those of known pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BRANCHES = 3  # with one, two and three convolutions
KERNELS = (5, 5, 3, 3, 3)  # of the stages
EPS, MOMENTUM = 1e-5, 0.1


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over known pixels; unknown ones are 0.

    Args:
        channels: of the features.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Float32 features of the shape of `x`, (B, C, H, W); `known` is bool (B, 1, H, W)."""
        x = x.float()
        mean, var = self._statistics(x, known) if self.training else (self.running_mean, self.running_var)
        factor = self.weight * (var + EPS).rsqrt()
        y = x * _per_channel(factor) + _per_channel(self.bias - mean * factor)
        return torch.where(known, y, 0.0)

    def _statistics(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        count = known.sum()
        mean = torch.where(known, x, 0.0).sum((0, 2, 3)) / count.clamp(min=1)
        spread = torch.where(known, x - _per_channel(mean), 0.0)
        squares = spread.square().sum((0, 2, 3))
        share = MOMENTUM * (count > 1)  # a batch without any depth says nothing
        with torch.no_grad():
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(squares / (count - 1).clamp(min=1), share)
        return mean, squares / count.clamp(min=1)


class SparseStage(nn.Module):
    """Half the size by the largest known value, then the sum of one, two and three convolutions.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: side of the convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            _branch(in_channels, out_channels, kernel, convs) for convs in range(1, BRANCHES + 1)
        )
        self.norm = MaskedBatchNorm(out_channels)

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, out, H / 2, W / 2) and where they are known, bool, of the same at twice the size."""
        x, known = pool_known(x, known)
        return F.relu(self.norm(sum(self._run(branch, x, known) for branch in self.branches), known)), known

    @staticmethod
    def _run(branch: nn.ModuleList, x: Tensor, known: Tensor) -> Tensor:
        for layer in branch:
            x = F.relu(layer(x, known)) if isinstance(layer, MaskedBatchNorm) else layer(x)
        return x


def _branch(in_channels: int, out_channels: int, kernel: int, convs: int) -> nn.ModuleList:
    layers: list[nn.Module] = []
    for index in range(convs):
        if index:
            layers.append(MaskedBatchNorm(out_channels))
        channels = out_channels if index else in_channels
        layers.append(nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False))
    return nn.ModuleList(layers)


class SparseEncoder(nn.Module):
    """Features of a depth map at strides 2 to 32.

    Args:
        channels: of each stage.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            SparseStage(before, width, kernel)
            for before, width, kernel in zip([1, *channels], channels, KERNELS, strict=False)
        )

    def forward(self, depth: Tensor, known: Tensor) -> list[Tensor]:
        """Features from fine to coarse, 0 where nothing is known.

        Args:
            depth: (B, 1, H, W).
            known: bool, same shape.
        """
        features = []
        x = torch.where(known, depth, 0.0)
        for stage in self.stages:
            x, known = stage(x, known)
            features.append(x)
        return features


def pool_known(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The largest known value of 3 x 3 pixels around every second one, else 0; and where there is one."""
    largest = F.max_pool2d(torch.where(known, x, -torch.inf), 3, stride=2, padding=1)
    known = F.max_pool2d(known.float(), 3, stride=2, padding=1) > 0
    return torch.where(known, largest, 0.0), known


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
