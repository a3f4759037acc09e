"""View Parsing Network: one perceptron over all positions (Pan et al., arXiv 1906.03560).

Each channel of the image features becomes a bird's-eye-view channel by the same two linear layers over its
positions; what is where in space, they learn from data alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.diffbev.views import ViewOutput


class VpnView(nn.Module):
    """Linear layers over positions, then a 1 x 1 convolution over channels.

    Args:
        in_channels: of the image features.
        channels: of the result.
        bev_size: (Z, X) cells.
        feature_size: (h, w) of the image features; the layers fit no other.
        hidden: width between the two linear layers.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        bev_size: tuple[int, int],
        feature_size: tuple[int, int],
        hidden: int = 1960,
    ) -> None:
        super().__init__()
        self.bev_size, self.feature_size, self.out_channels = bev_size, feature_size, channels
        positions, cells = feature_size[0] * feature_size[1], bev_size[0] * bev_size[1]
        self.tf = nn.Sequential(nn.Linear(positions, hidden), nn.ReLU(), nn.Linear(hidden, cells), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))

    def forward(self, features: list[Tensor], intrinsics: Tensor) -> ViewOutput:
        """Features (B, C, Z, X) of the last map (B, in, h, w); the intrinsics are not used."""
        image_map = features[-1]
        if tuple(image_map.shape[2:]) != self.feature_size:
            raise ConfigError(
                f"the image features are {image_map.shape[2]} x {image_map.shape[3]}, the layers of view vpn "
                f"are for {self.feature_size[0]} x {self.feature_size[1]}",
                hint="its weights are bound to one data.image_size",
            )
        return ViewOutput(self.conv(self.tf(image_map.flatten(2)).unflatten(2, self.bev_size)))
