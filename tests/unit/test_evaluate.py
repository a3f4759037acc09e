from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omma.engine import evaluate as module
from omma.engine.evaluate import Evaluator, evaluate
from omma.engine.signals import StopRequested
from omma.errors import DataError
from omma.runs.console import RunLog
from toy import ToySamples, ToyTask, toy_collate, toy_config

CPU = torch.device("cpu")
QUIET = RunLog(None, quiet=True)
OPTIONS = {"batch_size": 4, "workers": 0, "device": CPU}


def test_metrics_and_rows_of_every_sample_in_order():
    task = ToyTask(toy_config())
    result = evaluate(task, ToySamples(10, augment=False), toy_collate, console=QUIET, **OPTIONS)
    assert [row["token"] for row in result.per_sample] == [f"sample-{index:04d}" for index in range(10)]
    assert result.metrics["accuracy"] == sum(row["correct"] for row in result.per_sample) / 10
    assert result.metrics["entropy"] > 0
    assert result.per_class == []


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_the_same(monkeypatch, world):
    """Each process evaluates its shard; joined, the result is that of one process, in the same order."""
    task = ToyTask(toy_config())
    data = ToySamples(10, augment=False)
    alone = evaluate(task, data, toy_collate, console=QUIET, **OPTIONS)
    states: list[dict] = []
    monkeypatch.setattr(module, "world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(module, "gather_objects", lambda state: states.append(state) or [state])
        evaluate(task, data, toy_collate, console=QUIET, **OPTIONS)
    monkeypatch.setattr(module, "gather_objects", lambda state: states)
    joined = evaluate(task, data, toy_collate, console=QUIET, **OPTIONS)
    assert joined.metrics["accuracy"] == alone.metrics["accuracy"]
    assert joined.metrics["entropy"] == pytest.approx(alone.metrics["entropy"], rel=1e-12)
    assert joined.per_sample == alone.per_sample


def test_a_process_without_a_last_batch_still_asks_whether_to_stop(monkeypatch):
    """The question is a collective call: all processes have to ask equally often."""
    calls = {0: 0, 1: 0}
    monkeypatch.setattr(module, "world_size", lambda: 2)
    for rank in calls:
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        evaluator = Evaluator(ToySamples(9), toy_collate, **OPTIONS)

        def ask(rank: int = rank) -> None:
            calls[rank] += 1

        evaluator.run(ToyTask(toy_config()), QUIET, check_stop=ask)
    assert calls == {0: 2, 1: 2}


def test_leaving_puts_the_task_back_into_training_mode():
    task = ToyTask(toy_config()).train()

    def leave() -> None:
        raise StopRequested

    evaluator = Evaluator(ToySamples(9), toy_collate, **OPTIONS)
    with pytest.raises(StopRequested):
        evaluator.run(task, QUIET, check_stop=leave)
    assert task.training
    evaluator.run(task.eval(), QUIET)
    assert not task.training


def test_limit_and_no_gradient():
    seen: list[bool] = []
    task = ToyTask(toy_config(), on_validate=lambda: seen.append(torch.is_grad_enabled()))
    result = evaluate(task, ToySamples(10), toy_collate, limit=3, console=QUIET, **OPTIONS)
    assert len(result.per_sample) == 3
    assert seen == [False]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float32)],
)
def test_precision(precision, dtype):
    """Half precision needs a GPU; on a CPU a checkpoint trained with it is evaluated in 32 bit."""
    seen: list[torch.dtype] = []
    task = ToyTask(toy_config())
    task.on_validate = lambda: seen.append(task.model.head(torch.ones(1, 6)).dtype)
    evaluate(task, ToySamples(4), toy_collate, precision=precision, console=QUIET, **OPTIONS)
    assert seen == [dtype]


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="evaluation set is empty"):
        evaluate(ToyTask(toy_config()), ToySamples(0), toy_collate, console=QUIET, **OPTIONS)


def test_worker_processes_serve_several_evaluations(tmp_path: Path):
    task = ToyTask(toy_config())
    evaluator = Evaluator(ToySamples(9), toy_collate, **{**OPTIONS, "workers": 1})
    assert evaluator.run(task, QUIET) == evaluator.run(task, QUIET)
