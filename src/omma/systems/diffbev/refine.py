"""Refinement of bird's-eye-view features by conditional diffusion (DiffBEV, arXiv 2303.08333).

The paper's code was never published; this follows its figure, and where that is silent a design of ours. A
U-Net learns to take noise off the features, told what the view transformer saw; what it makes of pure noise
at inference is then joined to those features. Every way of joining starts as the identity, so that an
untrained refiner leaves the baseline as it is.
Shapes: B batch, C channels, (Z, X) cells of the features, K classes; labels have twice the cells.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import ConfigError, DataError
from omma.systems.diffbev.attention import MapAttention
from omma.systems.diffbev.denoiser import ConditionalUNet, Size, Widths, norm
from omma.systems.diffbev.diffusion import LIMIT, Diffusion, Prediction

Label = tuple[Tensor, Tensor]


class CrossAttentionFusion(nn.Module):
    """Source features ask, the denoised map at half its size answers.

    Args:
        channels: of both maps.
        size: their (Z, X).
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.attention = MapAttention(channels, size, stride=2)
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, bev: Tensor, denoised: Tensor) -> Tensor:
        """(B, C, Z, X) from two such maps."""
        pooled = F.avg_pool2d(denoised, 2, ceil_mode=True)
        return bev + self.gamma * self.attention(bev, pooled)


class ConcatFusion(nn.Module):
    """1 x 1 convolution of both maps side by side.

    What it stores is the difference to passing the source through: zero at the start, and the sum is exact in
    any precision, which the product with a unit matrix in TF32 or bfloat16 is not.

    Args:
        channels: of each map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)
        for parameter in self.mix.parameters():
            nn.init.zeros_(parameter)

    def forward(self, bev: Tensor, denoised: Tensor) -> Tensor:
        """(B, C, Z, X) from two such maps."""
        return bev + self.mix(torch.cat([bev, denoised], dim=1))


class AddFusion(nn.Module):
    """Weighted sum.

    Args:
        channels: of both maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, bev: Tensor, denoised: Tensor) -> Tensor:
        """(B, C, Z, X) from two such maps."""
        return bev + self.gamma * denoised


class DiffusionRefiner(nn.Module):
    """Denoised features of the same area, joined to those of the view transformer.

    Args:
        channels: C.
        bev_size: (Z, X).
        num_classes: K, of the labels that `denoise` "label" learns from.
        denoise: what is noised in training: standardised "feature", or an embedding of the "label".
        condition: what the U-Net is told: "fo" the features, "fs" semantics of the depth distribution, "sum".
        x_t_encoding: "conv", or "self_attention" with one such layer at the coarsest size.
        prediction: what the U-Net tells: "eps", "v" or "x0".
        fusion: "cross_attention", "concat" or "add".
        widths: channels of the U-Net's three sizes, multiples of 8.
        sample_steps: U-Net calls at inference.
        num_timesteps: length of the noise schedule.

    Raises:
        ConfigError: a width that is no multiple of 8, or more sample steps than timesteps.
    """

    def __init__(
        self,
        channels: int,
        bev_size: Size,
        *,
        num_classes: int,
        denoise: Literal["feature", "label"] = "feature",
        condition: Literal["fo", "fs", "sum"] = "sum",
        x_t_encoding: Literal["conv", "self_attention"] = "conv",
        prediction: Prediction = "eps",
        fusion: Literal["cross_attention", "concat", "add"] = "cross_attention",
        widths: Widths = (64, 128, 256),
        sample_steps: int = 3,
        num_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        self.condition = condition
        self.diffusion = Diffusion(num_timesteps, sample_steps, prediction)
        self.unet = ConditionalUNet(
            channels,
            widths,
            bev_size,
            num_timesteps=num_timesteps,
            self_attention=x_t_encoding == "self_attention",
        )
        self.semantics = None if condition == "fo" else _semantics(widths[0], channels)
        self.embed_label = nn.Conv2d(num_classes, channels, 1) if denoise == "label" else None
        self.standardise = nn.BatchNorm2d(channels, affine=False)
        self.fusion = _fusion(fusion, channels, bev_size)

    def forward(self, bev: Tensor, depth_bev: Tensor | None, noise: Tensor) -> Tensor:
        """Refined features (B, C, Z, X) by sampling.

        Args:
            bev: features of the view transformer, (B, C, Z, X).
            depth_bev: pooled depth probability, (B, 1, Z, X), not needed for condition "fo".
            noise: standard normal, (B, C, Z, X); the same noise gives the same result.
        """
        condition = self._condition(bev, depth_bev)
        denoised = self.diffusion.sample(lambda x_t, times: self.unet(x_t, condition, times), noise)
        return self.fusion(bev, denoised)

    def training_forward(
        self,
        bev: Tensor,
        depth_bev: Tensor | None,
        *,
        times: Tensor,
        noise: Tensor,
        label: Label | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Refined features with one U-Net call, and the loss of that call.

        Args:
            bev: features of the view transformer, (B, C, Z, X).
            depth_bev: pooled depth probability, (B, 1, Z, X), not needed for condition "fo".
            times: one for each sample, int64 (B,), 0 ... num_timesteps - 1.
            noise: standard normal, (B, C, Z, X).
            label: target (B, K, 2Z, 2X) and visible (B, 1, 2Z, 2X), both bool; needed for `denoise` "label".

        Returns:
            Refined features (B, C, Z, X) from the map denoised at `times`, and Ldiff, a float32 scalar: mean
            squared error of the prediction.
        """
        noise = noise.float()
        clean = self._clean(bev, label)
        x_t = self.diffusion.noised(clean, noise, times)
        predicted = self.unet(x_t, self._condition(bev, depth_bev), times).float()
        loss = F.mse_loss(predicted, self.diffusion.target(clean.detach(), noise, times))
        return self.fusion(bev, self.diffusion.denoised(predicted, x_t, times)), loss

    def _condition(self, bev: Tensor, depth_bev: Tensor | None) -> Tensor:
        if self.semantics is None:
            return bev
        if depth_bev is None:
            raise ConfigError(
                f"diffusion.condition {self.condition} needs the pooled depth probability",
                hint="take view lift_splat, or condition fo",
            )
        semantics = self.semantics(depth_bev)
        return semantics if self.condition == "fs" else bev + semantics

    def _clean(self, bev: Tensor, label: Label | None) -> Tensor:
        """x_0 in float32. Unit variance keeps the embedding from growing until noise is no noise to it."""
        if self.embed_label is None:
            source = bev.detach()
        elif label is None:
            raise DataError(
                "diffusion.denoise is label, but this batch has no labels",
                hint="take diffusion.denoise=feature",
            )
        else:
            target, visible = label
            source = self.embed_label(F.avg_pool2d((2.0 * target - 1.0) * visible, 2))
        return self.standardise(source.float()).clamp(-LIMIT, LIMIT)


def _semantics(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), norm(width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
    )


def _fusion(name: str, channels: int, bev_size: Size) -> nn.Module:
    if name == "cross_attention":
        return CrossAttentionFusion(channels, bev_size)
    return ConcatFusion(channels) if name == "concat" else AddFusion(channels)
