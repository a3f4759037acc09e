"""Network and losses under the names and with the calls that the guide has.

>>> unet = UNet(in_channels=5, out_channels=1, layers=7, features=64)  # doctest: +SKIP
>>> unet.load_state_dict(torch.load("checkpoint_epoch004.pth")["model_state_dict"])  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from omma.core.depth_losses import absolute_loss, gradient_loss, standardize
from omma.errors import ConfigError
from omma.systems.g2_monodepth import unet
from omma.systems.g2_monodepth.convert import from_reference

__all__ = ["StandardizeData", "UNet", "WeightedDataLoss", "WeightedMSGradLoss"]


class UNet(unet.UNet):
    """The network, which loads state dicts with published names; see `omma.systems.g2_monodepth.unet`."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a published state dict."""
        return super().load_state_dict(from_reference(state_dict), strict=strict, assign=assign)


class WeightedDataLoss(nn.Module):
    """Mean |pred - gt| over the mask."""

    def forward(self, pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        """A scalar of three (B, 1, H, W)."""
        return absolute_loss(pred, gt, mask)


class WeightedMSGradLoss(nn.Module):
    """Absolute gradients of the difference at several scales.

    Args:
        scales: 1, 2, 4, ... in a row.
    """

    def __init__(self, scales: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        if list(scales) != [2**level for level in range(len(scales))]:
            raise ConfigError(f"scales {list(scales)}: not known", "1, 2, 4, 8 in a row, as many as needed")
        self.num_scales = len(scales)

    def forward(self, pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        """A scalar of three (B, 1, H, W)."""
        return gradient_loss(pred, gt, mask, scales=self.num_scales)


class StandardizeData(nn.Module):
    """(depth - mean) / mean absolute deviation, of two maps over the same mask."""

    def forward(self, pred: Tensor, gt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps standardised, (B, 1, H, W) as they came."""
        return standardize(pred, mask), standardize(gt, mask)
