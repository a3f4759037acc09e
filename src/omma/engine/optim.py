"""The optimiser of a recipe over a task's parameter groups."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from omma.config.base import Optim
from omma.errors import ConfigError


def build_optimizer(config: Optim, groups: list[dict[str, Any]], *, fused: bool = True) -> Optimizer:
    """Make the optimiser.

    Args:
        config: the recipe's `optim` section.
        groups: from `Task.param_groups`; each with its own "lr", kept as "initial_lr" for the schedule.
        fused: update all parameters in one call, several times as fast on two cores; not with a gradient
            scaler, which could not clip then.

    Raises:
        ConfigError: no parameter is trainable.
    """
    groups = [{**group, "initial_lr": group.get("lr", config.lr)} for group in groups if group["params"]]
    if config.decay == "weights":
        groups = [part for group in groups for part in _decayed_and_not(group) if part["params"]]
    if not groups:
        raise ConfigError("no parameter is trainable", hint="unfreeze a part of the network in `system`")
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused or None}
    if config.name == "sgd":
        return SGD(groups, momentum=config.momentum, **shared)
    adam = AdamW if config.name == "adamw" else Adam
    return adam(groups, betas=config.betas, eps=config.eps, **shared)


def _decayed_and_not(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Two groups: weights of two axes and more; and the rest, without weight decay."""
    weights = [parameter for parameter in group["params"] if parameter.ndim > 1]
    rest = [parameter for parameter in group["params"] if parameter.ndim <= 1]
    return [{**group, "params": weights}, {**group, "params": rest, "weight_decay": 0.0}]


def places_of(optimizer: Optimizer, module: nn.Module) -> list[int]:
    """The number of each trainable parameter of a module in the optimiser's state, which goes by groups."""
    groups = optimizer.param_groups
    places = {id(p): place for place, p in enumerate(p for group in groups for p in group["params"])}
    return [places[id(p)] for p in module.parameters() if p.requires_grad]


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times the one it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
