"""Sharded training (FSDP2): every process keeps a part of each parameter, gradient and optimiser state.

Parameters are gathered layer by layer where a pass needs them. Checkpoints hold whole tensors, so that they
do not depend on the number of processes. What gathers or cuts tensors has to be called by every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from omma.config.base import RunConfig
from omma.engine.ranks import rank
from omma.engine.task import Task
from omma.errors import ConfigError

_PASSES = ("training_step", "validation_step")


def shard(task: Task, config: RunConfig) -> None:
    """Cut the parameters of a task among the processes; the optimiser has to be made afterwards.

    Args:
        task: on its device; the first process's weights count.
        config: its recipe.

    Raises:
        ConfigError: the task names no layers to shard, or the recipe asks for what does not go with it.
    """
    if config.train.precision == "16-mixed":
        raise ConfigError(
            "train.strategy=fsdp and train.precision=16-mixed", "bf16-mixed and 32 go with fsdp"
        )
    blocks = task.shard_blocks()
    if not blocks:
        raise ConfigError(
            "train.strategy=fsdp: this system names no layers to shard", "train.strategy=ddp trains it"
        )
    for tensor in (*task.parameters(), *task.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    mesh = init_device_mesh(task.device.type, (dist.get_world_size(),))
    for module in (*blocks, task):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in _PASSES:
        register_fsdp_forward_method(task, name)


@contextmanager
def gathered(task: Task) -> Iterator[None]:
    """Inside the block every process has all parameters, and passes do not wait for other processes.

    An evaluation needs it: one process may have a batch more, or write a longer answer. What an optimiser
    holds stays sharded.
    """
    if not isinstance(task, FSDPModule):
        yield
        return
    parts = [module for module in task.modules() if isinstance(module, FSDPModule)]
    task.set_reshard_after_forward(False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
        task.set_reshard_after_forward(True)


@contextmanager
def joined(task: Task) -> Iterator[None]:
    """Inside the block the first process's task has whole parameters, on the CPU, to be read and not run.

    Those of the other processes are empty there. Every process has to enter it.
    """
    places = [
        (module, name, parameter)
        for module in task.modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if isinstance(parameter, DTensor)
    ]
    wholes: dict[int, nn.Parameter] = {}
    for _, _, parameter in places:
        if id(parameter) not in wholes:  # tied weights stay tied
            values = _joined(parameter.detach())
            wholes[id(parameter)] = nn.Parameter(values, requires_grad=parameter.requires_grad)
    for module, name, parameter in places:
        module.register_parameter(name, wholes[id(parameter)])
    try:
        yield
    finally:
        for module, name, parameter in places:
            module.register_parameter(name, parameter)


def whole(tree: Any) -> Any:
    """The same nested values, sharded tensors joined; the first process alone gets these."""
    return tree_map_only(DTensor, _joined, tree)


def _joined(tensor: DTensor) -> Tensor:
    joined = tensor.full_tensor()
    return joined.cpu() if rank() == 0 else joined.new_empty(0)


def cut_like(state: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, cut where those of the same name here are."""
    return {name: _cut(tensor, here.get(name)) for name, tensor in state.items()}


def cut_optimizer_state(saved: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state dict of whole tensors, cut where its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    here = dict(enumerate(parameters))
    state = {
        place: {name: _cut(value, here.get(place)) for name, value in values.items()}
        for place, values in saved["state"].items()
    }
    return {**saved, "state": state}


def _cut(tensor: Any, like: Tensor | None) -> Any:
    """A count of steps, which has another shape than its parameter, stays whole."""
    if not isinstance(like, DTensor) or getattr(tensor, "shape", None) != like.shape:
        return tensor
    placed = tensor.to(device=like.device, dtype=tensor.dtype)
    return distribute_tensor(placed, like.device_mesh, like.placements)


def whole_norm(norm: Tensor) -> Tensor:
    """A norm over all shards, in every process."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
