"""How good each cycle would be if it predicted: distillation brings the first one up to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from omma.data.dataset import Collate, Samples
from omma.engine.evaluate import EvalResult, evaluate
from omma.systems.sdpose.config import SDPoseConfig
from omma.systems.sdpose.model import SDPose
from omma.systems.sdpose.task import SDPoseTask

METRICS = ("AP", "PCK@0.1")


class Console(Protocol):
    """Where lines go."""

    def line(self, text: str) -> None:
        """Write one line."""
        ...


class _LastOf(nn.Module):
    """The network with the heatmaps of a later cycle."""

    def __init__(self, network: SDPose, cycles: int) -> None:
        super().__init__()
        self.network, self.cycles = network, cycles

    def forward(self, image: Tensor) -> Tensor:
        """Heatmaps (B, K, H / 4, W / 4)."""
        heatmaps: Tensor = self.network.forward_cycles(image, cycles=self.cycles)[-1].heatmaps
        return heatmaps


@contextmanager
def predicting_with(task: SDPoseTask, cycle: int) -> Iterator[None]:
    """Inside the block the task predicts with that cycle, counted from 1."""
    network = task.model
    task.model = _LastOf(network, cycle)
    try:
        yield
    finally:
        task.model = network


def cycles(
    task: SDPoseTask, config: SDPoseConfig, data: Samples, collate: Collate, console: Console
) -> dict[str, dict[str, Any]]:
    """AP and PCK of every cycle that the training has, and of one more.

    Returns:
        study name -> curve: title, x_label, y_label, x and series, as the report draws it.
    """
    numbers = list(range(1, task.cycles + 2))
    results = [_evaluated(task, cycle, config, data, collate, console) for cycle in numbers]
    series = {name: [result.metrics[name] for result in results] for name in METRICS}
    for name, values in series.items():
        listed = ", ".join(f"{cycle}: {value:.4f}" for cycle, value in zip(numbers, values, strict=True))
        console.line(f"{name} of each cycle: {listed} (trained with {task.cycles})")
    title = f"Each cycle, trained with {task.cycles}"
    curve = {"title": title, "x_label": "cycle", "y_label": "AP, PCK", "x": numbers, "series": series}
    return {"cycles": curve}


def _evaluated(
    task: SDPoseTask, cycle: int, config: SDPoseConfig, data: Samples, collate: Collate, console: Any
) -> EvalResult:
    size = config.validation.batch_size or config.train.batch_size
    with predicting_with(task, cycle):
        return evaluate(
            task,
            data,
            collate,
            batch_size=size if isinstance(size, int) else 1,
            workers=config.train.workers,
            device=task.device,
            precision=config.train.precision,
            console=console,
        )
