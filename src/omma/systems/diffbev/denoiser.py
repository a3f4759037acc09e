"""The conditional U-Net that tells what is noise in a bird's-eye-view map (DiffBEV, arXiv 2303.08333).

The condition is a pyramid of its own: at each size it takes up what the encoder has found there; its coarsest
level joins the U-Net at the bottleneck.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.diffbev.attention import MapAttention

GROUPS = 8
TIME_WAVES, TIME_WIDTH = 128, 256

Size = tuple[int, int]
Widths = tuple[int, int, int]


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in 8 groups."""
    return nn.GroupNorm(GROUPS, channels)


class TimeEmbedding(nn.Module):
    """Waves of the time, then two linear layers.

    Args:
        num_timesteps: T; times are stretched to 0 ... 1000, so that they mean the same noise for any T.
    """

    rates: Tensor

    def __init__(self, num_timesteps: int) -> None:
        super().__init__()
        half = TIME_WAVES // 2
        rates = torch.exp(-math.log(1e4) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("rates", (rates * 1000 / num_timesteps).float(), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(TIME_WAVES, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU()
        )

    def forward(self, times: Tensor) -> Tensor:
        """(B, 256) of integer times (B,)."""
        angles = times[:, None].float() * self.rates
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))


class TimedBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions; the time scales and shifts its second normalisation.

    Args:
        in_channels: channels in.
        out_channels: channels out; another number gets a 1 x 1 shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(TIME_WIDTH, 2 * out_channels)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, out, H, W) from (B, in, H, W) and the embedded time (B or 1, 256)."""
        y = self.norm2(self.conv1(F.silu(self.norm1(x))))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        return self.shortcut(x) + self.conv2(F.silu(y * (1 + scale) + shift))


class ConditionLevel(nn.Module):
    """condition + conv1x1(GN(condition) * GN(encoder)), both of one size.

    Args:
        width: channels of both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.condition_norm, self.encoder_norm = norm(width), norm(width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, condition: Tensor, encoder: Tensor) -> Tensor:
        """(B, width, H, W) from two such maps."""
        return condition + self.mix(self.condition_norm(condition) * self.encoder_norm(encoder))


class ConditionalUNet(nn.Module):
    """Three sizes down and up; each is half the one before, rounded up.

    Args:
        channels: of the noisy map, of the condition and of the result.
        widths: channels at the three sizes, multiples of 8.
        size: (Z, X) of the maps.
        num_timesteps: length of the noise schedule.
        self_attention: add a layer of it to the encoder at the coarsest size.

    Raises:
        ConfigError: a width is not a multiple of 8.
    """

    def __init__(
        self, channels: int, widths: Widths, size: Size, *, num_timesteps: int, self_attention: bool
    ) -> None:
        super().__init__()
        for width in widths:
            if width % GROUPS:
                raise ConfigError(
                    f"diffusion.widths: {width} is no multiple of {GROUPS}, the groups of its normalisation",
                    hint=f"take {max(GROUPS, round(width / GROUPS) * GROUPS)}",
                )
        steps = list(pairwise(widths))
        self.time = TimeEmbedding(num_timesteps)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.condition_stem = nn.Conv2d(channels, widths[0], 1)
        self.encoder = nn.ModuleList(TimedBlock(a, b) for a, b in [(widths[0], widths[0]), *steps])
        self.shrink = nn.ModuleList(nn.Conv2d(a, a, 3, stride=2, padding=1) for a, _ in steps)
        self.condition = nn.ModuleList(ConditionLevel(width) for width in widths)
        self.condition_shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in steps)
        coarse = (-(-size[0] // 4), -(-size[1] // 4))
        self.attention = MapAttention(widths[-1], coarse) if self_attention else None
        self.bottleneck = TimedBlock(widths[-1], widths[-1])
        self.decoder = nn.ModuleList(TimedBlock(a + b, a) for a, b in reversed(steps))
        self.out = nn.Sequential(norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels, 3, padding=1))

    def forward(self, x_t: Tensor, condition: Tensor, times: Tensor) -> Tensor:
        """The network's prediction (B, C, Z, X).

        Args:
            x_t: noisy map, (B, C, Z, X).
            condition: what is known about the clean map, (B, C, Z, X).
            times: of the noise, int64 (B,), or (1,) for all.
        """
        time = self.time(times)
        x, condition = self.encoder[0](self.stem(x_t), time), self.condition_stem(condition)
        condition = self.condition[0](condition, x)
        skips = []
        for shrink, block, smaller, level in zip(
            self.shrink, self.encoder[1:], self.condition_shrink, self.condition[1:], strict=True
        ):
            skips.append(x)
            x = block(shrink(x), time)
            if self.attention is not None and block is self.encoder[-1]:
                x = x + self.attention(x, x)
            condition = level(smaller(condition), x)
        x = self.bottleneck(x + condition, time)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], dim=1), time)
        return self.out(x)
