"""A tiny system for the engine's tests: batch norm, dropout, augmentation, two loss terms, two meters."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
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
from omma.data.dataset import Collate, Sample, Samples
from omma.engine.checkpoint import find_last, load_train_state, read_weights
from omma.engine.launch import world
from omma.engine.loop import FitResult, fit
from omma.engine.ranks import leave
from omma.engine.record import MEASURED
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.errors import OmmaError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics


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

    def __init__(
        self,
        config: ToyConfig,
        *,
        on_train: Callable[[int], None] = lambda step: None,
        on_validate: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.on_train, self.on_validate = on_train, on_validate
        torch.manual_seed(0)
        self.model = ToyNet(config.system.width, config.system.norm, config.system.dropout)
        self.seen: list[list[str]] = []

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        self.seen.append(list(batch["token"]))
        self.on_train(info.step)
        logits = self.model(batch["image"])
        entropy = F.cross_entropy(logits, batch["label"])
        size = logits.square().mean()
        return {"loss": entropy + 0.01 * size, "entropy": entropy, "size": size}

    def meters(self) -> dict[str, Meter]:
        return {"accuracy": AccuracyMeter(), "entropy": MeanMeter("entropy")}

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        self.on_validate()
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


def toy_fit(
    folder: Path,
    config: ToyConfig,
    task: ToyTask | None = None,
    *,
    samples: Samples | None = None,
    val_samples: Samples | None = None,
    collate: Collate = toy_collate,
    **options: Any,
) -> tuple[RunFolder, FitResult]:
    """Train in a run folder, which is made if it is not there; 40 training and 10 validation samples."""
    run = RunFolder(folder)
    if world().rank == 0 and not run.is_run():
        run = RunFolder.create(folder.parent, folder.name, config=config.as_dict(), command=["omma", "train"])
    result = fit(
        task or ToyTask(config),
        ToySamples(40, seed=config.seed) if samples is None else samples,
        ToySamples(10, seed=config.seed, augment=False) if val_samples is None else val_samples,
        collate,
        config,
        run,
        best=("val/accuracy", "max"),
        console=RunLog(run.log_file, quiet=True),
        **options,
    )
    return run, result


def last_state(run: RunFolder) -> dict[str, Any]:
    """Everything a run's last checkpoint holds, flat: name -> tensor or plain value; without times."""
    folder = find_last(run)
    assert folder is not None
    state = load_train_state(folder)
    state["progress"].pop("time_s")
    weights = {file.stem: read_weights(file) for file in folder.glob("*.safetensors")}
    return {"step": folder.name, **_flat({**state, **weights})}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {key: v for name, item in items for key, v in _flat(item, f"{prefix}.{name}").items()}


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of metrics.csv without what is measured on the machine."""
    return [
        {name: value for name, value in row.items() if name not in MEASURED}
        for row in read_metrics(run.metrics_file)
    ]


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Last checkpoints and metrics of two runs are the same bit for bit."""
    first, second = last_state(one), last_state(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        assert same, f"{name}: {value} and {second[name]}"
    assert rows(one) == rows(other)
    best_one, best_other = (
        read_weights(run.checkpoints / "best" / "model.safetensors") for run in (one, other)
    )
    assert all(torch.equal(value, best_other[name]) for name, value in best_one.items())


def _job(
    folder: str, sections: dict[str, Any], stop_rank: int = -1, stop_step: int = -1, sleep_s: float = 0
) -> None:
    """One training of the script; rank `stop_rank` signals itself in `stop_step`."""

    def on_train(step: int) -> None:
        time.sleep(sleep_s)
        if step == stop_step and int(os.environ.get("RANK", "0")) == stop_rank:
            os.kill(os.getpid(), signal.SIGTERM)

    config = toy_config(**sections)
    task = ToyTask(config, on_train=on_train)
    try:
        toy_fit(Path(folder), config, task)
    finally:
        rank = os.environ.get("RANK", "0")
        Path(f"{folder}-seen-{rank}.json").write_text(json.dumps(task.seen), encoding="utf-8")


def main(jobs: str) -> int:
    """Run trainings one after the other in this process: a JSON list of the arguments of `_job`."""
    code = 0
    for job in json.loads(jobs):
        try:
            _job(**job)
        except OmmaError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        leave()
        os.environ["MASTER_PORT"] = str(int(os.environ.get("MASTER_PORT", "0")) + 1)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
