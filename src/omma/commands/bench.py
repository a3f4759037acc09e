"""`omma bench`: where a training step's time goes, and how large a batch fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omma.commands.build import build_task, build_training_data, device_of
from omma.commands.flags import read_words
from omma.commands.typed import system_of
from omma.data.loader import Loader, to_device
from omma.data.sampler import TrainBatches
from omma.engine.bench import WARMUP, bench_steps
from omma.engine.estimate import estimate_memory, usable_memory
from omma.engine.memory import MARGIN
from omma.engine.task import Batch, Task
from omma.runs.files import write_json_atomic
from omma.systems.recipes import Recipe, open_recipe

MIB, GIB = 2**20, 2**30


def bench_recipe(
    recipe: str,
    words: Sequence[str],
    *,
    steps: int = 10,
    memory_gib: float | None = None,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Measure training steps on the recipe's data, or on random batches where no data root is set.

    Args:
        recipe: what is trained.
        words: settings, or flags of the original tool.
        steps: measured steps.
        memory_gib: of a device that need not be here: estimate the largest batch for it, run no steps.
        json_file: the numbers are written there too.

    Returns:
        the numbers: "memory", bytes and the largest batch; and with steps the keys of `bench_steps`.
    """
    found = open_recipe(recipe, read_words(words, system_of(recipe)).overrides)
    if memory_gib is None:
        device = device_of(found)
        limit = usable_memory(device)
        result = _timed(found, device, steps) | _estimate(found, device, limit, "what may be used here")
    else:
        limit = int(MARGIN * memory_gib * GIB)
        result = _estimate(found, torch.device("cpu"), limit, f"{MARGIN:.0%} of {memory_gib:g} GiB")
    print("\n".join([found.name, *_time_lines(found, result), *_memory_lines(found, result)]))  # noqa: T201
    if json_file:
        write_json_atomic(json_file, result)
    return result


def _estimate(recipe: Recipe, device: torch.device, limit: int, of_what: str) -> dict[str, Any]:
    task = build_task(recipe, fresh=False).to(device)
    memory = estimate_memory(task, recipe.config, limit=usable_memory(device))
    largest = memory.largest_batch(limit)
    return {"memory": vars(memory) | {"limit": limit, "limit_is": of_what, "largest_batch": largest}}


def _timed(recipe: Recipe, device: torch.device, steps: int) -> dict[str, Any]:
    task = build_task(recipe, fresh=False).to(device)
    source = "the data set" if recipe.config.data.root else "random batches (no data.root)"
    with _batches(recipe, task, steps + WARMUP) as next_batch:
        return bench_steps(task, recipe.config, next_batch, steps=steps) | {"batches": source}


@contextmanager
def _batches(recipe: Recipe, task: Task, steps: int) -> Iterator[Callable[[], Batch]]:
    """A function that gives the next batch on the task's device."""
    size, workers = recipe.config.train.batch_size, recipe.config.train.workers
    batch_size = size if isinstance(size, int) else 1
    if recipe.config.data.root is None:
        batch = task.example_batch(batch_size)
        yield lambda: batch
        return
    data, _, collate = build_training_data(recipe)
    order = TrainBatches(len(data), batch_size, seed=recipe.config.seed, num_steps=steps)
    loader = Loader(data, collate, order, workers=workers, device=task.device)
    batches = iter(loader)
    try:
        yield lambda: to_device(next(batches), task.device)
    finally:
        loader.close()


def _time_lines(recipe: Recipe, result: dict[str, Any]) -> list[str]:
    """Where a step's time goes; none where no step was run."""
    if "ms" not in result:
        return []
    config, load, step = recipe.config.train, result["load"], result["ms"]["step"]
    machine = f"{result['device']}, {result['threads']} threads" + (f", load {load[0]:.1f}" if load else "")
    return [
        f"  batch {config.batch_size}, precision {config.precision}, {machine}",
        f"  batches: {result['batches']}",
        *(f"  {part:<10} {ms:9.1f} ms  {100 * ms / step:5.1f} %" for part, ms in result["ms"].items()),
        f"  {result['samples_per_second']:.2f} samples/s, peak memory {result['memory_mib']:.0f} MiB",
    ]


def _memory_lines(recipe: Recipe, result: dict[str, Any]) -> list[str]:
    """What a training keeps in memory, estimated, and the largest batch."""
    sizes, train = result["memory"], recipe.config.train
    held = {"weights": "weights", "averaged": "averaged weights", "gradients": "gradients"}
    held |= {"optimiser": "optimiser", "shared": "kept once"}
    listed = ", ".join(f"{name} {sizes[key] / MIB:.0f} MiB" for key, name in held.items() if sizes[key] > MIB)
    form = f"precision {train.precision}" + (", recomputed" if train.activation_checkpointing else "")
    bound = "at least " if sizes["at_least"] else ""
    share = f"{sizes['limit_is']}, {sizes['limit'] / GIB:.1f} GiB"
    return [
        f"  estimated memory, {form}: {listed}",
        f"  and {bound}{sizes['per_sample'] / MIB:.1f} MiB a sample; batch size set: {train.batch_size}",
        f"  largest train.batch_size within {share}: {sizes['largest_batch']}",
    ]
