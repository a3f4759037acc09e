"""What the training loop does besides resuming: logging, stopping, precision, failures."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omma.config.base import CosineSchedule, EarlyStop, Period
from omma.data.dataset import Sample
from omma.engine.checkpoint import TrainingState, find_last, is_complete, read_meta, read_weights
from omma.engine.loop import fit
from omma.engine.record import StepClock
from omma.engine.task import Batch, StepInfo
from omma.errors import ConfigError, DataError, NonFiniteError, OmmaError, OutOfMemoryError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics
from toy import ToySamples, ToyTask, assert_same, last_state, rows, toy_collate, toy_config, toy_fit

pytestmark = pytest.mark.e2e
TOY = Path(__file__).parents[1] / "toy.py"


def _log(run: RunFolder) -> str:
    return run.log_file.read_text(encoding="utf-8")


def test_files_and_status_of_a_finished_run(tmp_path):
    run, result = toy_fit(tmp_path / "run", toy_config(log={"every": 5}))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "best",
        "final",
        "last.txt",
        "step_000006",
        "step_000009",
        "step_000012",
    ]
    status = run.status()
    assert (status["state"], status["step"], status["total"]) == ("finished", 12, 12)
    assert status["best"] == {
        "metric": "accuracy",
        "value": result.best_value,
        "step": result.best_step,
    }
    assert [(row["step"], row["phase"]) for row in rows(run)] == [
        *((4, "val"), (5, "train"), (8, "val"), (10, "train"), (12, "val"))
    ]
    header = run.metrics_file.read_text(encoding="utf-8").splitlines()[0]
    assert header == (
        "step,epoch,phase,time_s,lr,loss,entropy,size,step_time,data_share,grad_norm,memory,accuracy"
    )
    row = read_metrics(run.metrics_file)[1]
    assert 0 <= row["data_share"] <= 1
    assert row["step_time"] > 0
    assert row["epoch"] == 0
    assert read_metrics(run.metrics_file)[3]["epoch"] == 1
    assert "step 5/12  loss" in _log(run)


def test_logged_values_are_those_of_the_step(tmp_path):
    """Every fifth row equals the fifth row of a run that logs each step: nothing is averaged over steps."""
    every, _ = toy_fit(tmp_path / "every", toy_config())
    fifth, _ = toy_fit(tmp_path / "fifth", toy_config(log={"every": 5}))
    assert [row for row in rows(every) if row["phase"] == "val" or row["step"] % 5 == 0] == rows(fifth)


def test_it_learns(tmp_path):
    config = toy_config(train={"length": Period(16, "epochs")}, optim={"lr": 0.02}, system={"dropout": 0.0})
    run, result = toy_fit(tmp_path / "run", config)
    assert result.step == 160
    assert result.best_value >= 0.7
    losses = [row["loss"] for row in rows(run) if row["phase"] == "train"]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_accumulation_equals_a_larger_batch(tmp_path):
    """Two micro-batches of 4 take the step of one batch of 8, where nothing depends on the batch's split."""
    plain = {"norm": False, "dropout": 0.0}
    one, _ = toy_fit(tmp_path / "one", toy_config(system=plain, train={"batch_size": 8}))
    two, _ = toy_fit(tmp_path / "two", toy_config(system=plain, train={"batch_size": 4, "accumulate": 2}))
    for name, value in last_state(one).items():
        if isinstance(value, Tensor):
            assert torch.allclose(value, last_state(two)[name], rtol=1e-4, atol=1e-6), name


def test_gradients_are_clipped_to_the_norm(tmp_path):
    """The plain SGD step is lr x the clipped gradient."""
    config = toy_config(
        optim={"name": "sgd", "lr": 0.5, "momentum": 0.0, "grad_clip": 0.01}, train={"length": Period(1)}
    )
    before = {name: value.clone() for name, value in ToyTask(config).named_parameters()}
    run, _ = toy_fit(tmp_path / "run", config)
    after = read_weights(run.checkpoints / "final" / "model.safetensors")
    moved = torch.cat([(after[name] - value).flatten() for name, value in before.items()]).detach().norm()
    assert float(moved) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert rows(run)[0]["grad_norm"] > 0.01


def test_learning_rate_follows_the_schedule(tmp_path):
    schedule = CosineSchedule(name="cosine", warmup=Period(4), warmup_factor=0.0)
    run, _ = toy_fit(tmp_path / "run", toy_config(schedule=schedule))
    rates = [row["lr"] for row in rows(run) if row["phase"] == "train"]
    assert rates[:5] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])
    assert rates[8] == pytest.approx(0.005)


