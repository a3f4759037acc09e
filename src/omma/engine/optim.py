"""The optimiser of a recipe over a task's parameter groups."""

from __future__ import annotations

from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

from omma.config.base import Optim
from omma.errors import ConfigError


def build_optimizer(config: Optim, groups: list[dict[str, Any]]) -> Optimizer:
    """Make the optimiser.

    Args:
        config: the recipe's `optim` section.
        groups: from `Task.param_groups`; each with its own "lr", kept as "initial_lr" for the schedule.

    Raises:
        ConfigError: no parameter is trainable.
    """
    groups = [{**group, "initial_lr": group.get("lr", config.lr)} for group in groups if group["params"]]
    if not groups:
        raise ConfigError("no parameter is trainable", hint="unfreeze a part of the network in `system`")
    shared = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        return SGD(groups, momentum=config.momentum, **shared)
    adam = AdamW if config.name == "adamw" else Adam
    return adam(groups, betas=config.betas, eps=config.eps, **shared)


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times the one it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
