"""Device, precision and processes of a training, through Lightning Fabric."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from omma.config.base import Train
from omma.engine.launch import world
from omma.engine.setup import Say, pick_device
from omma.engine.sharding import whole_norm
from omma.errors import ConfigError


class _Autocast(MixedPrecision):
    """Fabric's mixed precision without its rounding of the inputs: camera matrices stay float32."""

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data


class _Sharded(DDPStrategy):
    """Fabric's processes around a network that `sharding.shard` has cut already."""

    def __init__(self) -> None:
        super().__init__()
        self._backward_sync_control = _AlwaysSync()

    def setup_module(self, module: nn.Module) -> nn.Module:
        """The module as it is."""
        return module

    def clip_gradients_norm(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of any strategy; the norm is over all shards."""
        return whole_norm(super().clip_gradients_norm(*args, **kwargs))


class _AlwaysSync:
    """Every micro-step sums its gradients: kept until the last one, they would be whole."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        """Nothing changes."""
        return nullcontext()


def open_fabric(config: Train, say: Say) -> Fabric:
    """Device, precision and processes of a training.

    Args:
        config: the recipe's `train` section.
        say: takes a line.

    Raises:
        ConfigError: 16-mixed without a GPU, or more processes than GPUs.
    """
    here, device = world(), pick_device(config.device, say)
    on_gpu = device.type == "cuda"
    if config.precision == "16-mixed" and not on_gpu:
        raise ConfigError("train.precision=16-mixed needs a GPU", "train.precision=bf16-mixed or 32 run here")
    if on_gpu and here.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{here.local_size} processes on {torch.cuda.device_count()} GPUs", "lower train.devices"
        )
    for package in ("fabric", "pytorch"):
        logging.getLogger(f"lightning.{package}").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if on_gpu and here.size == 1 else here.local_size,
        num_nodes=here.size // here.local_size,
        strategy=_strategy(config, here.size),
        plugins=[_precision(config.precision, device.type), _environment(here.size)],
    )
    fabric.launch()
    return fabric


def _strategy(config: Train, num_processes: int) -> Any:
    if num_processes == 1:
        return "auto"
    return _Sharded() if config.strategy == "fsdp" else DDPStrategy(find_unused_parameters=True)


def _precision(name: str, device_type: str) -> Precision:
    return Precision() if name == "32" else _Autocast(name, device_type)


def _environment(num_processes: int) -> ClusterEnvironment:
    """Where rank and address come from: `run_workers` and torchrun set the same variables."""
    if num_processes == 1:
        return LightningEnvironment()
    return TorchElasticEnvironment() if "RANK" in os.environ else SLURMEnvironment()
