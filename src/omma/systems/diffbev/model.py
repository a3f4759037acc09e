"""One camera image to a bird's-eye-view logit map: networks of DiffBEV (arXiv 2303.08333) and baselines.

A Swin transformer reads the image, a view transformer carries its features into the camera's ground plane, a
diffusion model may refine them there, and a top-down network gives the logits.
Shapes: B batch, K classes, C channels, (Z, X) feature cells, row 0 nearest, column 0 leftmost; logits have
(2Z, 2X) cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from omma.core.grid import BevGrid
from omma.errors import ConfigError
from omma.systems.diffbev.fork_head import ForkHead
from omma.systems.diffbev.head import TopDownHead
from omma.systems.diffbev.pretrained import load_pretrained
from omma.systems.diffbev.priors import class_priors
from omma.systems.diffbev.refine import DiffusionRefiner
from omma.systems.diffbev.swin import SwinTransformer
from omma.systems.diffbev.views import ViewOutput
from omma.systems.diffbev.views.lift_splat import STRIDE, LiftSplatView
from omma.systems.diffbev.views.pon import FOCAL, PonView
from omma.systems.diffbev.views.pyva import PyvaView
from omma.systems.diffbev.views.vpn import VpnView

if TYPE_CHECKING:
    from omma.systems.diffbev.config import DiffBEVData, DiffBEVSystem

Size = tuple[int, int]
FULL_WIDTH = 800  # of images; narrower ones have shorter focal lengths


class Outputs(NamedTuple):
    """What a training step needs.

    Args:
        logits: (B, K, 2Z, 2X).
        depth_logits: (B, D, h, w), float32; None without a depth distribution.
        diffusion: loss of the denoising, a scalar without weight; None without one.
        cycle: loss of the way back to the image, a scalar without weight; None without one.
    """

    logits: Tensor
    depth_logits: Tensor | None
    diffusion: Tensor | None
    cycle: Tensor | None


class BevSegmenter(nn.Module):
    """Image encoder, view transformer, refiner if any, head.

    Args:
        backbone: image (B, 3, H, W) to a list of feature maps.
        view: feature maps and intrinsics to a `ViewOutput`.
        head: features (B, C, Z, X) to logits (B, K, 2Z, 2X).
        refiner: features to refined features; None: the head reads the view's.
        image_size: (height, width) that the network was built for.
    """

    def __init__(
        self,
        backbone: SwinTransformer,
        view: nn.Module,
        head: TopDownHead,
        *,
        image_size: Size,
        refiner: DiffusionRefiner | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone, self.view, self.refiner, self.head = backbone, view, refiner, head

    def forward(self, img: Tensor, intrinsics: Tensor, noise: Tensor | None = None) -> Tensor:
        """Logits (B, K, 2Z, 2X).

        Args:
            img: normalised RGB, (B, 3, H, W).
            intrinsics: pinhole matrices in pixels of that image, (B, 3, 3).
            noise: standard normal where the refiner starts, (B, C, Z, X); None: one draw of a fixed seed for
                every image. Not used without a refiner.
        """
        return self.head(self._refined(self._view(img, intrinsics), noise))

    def forward_train(
        self,
        img: Tensor,
        intrinsics: Tensor,
        *,
        times: Tensor | None = None,
        noise: Tensor | None = None,
        label: tuple[Tensor, Tensor] | None = None,
    ) -> Outputs:
        """Logits and what the losses beside them need.

        Args:
            img: normalised RGB, (B, 3, H, W).
            intrinsics: (B, 3, 3).
            times: diffusion times, int64 (B,); None: drawn.
            noise: standard normal of the shape of what is noised: (B, C, Z, X) for a refiner, (B, K, 2Z, 2X)
                for the fork's head; None: drawn.
            label: target (B, K, 2Z, 2X) and visible (B, 1, 2Z, 2X), bool, for the denoising of labels.
        """
        view = self._view(img, intrinsics)
        if self.refiner is not None:
            times = self._times(times, len(img), self.refiner.diffusion.num_timesteps, img.device)
            noise = torch.randn_like(view.bev, dtype=torch.float32) if noise is None else noise
            bev, diffusion = self.refiner.training_forward(
                view.bev, view.depth_bev, times=times, noise=noise, label=label
            )
            return Outputs(self.head(bev), view.depth_logits, diffusion, view.cycle)
        if isinstance(self.head, ForkHead):
            times = self._times(times, len(img), self.head.num_timesteps, img.device)
            logits, diffusion = self.head.training_forward(view.bev, times=times, noise=noise)
            return Outputs(logits, view.depth_logits, diffusion, view.cycle)
        return Outputs(self.head(view.bev), view.depth_logits, None, view.cycle)

    def bev(self, img: Tensor, intrinsics: Tensor) -> Tensor:
        """Features (B, C, Z, X) of the view transformer, before any refinement; arguments as there."""
        return self._view(img, intrinsics).bev

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass, in the order they run."""
        blocks = [block for stage in self.backbone.stages for block in stage.blocks]
        refiner = [self.refiner.unet] if self.refiner is not None else []
        return [*blocks, *refiner, *self.head.checkpoint_blocks()]

    def _view(self, img: Tensor, intrinsics: Tensor) -> ViewOutput:
        if tuple(img.shape[-2:]) != self.image_size:
            raise ConfigError(
                f"the image is {img.shape[-2]} x {img.shape[-1]}, the network was built for "
                f"{self.image_size[0]} x {self.image_size[1]} (height x width)",
                hint="give the images and the network the same data.image_size",
            )
        return self.view(self.backbone(img), intrinsics)

    def _refined(self, view: ViewOutput, noise: Tensor | None) -> Tensor:
        if self.refiner is None:
            return view.bev
        if noise is None:
            generator = torch.Generator().manual_seed(0)
            draw = torch.randn(view.bev.shape[1:], generator=generator)
            noise = draw.to(view.bev.device).expand_as(view.bev)
        return self.refiner(view.bev, view.depth_bev, noise)

    @staticmethod
    def _times(times: Tensor | None, batch_size: int, num_timesteps: int, device: torch.device) -> Tensor:
        return torch.randint(num_timesteps, (batch_size,), device=device) if times is None else times


