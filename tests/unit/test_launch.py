from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from omma.engine import launch
from omma.engine.launch import World, launcher_is_gone, run_workers, world
from omma.engine.signals import StopRequested, StopSignal

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE")
posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, World(0, 1, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, World(1, 2, 2)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, World(5, 8, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_NTASKS_PER_NODE": "4"}, World(3, 8, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, World(0, 1, 1)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, World(0, 1, 1)),
        ({"RANK": "5", "WORLD_SIZE": "8", "SLURM_NTASKS_PER_NODE": "4"}, World(5, 8, 4)),
    ],
)
def test_world_from_the_environment(monkeypatch, env, expected):
    for name in (*NAMES, "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert world() == expected


def _run(monkeypatch: pytest.MonkeyPatch, script: str, devices: int = 2) -> int:
    monkeypatch.setattr(launch, "_COMMAND", (sys.executable, "-c"))
    return run_workers([f"import os, sys, time, signal\nrank = int(os.environ['RANK'])\n{script}"], devices)


def test_every_process_gets_its_rank(monkeypatch, tmp_path):
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT OMMA_LAUNCHER_PID"
    script = (
        f"open(r'{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in '{names}'.split()))"
    )
    assert _run(monkeypatch, script, 3) == 0
    lines = [(tmp_path / str(rank)).read_text(encoding="utf-8").split() for rank in range(3)]
    assert [line[:5] for line in lines] == [[str(r), str(r), "3", "3", "127.0.0.1"] for r in range(3)]
    assert {line[6] for line in lines} == {str(os.getpid())}
    assert len({line[5] for line in lines}) == 1


def test_the_first_failure_is_the_exit_code(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    begin = time.monotonic()
    assert _run(monkeypatch, "if rank == 1: sys.exit(3)\ntime.sleep(60)") == 3
    assert time.monotonic() - begin < 30, "the others were not ended"
    assert _run(monkeypatch, "sys.exit(0 if rank else 5)") == 5


@posix_only
def test_a_killed_process_ends_the_others(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    assert _run(monkeypatch, "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)") == 137


@posix_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_once_and_saving_is_waited_for(monkeypatch, number, tmp_path):
    monkeypatch.setattr(launch, "_GRACE_S", 0.1)
    script = (
        f"signal.signal({int(number)}, lambda *a: (open(r'{tmp_path}/' + str(rank), 'a').write('x'), "
        "time.sleep(1 + rank), sys.exit(143)))\n"
        f"open(r'{tmp_path}/ready' + str(rank), 'w').close()\ntime.sleep(60)"
    )

    def send() -> None:
        while len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert _run(monkeypatch, script) == 143
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in "01"] == ["x", "x"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@posix_only
def test_a_dead_launcher_is_noticed(monkeypatch):
    monkeypatch.delenv("OMMA_LAUNCHER_PID", raising=False)
    assert not launcher_is_gone()
    monkeypatch.setenv("OMMA_LAUNCHER_PID", str(os.getppid()))
    assert not launcher_is_gone()
    monkeypatch.setenv("OMMA_LAUNCHER_PID", "999999")
    assert launcher_is_gone()
    with pytest.raises(StopRequested):
        StopSignal().check()


@posix_only
def test_a_signal_is_remembered_until_asked_for():
    stop = StopSignal()
    with stop.installed():
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            stop.check()
    assert stop.received is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_outside_the_main_thread_nothing_is_caught():
    """A notebook may train in a thread, where Python cannot install handlers."""
    done: list[bool] = []

    def train() -> None:
        with StopSignal().installed() as stop:
            stop.check()
            done.append(True)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert done == [True]
