"""Evaluation: one pass over a data set, sharded over the processes, meters joined at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from omma.core.meter import Meter
from omma.data.dataset import Collate, Samples, Subset
from omma.data.loader import Loader, start_method, to_device
from omma.data.sampler import validation_batches
from omma.engine.ranks import gather_objects, rank, share_buffers, world_size
from omma.engine.rng import seed_step
from omma.engine.task import Task
from omma.errors import DataError
from omma.runs.console import RunLog


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Args:
        metrics: metric name -> value.
        per_sample: one row a sample, in the order of the data set.
        per_class: one row a class.
        meters: that found it.
    """

    metrics: dict[str, float]
    per_sample: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    meters: Mapping[str, Meter] = field(compare=False, repr=False)

    @classmethod
    def from_meters(cls, meters: Mapping[str, Meter]) -> EvalResult:
        """Read the meters."""
        return cls(
            metrics={name: float(v) for meter in meters.values() for name, v in meter.compute().items()},
            per_sample=[row for meter in meters.values() for row in meter.per_sample()],
            per_class=[row for meter in meters.values() for row in meter.per_class()],
            meters=meters,
        )


def metric_names(task: Task) -> list[str]:
    """The metrics that an evaluation of the task gives."""
    return [name for meter in task.meters().values() for name in meter.names]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The autocast of a recipe's `train.precision`; none for "32", and for "16-mixed" on a CPU."""
    if precision == "16-mixed" and device.type == "cpu":
        precision = "32"
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


class Evaluator:
    """Evaluates a task on a data set, as often as asked; data-loading processes stay alive in between.

    Args:
        data: the data set.
        collate: joins samples into a batch.
        batch_size: samples a batch.
        workers: data-loading processes.
        device: where the task is.
        precision: "32", "bf16-mixed" or "16-mixed"; the last one runs in 32 bit on a CPU.
        limit: evaluate the first so many samples only.

    Raises:
        DataError: the data set is empty.
    """

    def __init__(
        self,
        data: Samples,
        collate: Collate,
        *,
        batch_size: int,
        workers: int,
        device: torch.device,
        precision: str = "32",
        limit: int | None = None,
    ) -> None:
        if len(data) == 0:
            raise DataError("the evaluation set is empty", "`omma doctor RECIPE` shows what was found where")
        self._data = data if limit is None or limit >= len(data) else Subset(data, range(limit))
        self._device = device
        self._precision = precision
        batches = validation_batches(len(self._data), batch_size, rank=rank(), world=world_size())
        self._num_batches = len(validation_batches(len(self._data), batch_size, world=world_size()))
        self._loader = Loader(
            self._data,
            collate,
            batches,
            workers=workers,
            device=device,
            start_method=start_method(world_size()),
        )

    @torch.no_grad()
    def run(
        self, task: Task, console: RunLog, *, check_stop: Callable[[], None] = lambda: None
    ) -> EvalResult:
        """Evaluate a task, which is in training mode afterwards if it was before.

        Args:
            task: on the device.
            console: shows a progress bar.
            check_stop: called before each batch, by every process equally often; may raise to leave.

        Returns:
            the same result in every process.
        """
        share_buffers(task)
        meters = task.meters()
        was_training = task.training
        task.eval()
        try:
            self._update(task, meters, console, check_stop)
        finally:
            task.train(was_training)
        for name, states in _by_name(gather_objects({name: meter.state() for name, meter in meters.items()})):
            meters[name].merge(states)
        return self._in_order(EvalResult.from_meters(meters))

    def close(self) -> None:
        """End the data-loading processes."""
        self._loader.close()

    def _update(
        self, task: Task, meters: dict[str, Meter], console: RunLog, check_stop: Callable[[], None]
    ) -> None:
        batches = iter(self._loader)
        with console.progress(self._num_batches, label="evaluating") as bar:
            for index in range(self._num_batches):
                check_stop()
                batch = next(batches, None)
                if batch is not None:  # another process may have one batch more
                    seed_step(0, index, 0, rank())
                    with autocast(self._device, self._precision):
                        task.validation_step(to_device(batch, self._device), meters)
                bar.update(index + 1)

    def _in_order(self, result: EvalResult) -> EvalResult:
        """Rows by sample as in the data set, however many processes shared them."""
        order = {self._data.name(index): index for index in range(len(self._data))}
        rows = sorted(result.per_sample, key=lambda row: order.get(row.get("token", ""), len(order)))
        return replace(result, per_sample=rows)


def _by_name(states: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [(name, [of_rank[name] for of_rank in states]) for name in states[0]]


def evaluate(
    task: Task,
    data: Samples,
    collate: Collate,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str = "32",
    limit: int | None = None,
    console: RunLog,
) -> EvalResult:
    """Evaluate a task once; see `Evaluator`."""
    evaluator = Evaluator(
        data,
        collate,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        limit=limit,
    )
    try:
        return evaluator.run(task, console)
    finally:
        evaluator.close()
