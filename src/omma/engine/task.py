"""The seam between a system and the engine: Task, StepInfo, Prediction."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from omma.core.meter import Meter

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class StepInfo:
    """Where in the training a step stands.

    Args:
        step: optimiser steps finished before this one.
        epoch: passes over the training data finished before this one.
        progress: step over the training's length, in [0, 1).
    """

    step: int
    epoch: int
    progress: float


class Draw(Protocol):
    """Draws predictions for one sample, one a run, into one picture (H, W, 3) uint8 RGB."""

    def __call__(self, predictions: Sequence[tuple[str, Prediction]]) -> np.ndarray:
        """Draw (run name, prediction) pairs."""
        ...


class MakeFiles(Protocol):
    """Makes the files that a system saves of one prediction besides picture and arrays."""

    def __call__(self, prediction: Prediction) -> Mapping[str, bytes]:
        """End of the file's name, such as ".ply" or "_depth_mm.png", -> its content."""
        ...


@dataclass(frozen=True)
class Prediction:
    """What a task says about one sample.

    Args:
        arrays: name -> array; what `omma predict` saves as .npz.
        meta: plain values that belong to it: token, class names, grid, and so on.
        drawer: the system's drawing function; several runs' predictions go into one picture.
        maker: the system's function for further files; `omma predict` writes them as sample_0010 + ending.
        summary: a line that `omma predict` prints with it, such as what its numbers mean.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any] = field(default_factory=dict)
    drawer: Draw | None = None
    maker: MakeFiles | None = None
    summary: str = ""

    def draw(self) -> np.ndarray:
        """The picture of this prediction, (H, W, 3) uint8 RGB."""
        assert self.drawer is not None, "the task gives its predictions a drawer"
        return self.drawer([("", self)])

    def _repr_png_(self) -> bytes | None:
        """The picture as a PNG file, by which a notebook shows a prediction."""
        if self.drawer is None:
            return None
        stream = io.BytesIO()
        Image.fromarray(self.draw()).save(stream, format="PNG")
        return stream.getvalue()

    def __repr__(self) -> str:
        """Token and shapes: the arrays themselves are long."""
        shapes = [f"{name} {array.shape} {array.dtype}" for name, array in self.arrays.items()]
        return f"Prediction({', '.join([repr(self.meta.get('token', '')), *shapes])})"

    def files(self) -> Mapping[str, bytes]:
        """Further files of this prediction: end of the name -> content."""
        return self.maker(self) if self.maker else {}


@dataclass(frozen=True)
class TakenOver:
    """Weights of another training as a task starts from them.

    Args:
        state: for the task's whole state dict.
        missing: what the other training has not, in words; it keeps the values of the start.
        left: what of the other training the task has no place for, in words.
    """

    state: Mapping[str, Tensor]
    missing: Sequence[str] = ()
    left: Sequence[str] = ()


class Task(nn.Module):
    """One system's network with its losses, meters and predictions; plain PyTorch.

    A subclass is built from its frozen run config and keeps the network in `self.model`. A batch is what
    the system's collate function returns, on the device: a mapping with the samples' names under "token".
    """

    train_terms: tuple[str, ...] = ()
    model: nn.Module

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss of one micro-batch.

        Returns:
            scalar tensors: "loss" and each name in `train_terms`.
        """
        raise NotImplementedError

    def meters(self) -> dict[str, Meter]:
        """Fresh meters for one evaluation; their names together are the validation metrics."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with one batch; runs in eval mode without gradients."""
        raise NotImplementedError

    def predict(self, inputs: Batch) -> Prediction:
        """Predict one sample (a collated batch of one)."""
        raise NotImplementedError

    def result_files(self, meters: Mapping[str, Meter]) -> Mapping[str, str]:
        """Files that `omma eval` writes beside metrics.json, such as a benchmark's result file.

        Args:
            meters: of the whole evaluation.

        Returns:
            name -> text.
        """
        return {}

    def unavailable(self) -> Mapping[str, str]:
        """Metrics that cannot be measured here, with the reason; an evaluation writes null for them."""
        return {}

    def take_over(self, state: Mapping[str, Tensor]) -> TakenOver:
        """What the task starts from, of weights of another training; override for stages.

        Args:
            state: under the names of the task's state dict.

        Raises:
            CheckpointError: this task cannot start from them.
        """
        return TakenOver(state)

    def setting(self) -> str:
        """What metrics were measured under, such as a visibility or a mask; printed beside every number."""
        return ""

    def describe(self) -> list[str]:
        """Lines for the start of a training, such as which loss terms are active."""
        return []

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of `self.model.forward` of the right shapes, for export, bench and the contract test."""
        raise NotImplementedError

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """A random training batch of the right shapes, for bench and the batch-size search."""
        raise NotImplementedError

    def export_module(self) -> nn.Module:
        """The module that export traces with `export_inputs`; the network unless a system says otherwise."""
        return self.model

    def export_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of `export_module`; the example inputs unless a system says otherwise."""
        return self.example_inputs()

    def export_files(self, folder: Path) -> Mapping[str, float]:
        """Write what else belongs to an exported file, such as a part that has a format of its own.

        Args:
            folder: where the exported file lies.

        Returns:
            name in the folder -> largest difference of its outputs after reading it back.
        """
        return {}

    def dynamic_axes(self) -> dict[int, str]:
        """Axes of the example inputs whose length an exported file leaves open, with their names.

        All inputs share them. None by default: the file takes the example's shapes alone.
        """
        return {}

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; override for freezing or other learning rates."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trainable, "lr": lr, "weight_decay": weight_decay}]

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Sub-modules whose activations may be recomputed in the backward pass."""
        return []

    def shard_blocks(self) -> list[nn.Module]:
        """Layers that train.strategy=fsdp gathers one at a time, each run by its forward; none: it cannot."""
        return []

    def compile_targets(self) -> list[nn.Module]:
        """Sub-modules that torch.compile may compile; the network unless a system says otherwise."""
        return [self.model]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


MakeTask = Callable[[Any], Task]