def test_early_stop_validates_saves_and_says_so(tmp_path):
    class Worse(ToyTask):
        """Its accuracy stays where it was at the first validation."""

        def validation_step(self, batch: Batch, meters: Any) -> None:
            meters["accuracy"].update(batch["token"], torch.ones(len(batch["token"])))
            meters["entropy"].update(1.0)

    config = toy_config(train={"length": Period(100), "early_stop": EarlyStop(patience=2)})
    run, result = toy_fit(tmp_path / "run", config, Worse(config))
    assert (result.step, result.stopped, result.best_step) == (12, "early_stop", 4)
    assert read_meta(find_last(run))["step"] == 12
    assert run.status()["state"] == "finished"


def test_best_may_be_another_metric(tmp_path):
    run, result = toy_fit(tmp_path / "run", toy_config(save={"best": "val/entropy"}))
    values = {row["step"]: row["entropy"] for row in rows(run) if row["phase"] == "val"}
    assert result.best_value == min(values.values())
    assert read_meta(run.checkpoints / "best")["step"] == min(values, key=values.get)
    with pytest.raises(ConfigError, match=r"save.best.*psnr\n.*accuracy, entropy"):
        toy_fit(tmp_path / "other", toy_config(save={"best": "psnr"}))


def test_averaged_weights_are_evaluated_and_saved(tmp_path):
    config = toy_config(train={"ema": 0.9})
    task = ToyTask(config)
    weights: list[Tensor] = []
    task.on_validate = lambda: weights.append(task.model.head.weight.detach().clone())
    run, _ = toy_fit(tmp_path / "run", config, task)
    averaged = read_weights(run.checkpoints / "final" / "model_ema.safetensors")["model.head.weight"]
    live = read_weights(run.checkpoints / "final" / "model.safetensors")["model.head.weight"]
    assert torch.equal(weights[-1], averaged)
    assert not torch.equal(averaged, live)
    assert "averaged weights" in _log(run)


@pytest.mark.parametrize("option", ["activation_checkpointing", "channels_last"])
def test_options_that_change_no_result(tmp_path, option):
    plain, _ = toy_fit(tmp_path / "plain", toy_config())
    other, _ = toy_fit(tmp_path / "other", toy_config(train={option: True}))
    assert last_state(other).keys() == last_state(plain).keys()
    for row, expected in zip(rows(other), rows(plain), strict=True):
        if row["phase"] == "train":
            assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def _collate_with_matrix(samples: Sequence[Sample]) -> dict[str, Any]:
    return toy_collate(samples) | {"matrix": torch.eye(3)}


def test_bf16_trains_and_leaves_inputs_alone(tmp_path):
    """Weights and inputs stay float32 (camera matrices must not be rounded); the arithmetic is bfloat16."""
    config = toy_config(train={"precision": "bf16-mixed"})
    dtypes: set[torch.dtype] = set()

    class Check(ToyTask):
        def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
            dtypes.update({(batch["image"].float() + 0.1).dtype, self.model.head(torch.ones(1, 6)).dtype})
            dtypes.add(batch["matrix"].dtype)
            return super().training_step(batch, info)

    run, _ = toy_fit(tmp_path / "run", config, Check(config), collate=_collate_with_matrix)
    assert dtypes == {torch.float32, torch.bfloat16}
    plain, _ = toy_fit(tmp_path / "plain", toy_config())
    assert rows(run)[0]["loss"] != rows(plain)[0]["loss"]
    assert rows(run)[0]["loss"] == pytest.approx(rows(plain)[0]["loss"], rel=0.05)


