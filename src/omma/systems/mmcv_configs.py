"""The names that config files of mmcv 1.x projects have in common, and what they mean here.

A number goes to the system's own flag of that meaning, so that its unit, steps or epochs, is the system's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from omma.errors import ConfigError
from omma.systems.originals import flag_reader

_FLAGS = {
    "data_root": "--data-root",
    "work_dir": "--work-dir",
    "resume_from": "--resume-from",
    "load_from": "--load-from",
    "seed": "--seed",
    "samples_per_gpu": "--samples-per-gpu",
    "workers_per_gpu": "--workers-per-gpu",
    "data.samples_per_gpu": "--samples-per-gpu",
    "data.workers_per_gpu": "--workers-per-gpu",
    "optimizer.lr": "--lr",
    "checkpoint_config.interval": "--checkpoint-interval",
    "checkpoint_config.max_keep_ckpts": "--max-keep-ckpts",
    "evaluation.interval": "--eval-interval",
    "log_config.interval": "--log-interval",
}
_OPTIMISERS = ("adam", "adamw", "sgd")
_SCHEDULES = {"fixed": "constant", "step": "step", "poly": "poly", "cosineannealing": "cosine"}  # by policy
# what has no meaning here, or is as these projects always have it
SILENT = (
    "dist_params log_level workflow cudnn_benchmark find_unused_parameters dataset_type "
    "checkpoint_config.by_epoch evaluation.by_epoch evaluation.pre_eval evaluation.rule "
    "evaluation.key_indicator log_config.by_epoch runner.type gpu_ids opencv_num_threads"
).split()


def readers(period: str) -> dict[str, Callable[[Any], list[str]]]:
    """Readers of the common names.

    Args:
        period: what a number in `lr_config.step` is followed by: "" for steps, " epochs".
    """
    found = {name: flag_reader(flag) for name, flag in _FLAGS.items()}
    found["optimizer.type"] = _optimiser
    found |= {
        f"optimizer.{name}": partial(_set, f"optim.{name}")
        for name in ("weight_decay", "betas", "eps", "momentum")
    }
    found["optimizer_config.grad_clip"] = _grad_clip
    found["lr_config"] = lambda value: _schedule(value, period)
    found["log_config.hooks"] = _hooks
    found["data_root"] = lambda value: flag_reader("--data-root")(value or None)
    return found


def _set(key: str, value: Any) -> list[str]:
    return [f"{key}={json.dumps(value)}"]


def _optimiser(value: Any) -> list[str]:
    name = str(value).lower()
    if name not in _OPTIMISERS:
        raise ConfigError(f"optimizer.type {value}: not known here", f"{' or '.join(_OPTIMISERS)}")
    return [f"optim.name={name}"]


def _grad_clip(value: Any) -> list[str]:
    if value is None:
        return ["optim.grad_clip=null"]
    norm = value.get("max_norm") if isinstance(value, Mapping) else None
    if norm is None:
        raise ConfigError(f"optimizer_config.grad_clip {value}: not understood", "dict(max_norm=1.0) or None")
    return [f"optim.grad_clip={norm}"]


def _hooks(value: Any) -> list[str]:
    """TensorBoard files are written if its hook is there."""
    kinds = [hook.get("type") for hook in value if isinstance(hook, Mapping)]
    return [f"log.tensorboard={str('TensorboardLoggerHook' in kinds).lower()}"]


def _schedule(value: Any, period: str) -> list[str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"lr_config {value}: not understood", "dict(policy='step', step=[200, 260])")
    rest = dict(value)
    policy = str(rest.pop("policy", "step"))
    if policy.lower() not in _SCHEDULES:
        raise ConfigError(f"lr_config.policy {policy}: not known here", ", ".join(_SCHEDULES))
    words = [f"schedule.name={_SCHEDULES[policy.lower()]}"]
    if "step" in rest:
        steps = rest.pop("step")
        if isinstance(steps, int):
            words.append(f"schedule.every={steps}{period}")
        else:
            words.append(f"schedule.at=[{', '.join(f'{step}{period}' for step in steps)}]")
    keys = {"gamma": "gamma", "power": "power", "warmup_iters": "warmup", "warmup_ratio": "warmup_factor"}
    no_warmup = "warmup" in rest and rest.pop("warmup") is None
    words += ["schedule.warmup=0"] if no_warmup else []
    for name in ("by_epoch", *(("warmup_iters", "warmup_ratio") if no_warmup else ())):
        rest.pop(name, None)
    if rest.get("min_lr") == 0:
        del rest["min_lr"]
    words += [f"schedule.{keys[name]}={rest.pop(name)}" for name in tuple(rest) if name in keys]
    if rest:
        raise ConfigError(f"lr_config.{next(iter(rest))}: not known here", "`omma show` lists schedule.*")
    return words
