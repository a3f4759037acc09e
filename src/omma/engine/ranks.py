"""What the processes of one training tell each other; a process alone answers itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _joined() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """Element-wise mean over the processes; not a number where it is so in any."""
    if _joined():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def cpu_group() -> dist.ProcessGroup | None:
    """A way for the processes to talk without waiting for their GPUs; all of them have to ask for it.

    None stands for the way they have already, or for a process alone.
    """
    return dist.new_group(backend="gloo") if _joined() and dist.get_backend() != "gloo" else None


def any_rank(flag: bool, group: dist.ProcessGroup | None) -> bool:
    """Whether the flag is set in any process; `group` is from `cpu_group`."""
    if not _joined():
        return flag
    tensor = torch.tensor(int(flag))
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    return bool(tensor)


def gather_objects(value: Any) -> list[Any]:
    """Every process's value, by rank, in every process."""
    if not _joined():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, in every process."""
    values = [value]
    if _joined():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def leave() -> None:
    """Take leave of the other processes; a training is over."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers (batch norm statistics) of the first, whose state is the saved one."""
    if _joined():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
