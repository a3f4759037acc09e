"""Lift-Splat-Shoot as a task: network, loss, metrics and predictions (spec sections 3 to 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.grid import distance_rings
from omma.core.losses import binary_cross_entropy, focal_loss
from omma.core.meter import BinaryIoUMeter, MeanMeter, Meter
from omma.core.metrics import batch_iou
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.model import build_model
from omma.systems.lss.viz import draw

GEOMETRY = ("rots", "trans", "intrins", "post_rots", "post_trans")
RINGS_M = ((0.0, 20.0), (20.0, 35.0), (35.0, 50.0))


class LSSTask(Task):
    """Segments the ground plane around the vehicle from calibrated cameras.

    A batch holds images (B, N, 3, H, W) uint8 RGB, rots and intrins (B, N, 3, 3), trans (B, N, 3), post_rots
    (B, N, 3, 3), post_trans (B, N, 3), target (B, C, X, Y), optionally mask (B, 1, X, Y) of the cells that
    count, and token: a list of names. Grid axis 0 is +x (forward), axis 1 is +y (left).
    """

    train_terms = ("iou",)
    mean: Tensor
    std: Tensor

    def __init__(self, config: LSSConfig) -> None:
        super().__init__()
        self.config = config
        self.classes = list(config.system.targets)
        self.model: nn.Module = build_model(config.system, config.data)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C, X, Y) float32."""
        images = (batch["images"].float() / 255.0 - self.mean) / self.std
        return self.model(images, *(batch[key] for key in GEOMETRY)).float()

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """Binary cross-entropy, and the IoU of this batch."""
        logits = self(batch)
        return {"loss": self._loss(logits, batch), "iou": batch_iou(logits.detach(), batch["target"]).float()}

    def meters(self) -> dict[str, Meter]:
        """Mean loss; pooled IoU overall, by class, threshold and distance."""
        grid = self.config.system.grid.bev
        reach = max(*map(abs, grid.x[:2]), *map(abs, grid.y[:2]))
        rings = tuple(ring for ring in RINGS_M if ring[0] < reach)
        ring_index = distance_rings(grid.radius(), rings)
        return {
            "loss": MeanMeter("loss"),
            "iou": BinaryIoUMeter(self.classes, rings_m=rings, ring_index=ring_index),
        }

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """See Task."""
        self._score(self(batch), batch, meters)

    def score(self, arrays: Mapping[str, np.ndarray], batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with a saved prediction of one sample: array "logits" (C, X, Y)."""
        self._score(torch.from_numpy(arrays["logits"])[None].float().to(self.device), batch, meters)

    def predict(self, inputs: Batch) -> Prediction:
        """Logits and occupancy probabilities of one sample, with what a picture needs."""
        logits = self(inputs)[0]
        arrays = {
            "logits": logits.cpu().numpy(),
            "probability": logits.sigmoid().cpu().numpy(),
            "images": inputs["images"][0].cpu().numpy(),
            **{key: inputs[key][0].float().cpu().numpy() for key in GEOMETRY},
        }
        if "target" in inputs:
            arrays["target"] = inputs["target"][0].cpu().numpy()
        grid = self.config.system.grid
        meta = {"token": inputs["token"][0], "classes": self.classes, "x": grid.x, "y": grid.y}
        return Prediction(arrays, meta, draw)

    def setting(self) -> str:
        """Visibility, distance and cell size: numbers of other settings do not compare."""
        grid, visibility = self.config.system.grid, self.config.data.min_visibility
        seen = "all objects" if visibility is None else f"objects of visibility >= {visibility}"
        return f"{seen}, x {_span(grid.x)}, y {_span(grid.y)}, threshold 0.5"

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Images (1, N, 3, H, W) and matrices of a ring of level cameras."""
        batch = self.example_batch(1)
        return (batch["images"].float() / 255.0 - self.mean) / self.std, *(batch[key] for key in GEOMETRY)

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random images and labels with a plausible ring of cameras."""
        data, grid = self.config.data, self.config.system.grid.bev
        num_cameras = len(data.cameras) if data.cameras else data.num_cameras
        height, width = data.image_size
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (batch_size, num_cameras, 3, height, width), generator=generator)
        target = torch.rand((batch_size, len(self.classes), *grid.nx[:2]), generator=generator) > 0.9
        geometry = {
            key: value.expand(batch_size, *value.shape) for key, value in _ring(num_cameras, height, width)
        }
        batch = {"images": images.to(torch.uint8), "target": target.float(), **geometry}
        return {key: value.to(self.device) for key, value in batch.items()} | {
            "token": ["example"] * batch_size
        }

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The network's blocks."""
        return self.model.checkpoint_blocks()

    def compile_targets(self) -> list[nn.Module]:
        """Both encoders; the splat between them has sizes that depend on the data."""
        return [self.model.camencode, self.model.bevencode]

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        loss, target = self.config.system.loss, batch["target"]
        weights = [loss.class_weights.get(name, 1.0) for name in self.classes]
        class_weights = logits.new_tensor(weights) if loss.class_weights else None
        options = {"class_weights": class_weights, "mask": batch.get("mask")}
        if loss.name == "focal":
            return focal_loss(logits, target, gamma=loss.gamma, alpha=loss.alpha, **options)
        return binary_cross_entropy(logits, target, pos_weight=loss.pos_weight, **options)

    def _score(self, logits: Tensor, batch: Batch, meters: Mapping[str, Meter]) -> None:
        meters["loss"].update(float(self._loss(logits, batch)), len(logits))
        meters["iou"].update(logits, batch["target"], mask=batch.get("mask"), tokens=batch["token"])


def _span(bounds: tuple[float, float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g} m by {bounds[2]:g} m"


def _ring(num_cameras: int, height: int, width: int) -> list[tuple[str, Tensor]]:
    """Geometry of level cameras that look outwards all around, each (N, ...)."""
    yaw = torch.arange(num_cameras) * (2 * torch.pi / num_cameras)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    right = torch.stack([yaw.sin(), -yaw.cos(), zero], -1)
    down = torch.stack([zero, zero, -one], -1)
    forward = torch.stack([yaw.cos(), yaw.sin(), zero], -1)
    focal = width / (2 * np.tan(np.deg2rad(80) / 2))
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
    return [
        ("rots", torch.stack([right, down, forward], -1)),
        ("trans", torch.tensor([0.0, 0.0, 1.6]).expand(num_cameras, 3)),
        ("intrins", intrinsics.expand(num_cameras, 3, 3)),
        ("post_rots", torch.eye(3).expand(num_cameras, 3, 3)),
        ("post_trans", torch.zeros(num_cameras, 3)),
    ]
