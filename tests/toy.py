"""A tiny system for the engine's tests: batch norm, dropout, augmentation, two loss terms, two meters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.config.base import (
    DataSection,
    Log,
    Optim,
    Period,
    RunConfig,
    Save,
    SystemSection,
    Train,
    Validate,
)
from omma.core.meter import MeanMeter, Meter
from omma.data.dataset import Sample, Samples
from omma.engine.task import Batch, Prediction, StepInfo, Task


class ToySystem(SystemSection):
    name: Literal["toy"] = "toy"
    width: int = 6
    norm: bool = True
    dropout: float = 0.3


class ToyConfig(RunConfig):
    system: ToySystem = ToySystem()
    data: DataSection = DataSection()


class ToySamples(Samples):
    """Images (3, 8, 8) uint8 of four classes, with flips and noise; `hook(index)` runs at each read."""

    def __init__(
        self,
        num_samples: int,
        *,
        seed: int = 0,
        hook: Callable[[int], None] | None = None,
        augment: bool = True,
    ) -> None:
        self.num_samples, self.seed, self.hook, self.augment = num_samples, seed, hook, augment

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        if self.hook:
            self.hook(index)
        label = index % 4
        fixed = np.random.default_rng(index)
        image = fixed.integers(0, 80, (3, 8, 8)) + 40 * label
        if self.augment:
            image = image + rng.integers(0, 40, image.shape)
            image = image[..., ::-1] if rng.random() < 0.5 else image
        return {
            "token": self.name(index),
            "image": torch.from_numpy(np.ascontiguousarray(image).astype(np.uint8)),
            "label": torch.tensor(label),
        }

    def __len__(self) -> int:
        return self.num_samples

    def name(self, index: int) -> str:
        return f"sample-{index:04d}"

    def files(self) -> list[Path]:
        return []


def toy_collate(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "token": [sample["token"] for sample in samples],
        "image": torch.stack([sample["image"] for sample in samples]),
        "label": torch.stack([sample["label"] for sample in samples]),
    }


class ToyNet(nn.Module):
    def __init__(self, width: int, norm: bool, dropout: float) -> None:
        super().__init__()

        def block(channels: int) -> nn.Sequential:
            norm_layer = nn.BatchNorm2d(width) if norm else nn.Identity()
            return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), norm_layer, nn.GELU())

        self.stem, self.body = block(3), block(width)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(self.stem(image.float() / 255))
        return self.head(self.dropout(x.mean((-2, -1))))


class AccuracyMeter(Meter):
    names = ("accuracy",)

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def update(self, tokens: Sequence[str], correct: Tensor) -> None:
        self.rows += [
            {"token": token, "correct": int(c)} for token, c in zip(tokens, correct.tolist(), strict=True)
        ]

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        self.rows = [row for state in states for row in state["rows"]]

    def compute(self) -> dict[str, float]:
        return {"accuracy": sum(row["correct"] for row in self.rows) / max(1, len(self.rows))}

    def per_sample(self) -> list[dict[str, Any]]:
        return self.rows


class ToyTask(Task):
    train_terms = ("entropy", "size")

    def __init__(self, config: ToyConfig, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = ToyNet(config.system.width, config.system.norm, config.system.dropout)
        self.seen: list[list[str]] = []

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        self.seen.append(list(batch["token"]))
        logits = self.model(batch["image"])
        entropy = F.cross_entropy(logits, batch["label"])
        size = logits.square().mean()
        return {"loss": entropy + 0.01 * size, "entropy": entropy, "size": size}

    def meters(self) -> dict[str, Meter]:
        return {"accuracy": AccuracyMeter(), "entropy": MeanMeter("entropy")}

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        logits = self.model(batch["image"])
        meters["accuracy"].update(batch["token"], logits.argmax(1) == batch["label"])
        for one_logits, one_label in zip(logits, batch["label"], strict=True):
            meters["entropy"].update(float(F.cross_entropy(one_logits, one_label)))

    def predict(self, inputs: Batch) -> Prediction:
        return Prediction({"logits": self.model(inputs["image"]).numpy()})

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),)

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        return toy_collate([ToySamples(batch_size)[index] for index in range(batch_size)])

    def checkpoint_blocks(self) -> list[nn.Module]:
        return [self.model.stem, self.model.body]


def toy_config(**sections: Any) -> ToyConfig:
    """Twelve steps in batches of 4, validated every 4 and saved every 3 steps."""
    defaults: dict[str, dict[str, Any]] = {
        "optim": {"lr": 0.01, "name": "adamw"},
        "train": {"length": Period(12), "batch_size": 4, "workers": 0, "device": "cpu"},
        "validate": {"every": Period(4)},
        "save": {"every": Period(3)},
        "log": {"every": 1, "tensorboard": False},
    }
    kinds = {
        "optim": Optim,
        "train": Train,
        "validate": Validate,
        "save": Save,
        "log": Log,
        "system": ToySystem,
    }
    for name, values in sections.items():
        if name in kinds:
            defaults[name] = {**defaults.get(name, {}), **values}
    made = {name: kinds[name](**values) for name, values in defaults.items()}
    return ToyConfig(**made, **{name: value for name, value in sections.items() if name not in kinds})
