"""DiffBEV and its baselines as a task: network, losses, metrics and predictions (spec sections 3 to 7)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.bev_labels import expand_label
from omma.core.depth import depth_cross_entropy, nearest_depth
from omma.core.grid import BevGrid, distance_rings
from omma.core.losses import expected_depth_loss, occupancy_loss
from omma.core.meter import MeanMeter, Meter
from omma.core.occupancy_meter import OccupancyMeter
from omma.data.root import find_folder
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.systems.diffbev.config import DiffBEVConfig, DiffBEVSystem
from omma.systems.diffbev.data import label_setting
from omma.systems.diffbev.model import Outputs, build_model
from omma.systems.diffbev.priors import class_priors
from omma.systems.diffbev.viz import draw

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TERMS = ("Lwce", "Ldepth", "Ldiff")
RINGS_M = ((1.0, 10.0), (10.0, 25.0), (25.0, 50.0))


class DiffBEVTask(Task):
    """Segments the ground ahead of one camera.

    A batch holds image (B, 3, H, W) uint8 RGB, intrinsics (B, 3, 3) of that image, label (B, Z, X) int16 with
    bit c for class c and bit 14 for cells that do not count, depth (B, 1, H, W) float32 metres (0 = unknown)
    where the recipe has a depth loss, and token and channel: lists of names. In maps row 0 is nearest and
    columns go right.
    """

    mean: Tensor
    std: Tensor
    priors: Tensor
    class_weights: Tensor

    def __init__(self, config: DiffBEVConfig) -> None:
        super().__init__()
        self.config, system = config, config.system
        self.classes = list(system.classes)
        self.depth_loss, self.diffusion = system.depth_loss, system.diffusion
        self.train_terms = _terms(system)
        self.model: nn.Module = build_model(system, config.data)
        priors = torch.tensor(class_priors(system))
        for name, value in {
            "mean": torch.tensor(MEAN).view(3, 1, 1),
            "std": torch.tensor(STD).view(3, 1, 1),
            "priors": priors,
            "class_weights": _class_weights(priors, system.loss.class_weights),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K, Z, X) float32."""
        return self.model(self._normalise(batch["image"]), batch["intrinsics"], self._noise(batch)).float()

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss and its weighted terms, which add up to it, and the raw ones."""
        target, visible = expand_label(batch["label"], len(self.classes))
        outputs = self.model.forward_train(
            self._normalise(batch["image"]), batch["intrinsics"], label=(target, visible)
        )
        raw = self._raw_terms(outputs, target, visible, batch)
        weights = self._weights()
        terms = {name: value * weights[name] for name, value in raw.items()}
        shown = {f"{name}_raw": value for name, value in raw.items() if name != "Lwce"}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, **shown}

    def meters(self) -> dict[str, Meter]:
        """Segmentation loss; IoU over the set, by class and by distance."""
        grid = label_grid(self.config.system)
        ahead_m = np.repeat(grid.centres("z")[:, None], grid.nx[0], axis=1)
        rings = tuple(ring for ring in RINGS_M if ring[0] < grid.z[1])
        index = distance_rings(ahead_m, rings)
        return {"loss": MeanMeter("loss"), "iou": OccupancyMeter(self.classes, rings, index)}

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """See Task."""
        self._score(self(batch), batch, meters)

    def score(self, arrays: Mapping[str, np.ndarray], batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with a saved prediction of one sample: array "logits" (K, Z, X)."""
        self._score(torch.from_numpy(arrays["logits"])[None].float().to(self.device), batch, meters)

    def predict(self, inputs: Batch) -> Prediction:
        """Logits of one sample, with what a picture needs."""
        arrays = {
            "logits": self(inputs)[0].cpu().numpy(),
            "image": inputs["image"][0].cpu().numpy(),
            "intrinsics": inputs["intrinsics"][0].float().cpu().numpy(),
        }
        if "label" in inputs:
            target, visible = expand_label(inputs["label"], len(self.classes))
            arrays |= {"target": target[0].cpu().numpy(), "visible": visible[0, 0].cpu().numpy()}
        grid = self.config.system.grid
        channel = (inputs.get("channel") or [""])[0]
        meta = {"token": inputs["token"][0], "channel": channel, "classes": self.classes}
        return Prediction(arrays, {**meta, "x": grid.x, "z": grid.z}, draw)

    def describe(self) -> list[str]:
        """Which loss terms are active."""
        weights = self._weights()
        shown = [
            f"{name} x {weights[name]:g}" if name in self.train_terms else f"{name} off" for name in TERMS
        ]
        return [f"loss: {', '.join(shown)}"]

    def setting(self) -> str:
        """Ignore mask, cameras, split lists and threshold: numbers of other settings do not compare."""
        data = self.config.data
        cameras = ", ".join(data.cameras) if data.cameras else "all cameras"
        folder = find_folder(Path(data.root)) if data.root else None
        labels = label_setting(folder) if folder else "no data set"
        rule = "mean over classes with ground truth, probability > 0.5, visible cells only"
        return f"{rule}, {labels}, {cameras}"

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Image (1, 3, H, W), intrinsics (1, 3, 3), and for the denoising its first noise."""
        batch = self.example_batch(1)
        noise = self._noise(batch)
        inputs = (self._normalise(batch["image"]), batch["intrinsics"])
        return inputs if noise is None else (*inputs, noise)

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random images, labels and depths with a plausible camera."""
        height, width = self.config.data.image_size
        columns, _, rows = label_grid(self.config.system).nx
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (batch_size, 3, height, width), generator=generator)
        bits = torch.rand((batch_size, 15, rows, columns), generator=generator) > 0.8
        label = (bits * (1 << torch.arange(15)).view(-1, 1, 1)).sum(1)
        depth = torch.rand((batch_size, 1, height, width), generator=generator) * 50
        depth[torch.rand(depth.shape, generator=generator) > 0.05] = 0.0
        focal = 0.8 * width
        matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        batch = {"image": image.to(torch.uint8), "label": label.to(torch.int16), "depth": depth}
        batch["intrinsics"] = matrix.expand(batch_size, 3, 3)
        names = {"token": [f"example {index}" for index in range(batch_size)], "channel": [""] * batch_size}
        return {key: value.to(self.device) for key, value in batch.items()} | names

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The network's blocks."""
        return self.model.checkpoint_blocks()

    def compile_targets(self) -> list[nn.Module]:
        """Encoder and head; the splat between them has sizes that depend on the data."""
        return [self.model.backbone, self.model.head]

    def _normalise(self, image: Tensor) -> Tensor:
        return (image.float() - self.mean) / self.std

    def _noise(self, batch: Batch) -> Tensor | None:
        """Where the denoising starts: the sample's own, so that batches and order change nothing."""
        if self.diffusion.name != "paper":
            return None
        columns, _, rows = label_grid(self.config.system).nx
        shape = (self.model.view.out_channels, rows // 2, columns // 2)
        draws = [_draw_noise(self.config.seed, token, shape) for token in batch["token"]]
        return torch.stack(draws).to(batch["image"].device)

    def _raw_terms(
        self, outputs: Outputs, target: Tensor, visible: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        terms = {"Lwce": self._occupancy(outputs.logits, target, visible)}
        if self.depth_loss.name != "none":
            terms["Ldepth"] = self._depth(outputs.depth_logits, batch["depth"])
        if outputs.diffusion is not None:
            terms["Ldiff"] = outputs.diffusion
        if outputs.cycle is not None:
            terms["Lcycle"] = outputs.cycle
        return terms

    def _weights(self) -> dict[str, float]:
        view = self.config.system.view
        return {
            "Lwce": 1.0,
            "Ldepth": getattr(self.depth_loss, "weight", 0.0),
            "Ldiff": getattr(self.diffusion, "weight", 0.0),
            "Lcycle": view.cycle_weight if view.name == "pyva" else 0.0,
        }

    def _occupancy(self, logits: Tensor, target: Tensor, visible: Tensor) -> Tensor:
        return occupancy_loss(
            logits,
            target,
            visible,
            priors=self.priors,
            class_weights=self.class_weights,
            prior_weight=self.config.system.loss.prior_weight,
        )

    def _depth(self, depth_logits: Tensor, depth_m: Tensor) -> Tensor:
        low, high, step = self.config.system.grid.depth
        if self.depth_loss.name == "l1_expected":
            return expected_depth_loss(depth_logits, depth_m, low, high)
        nearest_m = nearest_depth(depth_m, depth_logits.shape[-2:])
        return depth_cross_entropy(depth_logits, nearest_m, low=low, step=step)

    def _score(self, logits: Tensor, batch: Batch, meters: Mapping[str, Meter]) -> None:
        target, visible = expand_label(batch["label"], len(self.classes))
        meters["loss"].update(float(self._occupancy(logits, target, visible)), len(logits))
        meters["iou"].update(logits, target, visible, batch["token"])


def label_grid(system: DiffBEVSystem) -> BevGrid:
    """The cells of labels and logits, half as long as those of the features; axes x, y, z of the camera."""
    x, y, z = system.grid.x, system.grid.y, system.grid.z
    return BevGrid((*x[:2], x[2] / 2), y, (*z[:2], z[2] / 2))


def _terms(system: DiffBEVSystem) -> tuple[str, ...]:
    more = {
        "Ldepth": system.depth_loss.name != "none",
        "Ldiff": system.diffusion.name != "none",
        "Lcycle": system.view.name == "pyva",
    }
    active = [name for name, on in more.items() if on]
    return ("Lwce", *active, *(f"{name}_raw" for name in active))


def _class_weights(priors: Tensor, rule: str) -> Tensor:
    if rule == "equal":
        return torch.ones_like(priors)
    return priors.reciprocal() if rule == "inverse" else priors.rsqrt()


def _draw_noise(seed: int, token: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(token.encode()))
    return torch.randn(shape, generator=generator)