def build_model(system: DiffBEVSystem, data: DiffBEVData) -> BevSegmenter:
    """The network that a recipe describes.

    Raises:
        ConfigError: a part that cannot be built so, or weights that cannot be had.
        CheckpointError: the file of backbone weights is not one.
    """
    swin = system.backbone
    backbone = SwinTransformer(
        embed_dim=swin.embed_dim,
        depths=swin.depths,
        num_heads=swin.num_heads,
        window=swin.window,
        drop_path=swin.drop_path,
        out_indices=(1, 2, 3) if system.view.name == "pon" else (3,),
    )
    load_pretrained(backbone, swin.pretrained)
    view = _build_view(system, data, backbone.channels)
    options = {"planes": system.head.planes, "blocks": system.head.blocks}
    head_type = ForkHead if system.diffusion.name == "fork_aux" else TopDownHead
    head = head_type(view.out_channels, class_priors(system), **options)
    refiner = _build_refiner(system, view.out_channels)
    return BevSegmenter(backbone, view, head, image_size=data.image_size, refiner=refiner)


def _build_view(system: DiffBEVSystem, data: DiffBEVData, in_channels: list[int]) -> nn.Module:
    grid, view = system.grid, system.view
    columns, _, rows = BevGrid(grid.x, grid.y, grid.z).nx
    if view.name == "lift_splat":
        return LiftSplatView(
            in_channels[-1],
            system.channels,
            x=grid.x,
            y=grid.y,
            z=grid.z,
            depth=grid.depth,
            image_size=data.image_size,
            cell_rounding=view.cell_rounding,
            frustum_pixels=view.frustum,
            append_depth=view.append_depth,
            pool_depth=system.diffusion.name == "paper" and system.diffusion.condition != "fo",
        )
    if view.name == "pon":
        focal = FOCAL * min(1.0, data.image_size[1] / FULL_WIDTH)
        return PonView(in_channels[1:], system.channels, x=grid.x, z=grid.z, focal=focal)
    if view.name == "pyva":
        return PyvaView(in_channels[-1], system.channels, bev_size=(rows, columns), size=view.size)
    feature_size = tuple(-(-side // STRIDE) for side in data.image_size)
    return VpnView(
        in_channels[-1],
        system.channels,
        bev_size=(rows, columns),
        feature_size=feature_size,
        hidden=view.hidden,
    )


def _build_refiner(system: DiffBEVSystem, channels: int) -> DiffusionRefiner | None:
    diffusion = system.diffusion
    if diffusion.name != "paper":
        return None
    columns, _, rows = BevGrid(system.grid.x, system.grid.y, system.grid.z).nx
    return DiffusionRefiner(
        channels,
        (rows, columns),
        num_classes=len(system.classes),
        denoise=diffusion.denoise,
        condition=diffusion.condition,
        x_t_encoding=diffusion.x_t_encoding,
        prediction=diffusion.prediction,
        fusion=diffusion.fusion,
        widths=diffusion.widths,
        sample_steps=diffusion.sample_steps,
        num_timesteps=diffusion.num_timesteps,
    )
