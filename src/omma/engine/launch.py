"""Several processes of one training on this machine, and which of them this one is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

PREEMPTED = 143
_GRACE_S = 10.0
_COMMAND = (sys.executable, "-m", "omma")
_LAUNCHER = "OMMA_LAUNCHER_PID"


@dataclass(frozen=True)
class World:
    """This process among all of a training.

    Args:
        rank: index of this process.
        size: number of processes.
        local_size: number of processes on this machine.
    """

    rank: int
    size: int
    local_size: int


def world() -> World:
    """What the environment says: of `run_workers`, torchrun or srun; else one process."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        size = int(env["WORLD_SIZE"])
        local_size = env.get("LOCAL_WORLD_SIZE") or env.get("SLURM_NTASKS_PER_NODE") or size
        return World(int(env["RANK"]), size, int(local_size))
    if int(env.get("SLURM_NTASKS", "1")) > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        size = int(env["SLURM_NTASKS"])
        return World(int(env["SLURM_PROCID"]), size, int(env.get("SLURM_NTASKS_PER_NODE", size)))
    return World(0, 1, 1)


def launcher_is_gone() -> bool:
    """Whether `run_workers` started this process and has died since."""
    launcher = os.environ.get(_LAUNCHER)
    return launcher is not None and os.name != "nt" and os.getppid() != int(launcher)


def run_workers(argv: Sequence[str], devices: int) -> int:
    """Run `python -m omma ARGV` in so many processes and wait for all of them.

    SIGTERM and SIGINT are handed on, once each. If one process fails, the others are ended.

    Args:
        argv: words after `omma`.
        devices: number of processes.

    Returns:
        0, or the exit code of the first process that failed (143: stopped by a signal after saving).
    """
    port = str(_free_port())
    processes: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    with stop_signals_go_to(hand_on):
        for rank in range(devices):
            processes.append(_start(argv, rank, devices, port))  # noqa: PERF401  the handler reads the list
        try:
            return _wait(processes)
        finally:
            _kill(processes)


def _start(argv: Sequence[str], rank: int, size: int, port: str) -> subprocess.Popen[bytes]:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    env = {
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP warns when it looked for unused parameters and found none
        **os.environ,
        **{name: str(value) for name, value in ranks.items()},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        _LAUNCHER: str(os.getpid()),
    }
    # a session of its own: Ctrl-C in the terminal reaches the launcher only, which hands it on once
    return subprocess.Popen([*_COMMAND, *argv], env=env, start_new_session=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stop_signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` take SIGTERM and SIGINT inside the block; Python allows that in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; a failed process leaves the others `_GRACE_S` seconds to say why they stop too."""
    first_failure, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
        first_failure = first_failure or _failure(processes)
        if first_failure not in (0, PREEMPTED) and deadline == float("inf"):
            deadline = time.monotonic() + _GRACE_S
    return first_failure or _failure(processes)


def _failure(processes: list[subprocess.Popen[bytes]]) -> int:
    """Exit code of a failed process as a shell gives it; 0 while there is none."""
    codes = [process.poll() or 0 for process in processes]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