def test_fp16_on_a_cpu_names_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"16-mixed needs a GPU\n.*bf16-mixed"):
        toy_fit(tmp_path / "run", toy_config(train={"precision": "16-mixed"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_device_is_said_and_the_cpu_used(tmp_path):
    run, _ = toy_fit(tmp_path / "run", toy_config(train={"device": "cuda:1"}))
    assert "train.device=cuda:1 is not there (0 CUDA devices found); using the CPU" in _log(run)


def test_settings_of_pytorch_are_put_back(tmp_path):
    flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    toy_fit(tmp_path / "run", toy_config(deterministic=True))
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == flags
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class Broken(ToyTask):
    """One term is not a number in the batch that holds sample-0007, from `first_step` on."""

    first_step = 3

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        terms = super().training_step(batch, info)
        if "sample-0007" in batch["token"] and info.step >= self.first_step:
            bad = terms["size"] * math.nan
            return {"loss": terms["loss"] + bad, "entropy": terms["entropy"], "size": bad}
        return terms


class BrokenGradient(ToyTask):
    """The loss is finite, its gradient is not: the square root of zero."""

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        terms = super().training_step(batch, info)
        return {**terms, "loss": terms["loss"] + (terms["loss"] * 0).sqrt()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, accumulate):
    config = toy_config(train={"length": Period(30), "accumulate": accumulate}, save={"every": Period(1)})
    task = Broken(config)
    with pytest.raises(NonFiniteError) as caught:
        toy_fit(tmp_path / "run", config, task)
    run = RunFolder(tmp_path / "run")
    text = str(caught.value)
    step = rows(run)[-1]["step"] + 1 if rows(run) else 1
    assert caught.value.exit_code == 5
    assert f"step {step} (term size = nan); nothing was updated" in text
    assert "sample-0007" in text
    assert text.count("sample-") == 4, "only the micro-batch at fault is listed"
    assert "try optim.lr=0.001\n  or optim.grad_clip=5\n" in text
    assert "omma doctor" in text
    assert run.status()["state"] == "failed"
    saved = read_weights(find_last(run) / "model.safetensors")
    assert read_meta(find_last(run))["step"] == step - 1
    for name, parameter in task.named_parameters():
        assert torch.equal(parameter, saved[name])


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    config = toy_config()
    with pytest.raises(NonFiniteError, match=r"gradient is not finite at step 1 \(norm nan; the loss is 1"):
        toy_fit(tmp_path / "run", config, BrokenGradient(config))


def test_out_of_memory_lists_what_helps(tmp_path):
    config = toy_config()

    def full(step: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(
        OutOfMemoryError, match=r"ran out of memory in step 1\n.*: train.batch_size=2  data.x=1"
    ) as e:
        toy_fit(
            tmp_path / "run",
            config,
            ToyTask(config, on_train=full),
            memory_keys=("train.batch_size=2", "data.x=1"),
        )
    assert e.value.exit_code == 4
    assert RunFolder(tmp_path / "run").status()["state"] == "failed"


def test_memory_of_the_machine(tmp_path):
    """What PyTorch's CPU allocator really raises."""
    config = toy_config()

    def on_validate() -> None:
        torch.empty(2**50)

    with pytest.raises(OutOfMemoryError, match="in the validation after step 4"):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_validate=on_validate))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_is_one_line(tmp_path, workers):
    class BrokenSample(ToySamples):
        def load(self, index: int, rng: np.random.Generator) -> dict:
            if index == 7:
                raise DataError(
                    "scene_0042/meta.json: camera CAM_BACK has a 3x4 intrinsic (sample 7 of train)"
                )
            return super().load(index, rng)

    with pytest.raises(DataError) as caught:
        toy_fit(tmp_path / "run", toy_config(train={"workers": workers}), samples=BrokenSample(40))
    assert (
        str(caught.value) == "scene_0042/meta.json: camera CAM_BACK has a 3x4 intrinsic (sample 7 of train)"
    )


def test_a_killed_worker_is_explained(tmp_path):
    class Dies(ToySamples):
        def load(self, index: int, rng: np.random.Generator) -> dict:
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

    with pytest.raises(OmmaError, match=r"data-loading process died in step 1.*\n.*train.workers"):
        toy_fit(tmp_path / "run", toy_config(train={"workers": 1}), samples=Dies(40))


def test_too_few_samples(tmp_path):
    with pytest.raises(DataError, match="3 samples, fewer than the 4 of one step"):
        toy_fit(tmp_path / "run", toy_config(), samples=ToySamples(3))


def test_without_validation_data(tmp_path):
    config = toy_config()
    run = RunFolder.create(tmp_path, "run", config=config.as_dict(), command=["omma"])
    result = fit(
        ToyTask(config),
        ToySamples(40),
        None,
        toy_collate,
        config,
        run,
        best=("val/accuracy", "max"),
        console=RunLog(None, quiet=True),
    )
    assert (result.step, result.best_value) == (12, None)
    assert not (run.checkpoints / "best").exists()


def test_files_of_the_original_project(tmp_path):
    """The writer sees each save; best and final with the weights that were evaluated."""
    config = toy_config(train={"ema": 0.9})
    task = ToyTask(config)
    seen: list[tuple[str, int, bool]] = []

    def writer(task: ToyTask, state: TrainingState) -> None:
        run = RunFolder(tmp_path / "run")
        name = f"step_{state.step:06d}" if state.kind == "step" else state.kind
        averaged = read_weights(run.checkpoints / name / "model_ema.safetensors")["model.head.weight"]
        seen.append((state.kind, state.step, torch.equal(task.model.head.weight, averaged)))
        assert state.optimizer["state"]

    toy_fit(tmp_path / "run", config, task, reference_writer=writer)
    assert {kind for kind, _, _ in seen} == {"step", "best", "final"}
    assert all(averaged == (kind != "step") for kind, _, averaged in seen)


def test_tensorboard_has_the_rows(tmp_path):
    run, _ = toy_fit(tmp_path / "run", toy_config(log={"tensorboard": True}))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.events)).Reload()
    assert {"train/loss", "train/size", "val/accuracy", "val/entropy"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val/accuracy")] == [4, 8, 12]


def test_clock_separates_waiting_from_working():
    clock = StepClock(earlier_s=100.0)
    with clock.waiting():
        time.sleep(0.05)
    clock.tick()
    values = clock.lap()
    assert values["time_s"] > 100
    assert values["data_share"] > 0.5
    assert clock.lap()["data_share"] == 0


def _start(folder: Path, sections: dict[str, Any], sleep_s: float = 0.0) -> subprocess.Popen[bytes]:
    jobs = json.dumps([{"folder": str(folder), "sections": sections, "sleep_s": sleep_s}], default=str)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(TOY), jobs], env=env, start_new_session=True)


