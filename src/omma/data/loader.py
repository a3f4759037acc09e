"""Data loading in worker processes: one thread each, deaf to signals, errors handed over as they are."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from omma.data.dataset import Collate, Sample, Samples
from omma.errors import OmmaError


class _Guarded(Dataset):
    """A data set that returns an OmmaError instead of raising it.

    PyTorch rebuilds a worker's exception from its traceback text, which would bury the one clear line.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | OmmaError:
        try:
            return self.samples[key]
        except OmmaError as error:
            return _with_traceback(error)


class _GuardedCollate:
    """A collate function that hands on the first error among the samples, or its own."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any] | OmmaError:
        errors = [sample for sample in samples if isinstance(sample, OmmaError)]
        if errors:
            return errors[0]
        try:
            return self.collate(samples)
        except OmmaError as error:
            return _with_traceback(error)


def _with_traceback(error: OmmaError) -> OmmaError:
    error.add_note(traceback.format_exc())
    return error.with_traceback(None)


def _init_worker(worker_id: int) -> None:
    """A signal meant for the run must not end the workers before the main process has saved.

    They end when it tells them to, when it exits (`_kill_daemons`), or by PyTorch's watchdog once it is gone.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _kill_daemons() -> None:
    """An exiting interpreter sends its daemons SIGTERM, which workers ignore, and waits for them for ever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


Finalize(None, _kill_daemons, exitpriority=0)


def start_method(num_processes: int) -> str | None:
    """How data-loading processes start: the platform's way, but by a fork server in distributed training.

    Forking a process while the threads of gloo or NCCL run can leave a child that hangs before its first line
    (CPython before 3.12 keeps a lock that such a thread held).

    Args:
        num_processes: of the training.
    """
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    return "forkserver" if num_processes > 1 and has_server else None


def _context(name: str | None) -> BaseContext:
    """The named start method; a fork server is started deaf to SIGTERM, and its children inherit that."""
    context = multiprocessing.get_context(name)
    if name == "forkserver":
        context.set_forkserver_preload(["__main__", __name__])
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        forkserver.ensure_running()
        signal.signal(signal.SIGTERM, handler)
    return context


class Loader:
    """Batches of a data set in the order that `batches` gives.

    Args:
        samples: the data set.
        collate: joins samples into a batch.
        batches: keys of each batch: lists of (epoch, index) or of indices.
        workers: processes that load; 0 loads in this one.
        device: where the batches will go; memory is pinned for a GPU.
        start_method: see the function of that name; default: the platform's.
    """

    def __init__(
        self,
        samples: Samples,
        collate: Collate,
        batches: Iterable[list[Any]],
        *,
        workers: int,
        device: torch.device,
        start_method: str | None = None,
    ) -> None:
        self._loader = DataLoader(
            _Guarded(samples),
            batch_sampler=batches,
            collate_fn=_GuardedCollate(collate),
            num_workers=workers,
            worker_init_fn=_init_worker,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            multiprocessing_context=_context(start_method) if workers > 0 else None,
            generator=torch.Generator(),  # leaves the global one, which the step has seeded, alone
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches, on the CPU.

        Raises:
            OmmaError: what reading or collating a sample raised, as it was.
        """
        for batch in self._loader:
            if isinstance(batch, OmmaError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the worker processes.

        Left to the garbage collector, PyTorch may find its queues closed first and wait for workers that
        were never told to end.
        """
        if self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()


def to_device(value: Any, device: torch.device) -> Any:
    """The same nesting of mappings, lists and tuples with its tensors on `device`; the rest is kept."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value
