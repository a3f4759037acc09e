"""G2-MonoDepth as a task: network, losses, metrics and predictions (arXiv 2310.15422)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.depth_meter import DepthMeter
from omma.core.depth_metrics import scored_depth
from omma.core.meter import MeanMeter, Meter
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.losses import Answer, DepthLosses, answers_of
from omma.systems.g2_monodepth.model import build_model
from omma.systems.g2_monodepth.outputs import make_prediction
from omma.systems.g2_monodepth.resnetsan import ResNetSAN


class G2Task(Task):
    """Depth of every pixel from an image and whatever depth is known.

    A batch holds rgb (B, 3, H, W) uint8; depth (true) and point (given), (B, 1, H, W) float32 over max_depth,
    0 where unknown; hole_point (B, 1, H, W), 1 where point is known; with data.prefill filled, point with the
    pixels between filled in; max_depth (B,) metres; and lists of
    names token, dataset and pattern.
    """

    def __init__(self, config: G2Config) -> None:
        super().__init__()
        self.config = config
        self.model: nn.Module = build_model(config.system)
        self.losses = DepthLosses(config.system)
        self.train_terms = self.losses.names

    def forward(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) float32 over max_depth."""
        return self.model(*self._inputs(batch)).float() / self._unit(batch)

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss and its terms, unweighted; of a ResNetSAN the means over both passes and all scales."""
        if not isinstance(self.model, ResNetSAN):
            return self.losses([Answer(self(batch))], batch)
        out = self.model.forward_train(*self._inputs(batch))
        passes = [out.heads] if self.model.sparse is None else [out.heads, out.image_heads]
        size, max_depth_m = batch["depth"].shape[-2:], batch["max_depth"]
        answers = [answer for heads in passes for answer in answers_of(self.model, heads, size, max_depth_m)]
        return self.losses(answers, batch, out.consistency)

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
        return make_prediction(self(inputs), inputs, self.config.data.predict)

    def setting(self) -> str:
        """Input depths and aggregation: numbers of other settings do not compare."""
        patterns, scoring = ", ".join(self.config.data.val_patterns), self.config.data.scoring
        counted = "".join(f"; scoring.{key} {value}" for key, value in scoring.model_dump().items() if value)
        return f"metres, given depth: {patterns}; mean over images (pooled/: over pixels){counted}"

    def describe(self) -> list[str]:
        """The terms of the loss, and the input depths of training and validation."""
        data, made = self.config.data, self.config.data.degradation
        chances = ", ".join(f"{name} {getattr(made, name):g}" for name in ("noise", "blur", "holes"))
        given = f"given depth in training: {made.pattern}, {chances}"
        given += f"; measured where there is some, chance {data.measured:g}" if data.measured else ""
        given += "" if data.prefill == "none" else f"; filled in ({data.prefill})"
        lines = [self.losses.describe(), given, f"in validation: {', '.join(data.val_patterns)}"]
        network = self.config.system.network
        if isinstance(self.model, ResNetSAN):
            span = f"{network.min_depth:g} to {network.max_depth:g} m"
            lines.append(f"{network.name} answers {span}, whatever the data's max_depth is")
        return lines

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Image (1, 3, H, W) in [0, 1], given depth in the network's unit and its mask (1, 1, H, W)."""
        return self._inputs(self.example_batch(1))

    def dynamic_axes(self) -> dict[int, str]:
        """Any number of images of any size: padding is part of the exported file."""
        return {0: "batch", 2: "height", 3: "width"}

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random pictures and depths."""
        shape = (batch_size, 1, *self.config.data.image_size)
        generator = torch.Generator().manual_seed(0)
        depth = torch.rand(shape, generator=generator) * 0.9 + 0.1
        known = (torch.rand(shape, generator=generator) > 0.9).float()
        rgb = torch.randint(0, 256, (batch_size, 3, *shape[2:]), generator=generator)
        batch = {"rgb": rgb.to(torch.uint8), "depth": depth, "point": depth * known, "hole_point": known}
        batch["filled"] = batch["point"]
        batch["max_depth"] = torch.full((batch_size,), 10.0)
        names = {"token": [f"example {index}" for index in range(batch_size)]}
        names |= {"dataset": ["example"] * batch_size}
        names |= {"pattern": [self.config.data.val_patterns[0]] * batch_size}
        return {key: value.to(self.device) for key, value in batch.items()} | names

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The network's blocks."""
        return self.model.checkpoint_blocks()

    def _unit(self, batch: Batch) -> Tensor | float:
        """What the network's depths are over max_depth: a ResNetSAN's are metres, as its bounds."""
        return _per_sample(batch["max_depth"]) if isinstance(self.model, ResNetSAN) else 1.0

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        given = batch["point" if self.config.data.prefill == "none" else "filled"]
        return batch["rgb"].float() / 255.0, given * self._unit(batch), batch["hole_point"]

    def _score(self, pred: Tensor, batch: Batch, meters: Mapping[str, Meter]) -> None:
        meters["loss"].update(float(self.losses.of_depth(pred, batch)), len(pred))
        metres = _per_sample(batch["max_depth"])
        gt = scored_depth(batch["depth"] * metres, **self.config.data.scoring.model_dump())
        pred, tokens = pred * metres, batch["token"]
        meters["depth"].update(pred, gt, tokens)
        for pattern in set(batch["pattern"]) & set(meters):
            chosen = [index for index, name in enumerate(batch["pattern"]) if name == pattern]
            meters[pattern].update(pred[chosen], gt[chosen], [tokens[index] for index in chosen])


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
