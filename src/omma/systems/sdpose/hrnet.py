"""HRNet-W32 up to its third stage (Sun et al., arXiv 1902.09212), its finest map as output."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from omma.core.layers import ResidualBlock
from omma.systems.sdpose.stemnet import StemNet, init_convolution

WIDTHS = (32, 64, 128)
BLOCKS = 4
STAGE3_MODULES = 4


class Exchange(nn.Module):
    """Residual blocks on each branch, then each output map is a sum over all branches.

    Args:
        widths: channels of the branches, each half as large as the one before.
        num_outputs: finest branches that get an output map.
    """

    def __init__(self, widths: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, width) for _ in range(BLOCKS))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse(widths, source, target) for source in range(len(widths)))
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """`num_outputs` maps from one a branch, (B, width, H / 2^branch, W / 2^branch)."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        summed = []
        for row in self.fuse_layers:
            parts = [layer(x) for layer, x in zip(row, maps, strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            summed.append(self.relu(total))
        return summed


class HRNet(nn.Module):
    """Stem, two branches, three branches; the map of a quarter of the image's size comes out.

    Args:
        stage1_width: of the stem's bottlenecks: 32 as published with SDPose, 64 as in HRNet itself.
    """

    channels = WIDTHS[0]

    def __init__(self, stage1_width: int = 32) -> None:
        super().__init__()
        self.stage1_width = stage1_width
        self.stem = StemNet(stage1_width)
        self.transition1 = nn.ModuleList(
            [
                _conv(self.stem.channels, WIDTHS[0], relu=True),
                nn.Sequential(_conv(self.stem.channels, WIDTHS[1], stride=2, relu=True)),
            ]
        )
        self.stage2 = nn.ModuleList([Exchange(WIDTHS[:2], 2)])
        self.transition2 = nn.ModuleList(
            [
                nn.Identity(),
                nn.Identity(),
                nn.Sequential(_conv(WIDTHS[1], WIDTHS[2], stride=2, relu=True)),
            ]
        )
        outputs = [len(WIDTHS)] * (STAGE3_MODULES - 1) + [1]
        self.stage3 = nn.ModuleList(Exchange(WIDTHS, num_outputs) for num_outputs in outputs)
        self.apply(init_convolution)

    def forward(self, img: Tensor) -> Tensor:
        """Features (B, 32, H / 4, W / 4) of images (B, 3, H, W), sides multiples of 16."""
        x = self.stem(img)
        maps = [transition(x) for transition in self.transition1]
        for module in self.stage2:
            maps = module(maps)
        maps = [transition(x) for transition, x in zip(self.transition2, [*maps, maps[-1]], strict=True)]
        for module in self.stage3:
            maps = module(maps)
        return maps[0]

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Bottlenecks of the stem and the modules of both stages."""
        return [*self.stem.checkpoint_blocks(), *self.stage2, *self.stage3]


def _conv(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _fuse(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch's channels and size to another's."""
    if source == target:
        return nn.Identity()
    if source > target:
        layers = _conv(widths[source], widths[target], kernel=1)
        return layers.append(nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
    last = target - source - 1
    return nn.Sequential(
        *(
            _conv(widths[source], widths[target if step == last else source], stride=2, relu=step != last)
            for step in range(last + 1)
        )
    )
