"""Two steps of the UNet whose derivatives PyTorch is slow at on a CPU in the channels-last layout.

Both are written out here for training in that layout; anything else (GPU, export, compilation, inference, the
default layout) takes PyTorch's own operations. The values are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from omma.core.losses import at_least_float32

_SIDE = 3  # of the kernel
_CORNERS = [(row, column) for row in (0, 1) for column in (0, 1)]  # of the 2 x 2 pixels that one becomes


class HalvingConv(nn.Conv2d):
    """3 x 3 convolution with stride 2: (B, out, H / 2, W / 2) of (B, in, H, W), sides rounded up.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, _SIDE, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not _trains_in_channels_last(x) or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _Halved.apply(x, self.weight, self.bias)


def join(skip: Tensor, deep: Tensor) -> Tensor:
    """(B, C + D, H, W): a level's features before those of the level below at twice their size.

    Args:
        skip: (B, C, H, W).
        deep: (B, D, H / 2, W / 2).
    """
    if _trains_in_channels_last(skip) and _trains_in_channels_last(deep) and skip.dtype == deep.dtype:
        return _Joined.apply(skip, deep)
    return torch.cat([skip, F.interpolate(deep, scale_factor=2.0, mode="nearest")], dim=1)


def _trains_in_channels_last(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.device.type != "cpu":
        return False
    return torch.is_grad_enabled() and x.is_contiguous(memory_format=torch.channels_last)


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            nn.grad.conv2d_input(x.shape, weight, grad, stride=2, padding=1) if of_x else None,
            _weight_grad(x, grad) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
        )


def _weight_grad(x: Tensor, grad: Tensor) -> Tensor:
    """(out, in, 3, 3) by matrix products, one for each image and row of the kernel.

    In this layout the pixels under one row of the kernel, with all their channels, lie side by side.
    """
    framed = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    slopes = grad.permute(0, 2, 3, 1).flatten(1, 2)
    channels = x.shape[1]
    result = x.new_zeros(grad.shape[1], _SIDE, _SIDE * channels)
    rows = x.new_empty(*grad.shape[2:], _SIDE * channels)
    for image, slope in zip(framed, slopes, strict=True):
        for row in range(_SIDE):
            rows.copy_(image[row:].as_strided(rows.shape, (2 * image.stride(0), 2 * channels, 1)))
            result[:, row].addmm_(slope.t(), rows.flatten(0, 1))
    return result.unflatten(2, (_SIDE, channels)).permute(0, 3, 1, 2)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skip: Tensor, deep: Tensor) -> Tensor:
        batch, ctx.channels, *size = skip.shape
        shape = (batch, ctx.channels + deep.shape[1], *size)
        out = torch.empty(shape, dtype=skip.dtype, memory_format=torch.channels_last)
        out[:, : ctx.channels] = skip
        for row, column in _CORNERS:
            out[:, ctx.channels :, row::2, column::2] = deep
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        large = grad[:, ctx.channels :]
        parts = [large[..., row::2, column::2] for row, column in _CORNERS]
        total = (at_least_float32(parts[0]) + parts[1]).add_(parts[2]).add_(parts[3])
        return grad[:, : ctx.channels], total.to(grad.dtype)
