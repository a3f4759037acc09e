"""E5, E8, E9, E14 and E17 on the tiny system of tests/toy.py: signals, faults and crashes at any moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from omma.config.base import Period
from omma.engine import setup
from omma.engine.checkpoint import find_last, is_complete
from omma.engine.loop import Training
from omma.errors import Preempted
from omma.runs.folder import RunFolder
from toy import ToyConfig, ToyNet, ToyTask, assert_same, rows, toy_config, toy_fit

pytestmark = pytest.mark.e2e
LONG_NAME = f"{'긴 이름 ' * 10}{'x' * 90}"  # 160 characters, 260 of UTF-8 with the folders around it


class Gone(BaseException):
    """The process is gone in the middle of a file operation: no handler runs."""


class Fault:
    """Lets the n-th file operation inside `save` and all after it fail, as in a killed process; counts all.

    Args:
        place: number of the first operation that fails, from 0; None lets all pass.
    """

    OPERATIONS = (
        *((os, name) for name in ("fsync", "open", "rename", "replace", "unlink", "rmdir", "mkdir")),
        *((Path, name) for name in ("open", "mkdir", "replace", "rename", "unlink", "write_bytes")),
        (shutil, "rmtree"),
        (safetensors.torch, "save_file"),
        (torch, "save"),
    )

    def __init__(self, place: int | None) -> None:
        self.place, self.count, self.active = place, 0, False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for module, name in self.OPERATIONS:
            patch.setattr(module, name, self._guarded(getattr(module, name)))
        save = Training._save

        def watched(training: Training, name: str) -> None:
            self.active = training.state.progress.step >= 6  # two step checkpoints and a best are there
            try:
                save(training, name)
            finally:
                self.active = False

        patch.setattr(Training, "_save", watched)

    def _guarded(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return operation(*args, **kwargs)
            number, self.count = self.count, self.count + 1
            if self.place is not None and number >= self.place:
                raise Gone
            return operation(*args, **kwargs)

        return guarded


CONFIG = toy_config(train={"length": Period(9), "ema": 0.9}, save={"every": Period(3), "keep_last": 1})


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return toy_fit(tmp_path_factory.mktemp("straight") / "run", CONFIG)[0]


def _count(folder: Path) -> int:
    fault = Fault(None)
    with pytest.MonkeyPatch.context() as patch:
        fault.install(patch)
        toy_fit(folder, CONFIG)
    return fault.count


def _check_after_fault(run: RunFolder, straight: RunFolder) -> None:
    """What is there loads; a resume gives the bits of the straight run and nothing half-written stays."""
    last = find_last(run)
    assert last is not None
    assert is_complete(last)
    json.loads((run.path / "status.json").read_text(encoding="utf-8"))
    toy_fit(run.path, CONFIG)
    assert run.status()["state"] == "finished"
    assert_same(run, straight)
    left = [path for path in run.path.rglob("*") if path.name.startswith((".tmp", ".old", ".del"))]
    assert left == []
    folders = [path for path in run.checkpoints.iterdir() if path.is_dir()]
    assert {path.name for path in folders} - {"step_000006"} == {"best", "final", "step_000009"}
    assert all(is_complete(path) for path in folders)  # one that was not yet deleted is whole


def _places(total: int, share: int) -> list[int]:
    """Every `share`-th operation, and the last."""
    return sorted({*range(0, total, share), total - 1})


def _gone_at(places: list[int], folder: Path, straight: RunFolder) -> None:
    for place in places:
        run = RunFolder(folder / f"gone{place}")
        fault = Fault(place)
        with pytest.MonkeyPatch.context() as patch:
            fault.install(patch)
            with pytest.raises(Gone):
                toy_fit(run.path, CONFIG)
        assert fault.count > place
        _check_after_fault(run, straight)


def test_a_process_gone_at_some_file_operations_can_go_on(tmp_path, straight):
    """E9: step_N, best, final, last.txt and pruning; every seventh operation, the slow test takes all."""
    total = _count(tmp_path / "count")
    assert total > 60
    _gone_at(_places(total, 7), tmp_path, straight)


@pytest.mark.slow
def test_a_process_gone_at_any_file_operation_can_go_on(tmp_path, straight):
    """E9: all of them."""
    _gone_at(_places(_count(tmp_path / "count"), 1), tmp_path, straight)


def test_three_resumes_with_new_columns_and_old_rows(tmp_path):
    """E8: the header grows, earlier rows keep their values and get empty cells, no row is lost or doubled."""
    for stop, terms in (
        (2, ("entropy", "size")),
        (5, ("entropy", "size", "third")),
        (9, ("entropy", "size")),
    ):

        class Another(ToyTask):
            train_terms = terms

            def training_step(self, batch, info):
                return super().training_step(batch, info) | {"third": torch.tensor(float(info.step))}

        config = toy_config()
        task = Another(config, on_train=_signal_at(stop))
        with pytest.raises(Preempted):
            toy_fit(tmp_path / "run", config, task)
    run, _ = toy_fit(tmp_path / "run", toy_config())
    found = [row for row in rows(run) if row["phase"] == "train"]
    assert [row["step"] for row in found] == list(range(1, 13))
    assert [row["step"] for row in found if "third" in row] == [4, 5, 6]
    assert [row["third"] for row in found if "third" in row] == [3.0, 4.0, 5.0]
    assert run.metrics_file.read_text(encoding="utf-8").splitlines()[0].endswith(",accuracy,third")


def _signal_at(step: int) -> Callable[[int], None]:
    def hook(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


def test_sigterm_inside_the_first_compile_saves_and_goes_on(tmp_path, monkeypatch):
    """E5: the signal comes while Dynamo hands the network to its compiler."""
    config = _for_compiler(compile=True)
    compiled: list[int] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(1)
        if len(compiled) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return graph.forward

    original = ToyNet.compile
    monkeypatch.setattr(ToyNet, "compile", lambda self: original(self, backend=compiler))
    torch.compiler.reset()
    with pytest.raises(Preempted) as caught:
        toy_fit(tmp_path / "run", config)
    assert caught.value.exit_code == 143
    assert compiled
    run = RunFolder(tmp_path / "run")
    assert run.status()["state"] == "preempted"
    assert find_last(run).name == "step_000000"  # the step that was compiled for is not waited for
    assert is_complete(find_last(run))
    torch.compiler.reset()
    toy_fit(tmp_path / "run", config)
    torch.compiler.reset()
    assert_same(run, toy_fit(tmp_path / "straight", _for_compiler(compile=False))[0])


def _for_compiler(**train: bool) -> ToyConfig:
    return toy_config(
        train={"length": Period(4), **train}, validate={"every": Period(4)}, system={"dropout": 0.0}
    )


def test_a_long_path_of_hangul_and_spaces(tmp_path):
    """E14: more than 260 characters, the limit of old Windows programs; stopped, resumed, no link in it."""
    root = tmp_path / ("폴더 folder " * 8).strip()
    config = toy_config(log={"tensorboard": True})
    folder = root / LONG_NAME
    assert len(str(folder / "checkpoints" / "step_000012" / "model.safetensors")) > 260
    with pytest.raises(Preempted):
        toy_fit(folder, config, ToyTask(config, on_train=_signal_at(5)))
    run, result = toy_fit(folder, config)
    assert result.step == 12
    assert list(run.events.iterdir())
    assert not [path for path in run.path.rglob("*") if path.is_symlink()]


def test_spawned_workers_give_the_same_bits(tmp_path, monkeypatch):
    """E14: as on Windows and macOS, where nothing of this process is inherited."""
    monkeypatch.setattr(setup, "start_method", lambda processes: "spawn")
    spawned, _ = toy_fit(tmp_path / "spawned", _with_workers(1))
    assert_same(spawned, toy_fit(tmp_path / "plain", _with_workers(0))[0])


def _with_workers(workers: int) -> ToyConfig:
    return toy_config(train={"workers": workers, "length": Period(5)}, validate={"every": Period(5)})


def test_every_log_line_says_how_long_the_step_waited_for_data(tmp_path):
    """E17: the overhead itself is measured by benchmarks/overhead.py."""
    run, _ = toy_fit(tmp_path / "run", toy_config(train={"length": Period(4)}))
    lines = [line for line in run.log_file.read_text(encoding="utf-8").splitlines() if "loss" in line]
    lines = [line for line in lines if re.match(r".*step \d+/4 ", line)]
    assert len(lines) == 4
    assert all(re.search(r"data \d+%", line) for line in lines)
