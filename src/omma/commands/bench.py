"""`omma bench`: where a training step's time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omma.commands.build import build_task, build_training_data, device_of
from omma.commands.flags import read_words
from omma.commands.train import system_of
from omma.data.loader import Loader, to_device
from omma.data.sampler import TrainBatches
from omma.engine.bench import WARMUP, bench_steps
from omma.engine.task import Batch, Task
from omma.runs.files import write_json_atomic
from omma.systems.recipes import Recipe, open_recipe


def bench_recipe(
    recipe: str, words: Sequence[str], *, steps: int = 10, json_file: Path | None = None
) -> dict[str, Any]:
    """Measure training steps on the recipe's data, or on random batches where no data root is set."""
    overrides = read_words(words, system_of(recipe)).overrides
    found = open_recipe(recipe, overrides)
    task = build_task(found, fresh=False).to(device_of(found))
    source = "the data set" if found.config.data.root else "random batches (no data.root)"
    with _batches(found, task, steps + WARMUP) as next_batch:
        result = bench_steps(task, found.config, next_batch, steps=steps) | {"batches": source}
    print(_table(found, result))  # noqa: T201
    if json_file:
        write_json_atomic(json_file, result)
    return result


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


def _table(recipe: Recipe, result: dict[str, Any]) -> str:
    config = recipe.config.train
    load = result["load"]
    lines = [
        f"{recipe.name}: batch {config.batch_size}, precision {config.precision}, {result['device']}, "
        f"{result['threads']} threads" + (f", load {load[0]:.1f}" if load else ""),
        f"  batches: {result['batches']}",
    ]
    step = result["ms"]["step"]
    lines += [f"  {part:<10} {ms:9.1f} ms  {100 * ms / step:5.1f} %" for part, ms in result["ms"].items()]
    return "\n".join(
        [
            *lines,
            f"  {result['samples_per_second']:.2f} samples/s, peak memory {result['memory_mib']:.0f} MiB",
        ]
    )