def _wait_for_rows(run: RunFolder, process: subprocess.Popen[bytes], count: int) -> None:
    deadline = time.monotonic() + 120
    while not run.metrics_file.exists() or len(rows(run)) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG = {"train": {"length": 60, "workers": 2}, "save": {"every": 1}, "validate": {"every": 20}}


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_sigterm_to_the_whole_group_saves_and_leaves_no_worker(tmp_path):
    """As a scheduler does it: every process of the job gets the signal, the data workers too."""
    run = RunFolder(tmp_path / "run")
    process = _start(run.path, LONG, sleep_s=0.05)
    _wait_for_rows(run, process, 5)
    group = _group(process.pid)
    assert len(group) > 1
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert _all_gone(group)
    assert run.status()["state"] == "preempted"
    assert is_complete(find_last(run))
    straight, _ = toy_fit(tmp_path / "straight", toy_config(**_periods(LONG)))
    toy_fit(run.path, toy_config(**_periods(LONG)))
    assert_same(run, straight)


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_kill_9_at_any_moment_can_be_resumed(tmp_path):
    """Three kills while a checkpoint is written at every step; no worker outlives its process."""
    run = RunFolder(tmp_path / "run")
    for count in (4, 12, 21):
        process = _start(run.path, LONG)
        _wait_for_rows(run, process, count)
        group = _group(process.pid)
        process.kill()
        process.wait()
        assert _all_gone(group)
        assert is_complete(find_last(run))
    straight, _ = toy_fit(tmp_path / "straight", toy_config(**_periods(LONG)))
    toy_fit(run.path, toy_config(**_periods(LONG)))
    assert_same(run, straight)


def _periods(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {**values, "workers": 0} if name == "train" else values for name, values in sections.items()
    }


def _group(leader: int) -> list[int]:
    """Processes of the leader's group."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for pid in pids:
        try:
            if os.getpgid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


def _all_gone(pids: list[int], within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.2)
    return False


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compile_changes_no_result(tmp_path, recompute):
    """Losses and batch norm statistics are those of the plain run, also with recomputed activations."""
    same: dict[str, Any] = {
        "system": {"dropout": 0.0},  # compiled dropout draws other numbers
        "optim": {"name": "sgd", "lr": 0.01},  # Adam enlarges differences in the last bit
    }
    options = {"compile": True, "activation_checkpointing": recompute}
    run, _ = toy_fit(tmp_path / "run", toy_config(train=options, **same))
    plain, _ = toy_fit(tmp_path / "plain", toy_config(**same))
    for row, expected in zip(rows(run), rows(plain), strict=True):
        assert row["entropy"] == pytest.approx(expected["entropy"], rel=1e-3)
    compiled, expected = last_state(run), last_state(plain)
    assert compiled.keys() == expected.keys()
    for name in expected:
        if "running_mean" in name or "num_batches_tracked" in name:
            assert torch.allclose(compiled[name], expected[name], rtol=1e-2, atol=1e-4), name
