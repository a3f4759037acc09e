"""Auxiliary noise prediction on the logits, as in the repository ldk-tokyo/DiffBEV.

Not the paper's model: what it learns reaches the network only as a second loss on the head's features, and
inference is that of the plain head. Kept for that repository's checkpoints. Module names are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.systems.diffbev.head import EXPANSION, TopDownHead

WIDTH = 128
GROUPS = 8
HEADS = 4
NUM_TIMESTEPS = 1000
BETAS = (1e-4, 2e-2)
PERIOD = 1e4  # of the slowest frequency of the time embedding


class ForkHead(TopDownHead):
    """The top-down head, with a small network that predicts noise on its logits in training.

    Args:
        in_channels: of the features.
        priors: share of each class among the cells.
        planes: a quarter of each layer's channels.
        blocks: bottlenecks of each layer.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    num_timesteps = NUM_TIMESTEPS

    def __init__(
        self,
        in_channels: int,
        priors: Sequence[float],
        *,
        planes: tuple[int, int] = (128, 64),
        blocks: tuple[int, int] = (4, 4),
    ) -> None:
        super().__init__(in_channels, priors, planes=planes, blocks=blocks)
        self.xt_encoder = nn.Sequential(
            nn.Conv2d(len(priors), WIDTH, 3, padding=1), nn.GroupNorm(GROUPS, WIDTH), nn.SiLU()
        )
        self.cond_proj = nn.Sequential(
            nn.Conv2d(EXPANSION * planes[1], WIDTH, 1), nn.GroupNorm(GROUPS, WIDTH), nn.SiLU()
        )
        self.fuse_attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.noise_pred = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GroupNorm(GROUPS, WIDTH),
            nn.SiLU(),
            nn.Conv2d(WIDTH, len(priors), 1),
        )
        betas = torch.linspace(*BETAS, NUM_TIMESTEPS)
        self.register_buffer("betas", betas, persistent=False)
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0), persistent=False)

    def training_forward(
        self, bev: Tensor, *, times: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K, 2Z, 2X) of features (B, in, Z, X), and Ldiff, a float32 scalar.

        Args:
            bev: features.
            times: int64 (B,), 0 ... 999.
            noise: standard normal, shaped as the logits; None: drawn.
        """
        features = self.topdown(bev)
        logits = self.classifier(features)
        noise = torch.randn_like(logits, dtype=torch.float32) if noise is None else noise
        noised = self.noised(logits.detach().float(), noise, times)
        return logits, F.mse_loss(self.predict_noise(noised, features, times).float(), noise)

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """x_t = sqrt(a) x_0 + sqrt(1 - a) noise, all (B, K, 2Z, 2X), a that of `times` (B,)."""
        signal = self.alphas_cumprod[times].view(-1, 1, 1, 1)
        return signal.sqrt() * clean + (1 - signal).sqrt() * noise

    def predict_noise(self, noised: Tensor, features: Tensor, times: Tensor) -> Tensor:
        """Noise (B, K, 2Z, 2X) in x_t of that shape, told the head's features and `times` (B,)."""
        query, condition = self.xt_encoder(noised), self.cond_proj(features)
        fused = self.fuse(query, condition) + time_embedding(times)[:, :, None, None]
        return self.noise_pred(fused)

    def fuse(self, query: Tensor, condition: Tensor) -> Tensor:
        """Attention of every cell of `query` (B, 128, H, W) to all of `condition`; scores are not held."""
        tokens = (query.flatten(2).transpose(1, 2), condition.flatten(2).transpose(1, 2))
        attended = self.fuse_attn(tokens[0], tokens[1], tokens[1], need_weights=False)[0]
        return attended.transpose(1, 2).view_as(query)


def time_embedding(times: Tensor) -> Tensor:
    """Sines, then cosines, of `times` (B,) at 64 frequencies, float32 (B, 128)."""
    half = WIDTH // 2
    exponents = torch.arange(half, device=times.device) / (half - 1)
    angles = times.float()[:, None] * torch.exp(-math.log(PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
