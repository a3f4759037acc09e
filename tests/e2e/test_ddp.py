"""Two CPU processes over gloo: same losses and metrics as one, exact resume, leaving together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from omma.engine import launch
from omma.engine.launch import run_workers
from omma.runs.folder import RunFolder
from toy import ToyTask, assert_same, last_state, rows, toy_config, toy_fit

pytestmark = [pytest.mark.e2e, pytest.mark.multi]
TOY = Path(__file__).parents[1] / "toy.py"
PLAIN = {"system": {"norm": False, "dropout": 0.0}}  # nothing depends on the split of a batch
SMALL = {"batch_size": 2, "ema": 0.9, "accumulate": 2}


def _launch(monkeypatch: pytest.MonkeyPatch, jobs: list[dict[str, Any]], devices: int = 2) -> int:
    monkeypatch.setattr(launch, "_COMMAND", (sys.executable, str(TOY)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return run_workers([json.dumps(jobs, default=str)], devices)


def _seen(folder: Path, rank: int) -> list[list[str]]:
    return json.loads(Path(f"{folder}-seen-{rank}.json").read_text(encoding="utf-8"))


def _losses(run: RunFolder) -> list[float]:
    return [row["loss"] for row in rows(run) if row["phase"] == "train"]


def test_two_processes_equal_one(tmp_path, monkeypatch):
    """Batch 4 in each of two processes gives the losses, metrics and sample order of batch 8 in one."""
    sections = {**PLAIN, "train": {"batch_size": 4}}
    assert _launch(monkeypatch, [{"folder": str(tmp_path / "two"), "sections": sections}]) == 0
    config = toy_config(**PLAIN, train={"batch_size": 8})
    task = ToyTask(config)
    one, _ = toy_fit(tmp_path / "one", config, task)
    two = RunFolder(tmp_path / "two")
    assert two.status()["state"] == "finished"
    merged = [a + b for a, b in zip(_seen(two.path, 0), _seen(two.path, 1), strict=True)]
    assert merged == task.seen
    assert len(rows(one)) == len(rows(two)) == 15
    for row, other in zip(rows(one), rows(two), strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert other[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), name
    assert [r["accuracy"] for r in rows(one) if r["phase"] == "val"] == [
        r["accuracy"] for r in rows(two) if r["phase"] == "val"
    ]


def test_resume_is_exact_and_the_processes_leave_together(tmp_path, monkeypatch):
    """A signal to the second process only, in the middle of an accumulated step; then both go on.

    The resumed half loads with worker processes, which must change nothing.
    """
    straight = {"folder": str(tmp_path / "straight"), "sections": {"train": SMALL}}
    stopped = {"folder": str(tmp_path / "stopped"), "sections": {"train": SMALL}}
    resumed = {**stopped, "sections": {"train": {**SMALL, "workers": 1}}}
    code = _launch(monkeypatch, [straight, {**stopped, "stop_rank": 1, "stop_step": 5}])
    assert code == 143
    run = RunFolder(tmp_path / "stopped")
    assert run.status()["state"] == "preempted"
    assert last_state(run)["step"] == "step_000005"
    assert _launch(monkeypatch, [resumed]) == 0
    assert_same(run, RunFolder(tmp_path / "straight"))


def test_going_on_with_one_process_keeps_the_sample_order(tmp_path, monkeypatch):
    sections = {**PLAIN, "train": {"batch_size": 2}}
    job = {"folder": str(tmp_path / "run"), "sections": sections, "stop_rank": 0, "stop_step": 6}
    assert _launch(monkeypatch, [job]) == 143
    one = toy_config(**PLAIN, train={"batch_size": 4})
    rest, whole = ToyTask(one), ToyTask(one)
    toy_fit(tmp_path / "run", one, rest)
    straight, _ = toy_fit(tmp_path / "straight", one, whole)
    first = [a + b for a, b in zip(_seen(tmp_path / "run", 0), _seen(tmp_path / "run", 1), strict=True)]
    assert first + rest.seen == whole.seen
    assert _losses(RunFolder(tmp_path / "run")) == pytest.approx(_losses(straight), rel=1e-5)


def test_a_failing_process_ends_the_others(tmp_path, monkeypatch, capfd):
    """A data set too small for the global batch: the exit code of a data error and no wait."""
    job = {"folder": str(tmp_path / "run"), "sections": {"train": {"batch_size": 32}}}
    assert _launch(monkeypatch, [job]) == 3
    assert "fewer than the 64 of one step" in capfd.readouterr().err


def _children(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listing.stdout.split()]


def _gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.2)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_to_the_launcher(tmp_path, number):
    """SIGTERM is handed on and ends in 143; after SIGKILL the processes notice, save and leave no orphan."""
    job = {"folder": str(tmp_path / "run"), "sections": {"train": {"length": 10_000}}, "sleep_s": 0.02}
    script = (
        "import sys; from omma.engine import launch;"
        f"launch._COMMAND = (sys.executable, {str(TOY)!r});"
        f"sys.exit(launch.run_workers([{json.dumps([job])!r}], 2))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOY.parent)}
    launcher = subprocess.Popen([sys.executable, "-c", script], env=env)
    run = RunFolder(tmp_path / "run")
    try:
        _wait_for(lambda: run.metrics_file.exists() and len(rows(run)) > 3)
        workers = _children(launcher.pid)
        assert len(workers) == 2
        launcher.send_signal(number)
        assert launcher.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        assert _gone(workers, within_s=60)
    finally:
        launcher.kill()
    assert run.status()["state"] == "preempted"
    assert last_state(run)["step"] == f"step_{run.status()['step']:06d}"


def _wait_for(condition: Any, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
