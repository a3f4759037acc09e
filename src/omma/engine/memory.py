"""The largest batch that fits, for `train.batch_size=auto`: tried out in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from omma.config.base import RunConfig
from omma.engine.evaluate import autocast
from omma.engine.optim import build_optimizer
from omma.engine.setup import pick_device, prepare_task
from omma.engine.task import StepInfo, Task
from omma.errors import ConfigError, OmmaError, OutOfMemoryError

MARGIN = 0.9
_UNKNOWN_LIMIT = 8 * 2**30
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def find_batch_size(make_task: Callable[[], Task], config: RunConfig, *, largest: int = 256) -> int:
    """The largest batch whose training step takes at most 90 % of the memory that is free now.

    Sizes are doubled, then narrowed down to an eighth. A size whose memory, going by the last two, would not
    fit is not tried on a CPU, where the system would end other processes too.

    Args:
        make_task: builds the task; has to pickle.
        config: the recipe; its batch size is ignored.
        largest: do not go beyond this, such as the number of training samples.

    Raises:
        OutOfMemoryError: not even one sample fits.
        ConfigError: memory cannot be measured here.
    """
    if sys.platform == "win32" and not torch.cuda.is_available():
        raise ConfigError(
            "train.batch_size=auto cannot measure memory on Windows without a GPU", "give a number"
        )
    probe = _Probe(make_task, config)
    try:
        return _search(probe, largest)
    finally:
        probe.close()


def _search(probe: _Probe, largest: int) -> int:
    fits, too_large = 0, largest + 1
    while too_large - fits > 1 + fits // 8:
        nothing_failed = too_large > largest
        size = min(max(1, 2 * fits), largest) if nothing_failed else (fits + too_large) // 2
        if probe.fits(size):
            fits = size
        else:
            too_large = size
    if fits == 0:
        raise OutOfMemoryError(
            "not even a batch of one sample fits", "train.activation_checkpointing=true lowers memory most"
        )
    return fits


class _Probe:
    """Runs training steps of a given batch size in another process, which may die of it."""

    def __init__(self, make_task: Callable[[], Task], config: RunConfig) -> None:
        self._arguments = make_task, config
        self._peaks: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._limit, self._is_cpu = self._connection.recv()

    def fits(self, size: int) -> bool:
        """Whether a step of this batch size stays within the limit."""
        if self._is_cpu and self._expected(size) > self._limit:
            return False
        try:
            self._connection.send(size)
            peak = self._connection.recv()
        except EOFError:
            self._process.join()
            if self._process.exitcode == 1:  # an exception, whose traceback has been shown
                raise OmmaError(f"a trial step with train.batch_size={size} failed") from None
            self._start()  # the system has ended the process
            return False
        if peak is None or peak > self._limit:
            return False
        self._peaks[size] = peak
        return True

    def _expected(self, size: int) -> float:
        """Bytes of a larger batch, on the line through the last two."""
        if len(self._peaks) < 2:
            return 0.0
        (small, low), (large, high) = sorted(self._peaks.items())[-2:]
        return high + (size - large) * (high - low) / (large - small)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, make_task: Callable[[], Task], config: RunConfig) -> None:
    """The other process: answers batch sizes with the peak memory in bytes, None where it ran out."""
    device = pick_device(config.train.device, lambda text: None)
    connection.send((memory_limit(device), device.type == "cpu"))
    task = make_task()
    prepare_task(task, config.train.model_copy(update={"compile": False}), device, lambda text: None)
    while True:
        connection.send(_peak_of_steps(task, config, device, connection.recv()))


def _peak_of_steps(task: Task, config: RunConfig, device: torch.device, size: int) -> int | None:
    """Two steps, so that the optimiser's state is there too."""
    _reset_peak(device)
    try:
        optimizer = build_optimizer(
            config.optim, task.param_groups(config.optim.lr, config.optim.weight_decay)
        )
        for step in range(2):
            with autocast(device, config.train.precision):
                loss = task.training_step(task.example_batch(size), StepInfo(step, 0, 0.0))["loss"]
            loss.backward()
            optimizer.step()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        return None
    finally:
        task.zero_grad(set_to_none=True)
    return _peak(device)


def memory_limit(device: torch.device) -> int:
    """Bytes that a training may use: 90 % of what the GPU, or the machine and the container, have free."""
    if device.type == "cuda":
        return int(MARGIN * torch.cuda.mem_get_info(device)[0])
    table = Path("/proc/meminfo")
    if not table.exists():
        return int(MARGIN * _UNKNOWN_LIMIT)
    lines = dict(line.split(":", 1) for line in table.read_text(encoding="utf-8").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    maximum, current = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if maximum.exists() and maximum.read_text(encoding="utf-8").strip().isdigit():
        free = min(free, int(maximum.read_text(encoding="utf-8")) - int(current.read_text(encoding="utf-8")))
    return int(MARGIN * free)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="utf-8")  # resets VmHWM


def _peak(device: torch.device) -> int:
    """Peak bytes since the last reset; without /proc since the start, which growing sizes make the same."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
