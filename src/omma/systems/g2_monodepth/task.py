"""G2-MonoDepth as a task: network, losses, metrics and predictions (arXiv 2310.15422)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.depth_losses import absolute_loss, relative_losses
from omma.core.depth_meter import DepthMeter
from omma.core.meter import MeanMeter, Meter
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.systems.g2_monodepth.config import G2Config, LossSection, Network
from omma.systems.g2_monodepth.spnet import DROP_PATH, SIZES, SPNet
from omma.systems.g2_monodepth.unet import UNet
from omma.systems.g2_monodepth.viz import draw


class G2Task(Task):
    """Depth of every pixel from an image and whatever depth is known.

    A batch holds rgb (B, 3, H, W) uint8; depth (true) and point (given), (B, 1, H, W) float32 over max_depth,
    0 where unknown; hole_point (B, 1, H, W), 1 where point is known; max_depth (B,) metres; and lists of
    names token, dataset and pattern.
    """

    train_terms = ("adepth", "rdepth", "rgrad")

    def __init__(self, config: G2Config) -> None:
        super().__init__()
        self.config = config
        self.model: nn.Module = build_model(config.system.network)

    def forward(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) float32 over max_depth."""
        return self.model(batch["rgb"].float() / 255.0, batch["point"], batch["hole_point"]).float()

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss and its three terms, unweighted."""
        return self._losses(self(batch), batch)

    def meters(self) -> dict[str, Meter]:
        """Loss; scores in metres over all samples and, with several patterns, of each."""
        patterns = self.config.data.val_patterns
        parts = {pattern: DepthMeter(prefix=f"{pattern}/") for pattern in patterns if len(patterns) > 1}
        return {"loss": MeanMeter("loss"), "depth": DepthMeter(more=True), **parts}

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """See Task."""
        self._score(self(batch), batch, meters)

    def score(self, arrays: Mapping[str, np.ndarray], batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with a saved prediction of one sample: array "prediction" (1, H, W) in metres."""
        metres = torch.from_numpy(arrays["prediction"])[None].float().to(self.device)
        self._score(metres / _per_sample(batch["max_depth"]), batch, meters)

    def predict(self, inputs: Batch) -> Prediction:
        """Depth of one sample in metres, not below 0, with what a picture needs."""
        metres = float(inputs["max_depth"][0])
        arrays = {"prediction": self(inputs)[0].clamp(min=0).cpu().numpy() * metres}
        arrays |= {key: inputs[key][0].cpu().numpy() * metres for key in ("depth", "point")}
        arrays["rgb"] = inputs["rgb"][0].cpu().numpy()
        meta = {"token": inputs["token"][0], "max_depth": metres, "metric": bool(inputs["point"].any())}
        return Prediction(arrays, meta, draw)

    def setting(self) -> str:
        """Input depths and aggregation: numbers of other settings do not compare."""
        patterns = ", ".join(self.config.data.val_patterns)
        return f"metres, given depth: {patterns}; mean over images (/pooled: over pixels)"

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Image (1, 3, H, W) in [0, 1], given depth and its mask (1, 1, H, W)."""
        batch = self.example_batch(1)
        return batch["rgb"].float() / 255.0, batch["point"], batch["hole_point"]

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random pictures and depths."""
        shape = (batch_size, 1, *self.config.data.image_size)
        generator = torch.Generator().manual_seed(0)
        depth = torch.rand(shape, generator=generator) * 0.9 + 0.1
        known = (torch.rand(shape, generator=generator) > 0.9).float()
        rgb = torch.randint(0, 256, (batch_size, 3, *shape[2:]), generator=generator)
        batch = {"rgb": rgb.to(torch.uint8), "depth": depth, "point": depth * known, "hole_point": known}
        batch["max_depth"] = torch.full((batch_size,), 10.0)
        names = {"token": [f"example {index}" for index in range(batch_size)]}
        names |= {"dataset": ["example"] * batch_size}
        names |= {"pattern": [self.config.data.val_patterns[0]] * batch_size}
        return {key: value.to(self.device) for key, value in batch.items()} | names

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The network's blocks."""
        return self.model.checkpoint_blocks()

    def _losses(self, pred: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The loss and its terms; float32 whatever autocast says."""
        settings, gt = self.config.system.loss, batch["depth"]
        with torch.autocast(pred.device.type, enabled=False):
            adepth = absolute_loss(pred, gt, _absolute_mask(settings, batch), averaging=settings.averaging)
            rdepth, rgrad = relative_losses(
                pred,
                gt,
                gt != 0,
                scales=settings.scales,
                operator=settings.operator,
                edge_mask=settings.edge_mask,
                averaging=settings.averaging,
                mean_scales=settings.mean_scales,
            )
        loss = settings.absolute * adepth + settings.relative * rdepth + settings.gradient * rgrad
        return {"loss": loss, "adepth": adepth, "rdepth": rdepth, "rgrad": rgrad}

    def _score(self, pred: Tensor, batch: Batch, meters: Mapping[str, Meter]) -> None:
        meters["loss"].update(float(self._losses(pred, batch)["loss"]), len(pred))
        metres = _per_sample(batch["max_depth"])
        pred, gt, tokens = pred * metres, batch["depth"] * metres, batch["token"]
        meters["depth"].update(pred, gt, tokens)
        for pattern in set(batch["pattern"]) & set(meters):
            chosen = [index for index, name in enumerate(batch["pattern"]) if name == pattern]
            meters[pattern].update(pred[chosen], gt[chosen], [tokens[index] for index in chosen])


def build_model(network: Network) -> nn.Module:
    """The network that a recipe describes."""
    options = {"pad": network.pad, "activation": network.activation}
    if network.name == "unet":
        return UNet(layers=network.layers, features=network.features, block=network.block, **options)
    width, depths = SIZES[network.size]
    drop_path = network.drop_path
    if drop_path is None:
        drop_path = DROP_PATH[network.name][list(SIZES).index(network.size)]
    dims = [width * 2**stage for stage in range(4)]
    return SPNet(dims, depths, variant=network.name, drop_path=drop_path, **options)


def _absolute_mask(settings: LossSection, batch: Batch) -> Tensor:
    masks = {"gt": batch["depth"] != 0, "raw": batch["point"] != 0}
    masks["raw_and_gt"] = masks["gt"] & masks["raw"]
    return masks[settings.absolute_mask]


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
