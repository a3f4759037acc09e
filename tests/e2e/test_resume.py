"""A run that stops and resumes ends with the same bits as one that does not (CPU)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omma.config.base import Period, PlateauSchedule
from omma.core.meter import Meter
from omma.engine.checkpoint import find_last, read_meta
from omma.engine.task import Batch, StepInfo
from omma.errors import Preempted
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics
from toy import ToyConfig, ToySamples, ToyTask, assert_same, last_state, rows, toy_config, toy_fit

pytestmark = pytest.mark.e2e


def _signal_at(step: int, number: int = signal.SIGTERM) -> Callable[[int], None]:
    """A hook that signals this process once, while `step` (steps finished before) is computed."""
    waiting = [True]

    def hook(now: int) -> None:
        if now == step and waiting:
            waiting.clear()
            os.kill(os.getpid(), number)

    return hook


def _stop_at(folder: Path, config: ToyConfig, step: int, number: int = signal.SIGTERM) -> RunFolder:
    """Train until a signal arrives in `step`."""
    with pytest.raises(Preempted) as caught:
        toy_fit(folder, config, ToyTask(config, on_train=_signal_at(step, number)))
    assert caught.value.exit_code == 143
    run = RunFolder(folder)
    assert run.status()["state"] == "preempted"
    return run


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ToyConfig], RunFolder]:
    """The uninterrupted run of a config, trained once; workers do not matter for it."""
    folder = tmp_path_factory.mktemp("straight")
    runs: dict[str, RunFolder] = {}

    def get(config: ToyConfig) -> RunFolder:
        key = config.model_dump_json(exclude={"train": {"workers"}})
        if key not in runs:
            runs[key] = toy_fit(folder / str(len(runs)), config)[0]
        return runs[key]

    return get


@pytest.mark.parametrize("stop", [1, 3, 4, 8, 9, 10])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_stopped_and_resumed_equals_straight(tmp_path, straight, accumulate, stop):
    """Inside an epoch, at its end and after it (step 10 or 3), at and after a validation (4) and a save."""
    config = toy_config(train={"accumulate": accumulate, "ema": 0.9})
    run = _stop_at(tmp_path / "run", config, stop)
    saved_at = read_meta(find_last(run))["step"]
    assert saved_at == (stop + 1 if accumulate == 1 else stop)
    toy_fit(tmp_path / "run", config)
    assert run.status()["state"] == "finished"
    assert_same(run, straight(config))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_with_worker_processes(tmp_path, straight, accumulate):
    config = toy_config(train={"accumulate": accumulate, "ema": 0.9, "workers": 2})
    run = _stop_at(tmp_path / "run", config, 5)
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))


def test_many_stops_lose_and_double_no_row(tmp_path, straight):
    config = toy_config(train={"ema": 0.9})
    for stop in (2, 5, 9):
        run = _stop_at(tmp_path / "run", config, stop)
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))
    assert [(row["step"], row["phase"]) for row in rows(run) if row["phase"] == "val"] == [
        (4, "val"),
        (8, "val"),
        (12, "val"),
    ]
    assert [row["step"] for row in rows(run) if row["phase"] == "train"] == list(range(1, 13))
    times = [row["time_s"] for row in read_metrics(run.metrics_file)]
    assert times == sorted(times)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_inside_a_validation(tmp_path, straight, number):
    """The unfinished validation is done again first, with the same result, and is recorded once."""
    config = toy_config(train={"ema": 0.9}, validate={"every": Period(4)})
    calls: list[int] = []

    def hook() -> None:
        calls.append(len(calls))
        if len(calls) == 5:  # three batches a validation: the second batch of the second one
            os.kill(os.getpid(), number)

    with pytest.raises(Preempted):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_validate=hook))
    run = RunFolder(tmp_path / "run")
    state = last_state(run)
    assert (state["step"], state[".progress.pending_validation"]) == ("step_000008", True)
    assert [row["step"] for row in rows(run) if row["phase"] == "val"] == [4]
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))


def test_a_validation_recorded_but_not_saved_is_not_doubled(tmp_path, straight):
    """Killed between the row of a repeated validation and the next save."""
    config = toy_config(train={"ema": 0.9})

    def stop_in_validation() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    class Killed(BaseException):
        pass

    def killed(step: int) -> None:
        raise Killed

    with pytest.raises(Preempted):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_validate=stop_in_validation))
    with pytest.raises(Killed):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_train=killed))
    run, _ = toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))


def test_resume_after_a_crash_goes_back_to_the_last_checkpoint(tmp_path, straight):
    config = toy_config(train={"ema": 0.9})

    def crash(step: int) -> None:
        if step == 7:
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_train=crash))
    run = RunFolder(tmp_path / "run")
    assert run.status()["state"] == "failed"
    assert run.status()["error"] == "boom"
    assert rows(run)[-1]["step"] == 7
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))


def test_plateau_and_early_stop_survive(tmp_path, straight):
    config = toy_config(
        train={"length": Period(40)},
        validate={"every": Period(2)},
        schedule=PlateauSchedule(name="plateau", patience=2, gamma=0.5),
    )
    run = _stop_at(tmp_path / "run", config, 17)
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))
    rates = [row["lr"] for row in rows(run) if row["phase"] == "train"]
    assert rates[0] == 0.01
    assert rates[-1] < 0.01


def test_finished_run_is_left_as_it_is(tmp_path):
    config = toy_config()
    run, _ = toy_fit(tmp_path / "run", config)
    files = {path: path.read_bytes() for path in (run.checkpoints / "step_000012").iterdir()}
    before = rows(run)
    _, result = toy_fit(tmp_path / "run", config)
    assert (result.step, result.stopped) == (12, "length")
    assert rows(run) == before
    assert {path: path.read_bytes() for path in files} == files


def test_another_global_batch_is_said_and_the_order_goes_on(tmp_path):
    config = toy_config(train={"batch_size": 8})
    run = _stop_at(tmp_path / "run", config, 1)
    smaller = toy_config(train={"batch_size": 4})
    task = ToyTask(smaller)
    toy_fit(tmp_path / "run", smaller, task)
    whole = ToyTask(config)
    toy_fit(tmp_path / "other", config, whole)
    expected = [token for batch in whole.seen for token in batch][16:]
    seen = [token for batch in task.seen for token in batch]
    assert seen[:24] == expected[:24]
    assert "trained with 8 samples a step, now 4" in run.log_file.read_text(encoding="utf-8")


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    config = toy_config()

    def twice(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        toy_fit(tmp_path / "run", config, ToyTask(config, on_train=twice))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert read_meta(find_last(RunFolder(tmp_path / "run")))["step"] == 3


def test_a_stop_before_the_first_step_starts_again_from_the_same_weights(tmp_path, straight):
    config = toy_config(train={"ema": 0.9})

    class Early(ToySamples):
        def __len__(self) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().__len__()

    with pytest.raises(Preempted):
        toy_fit(tmp_path / "run", config, samples=Early(40))
    run = RunFolder(tmp_path / "run")
    assert read_meta(find_last(run))["step"] == 0
    torch.manual_seed(123)
    toy_fit(tmp_path / "run", config)
    assert_same(run, straight(config))


SCORES = {4: (1.0, 2.0), 8: (0.5, 1.0), 12: (0.0, 1.5)}  # step -> accuracy, entropy


class Told(ToyTask):
    """Gives the scores that it was told: accuracy falls; entropy is best at step 8."""

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        self.now = info.step + 1
        return super().training_step(batch, info)

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        accuracy, entropy = SCORES[self.now]
        meters["accuracy"].update(batch["token"], torch.full((len(batch["token"]),), 2 * accuracy))
        meters["entropy"].update(entropy)


@pytest.mark.parametrize(
    ("save_every", "recorded", "best_step", "said"),
    [
        (4, True, 8, "it was 1 at step 8"),  # these weights are there as step_000008
        (5, True, 12, "it was 2 at step 4"),  # those of step 8 are gone, those of step 4 are in best/
        (4, False, 12, "no value of it so far"),
    ],
)
def test_another_best_metric_starts_from_its_own_history(tmp_path, save_every, recorded, best_step, said):
    """best/ and its value belong to one metric: the new one's best among the weights that are there."""
    saves = {"every": Period(save_every)}
    config = toy_config(save=saves)
    with pytest.raises(Preempted):
        toy_fit(tmp_path / "run", config, Told(config, on_train=_signal_at(9)))
    run = RunFolder(tmp_path / "run")
    assert read_meta(run.checkpoints / "best")["step"] == 4
    if not recorded:
        text = run.metrics_file.read_text(encoding="utf-8")
        run.metrics_file.write_text(text.replace(",entropy", ",other"), encoding="utf-8")
    config = toy_config(save={**saves, "best": "entropy"})
    _, result = toy_fit(tmp_path / "run", config, Told(config))
    assert (result.best_value, result.best_step) == (SCORES[best_step][1], best_step)
    assert read_meta(run.checkpoints / "best")["step"] == best_step
    best = run.status()["best"]
    assert (best["metric"], best["value"], best["step"]) == ("entropy", result.best_value, best_step)
    assert f"best/ was kept by accuracy, from here by entropy; {said}" in run.log_file.read_text(
        encoding="utf-8"
    )
