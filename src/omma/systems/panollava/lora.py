"""Low-rank adapters (arXiv 2106.09685) on a language model, through peft.

Names of the model's own weights stay what they are without adapters (`plain_name`), so that checkpoints of
one kind start trainings of the other.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import nn

from omma.engine.foreign import write_whole
from omma.errors import ConfigError

if TYPE_CHECKING:
    from omma.systems.panollava.config import LoraSection

ADAPTER = "default"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_BASE, _MARK = ".base_layer.", ".lora_"


def add_adapters(lm: nn.Module, settings: LoraSection) -> None:
    """Put adapters on layers of a language model; at first they change nothing.

    Raises:
        ConfigError: peft is not installed, or the model has no layers of these names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            "system.lora needs the package peft", hint='install it with `pip install "omma[pano]"`'
        ) from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        inject_adapter_in_model(config, lm, adapter_name=ADAPTER)
    except ValueError as error:
        raise ConfigError(
            f"system.lora.targets {', '.join(settings.targets)}: {str(error).splitlines()[0]}",
            hint="name layers of the language model, such as q_proj and v_proj",
        ) from error


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return _MARK in name


def plain_name(name: str) -> str:
    """A weight's name as it is without adapters."""
    return name.replace(_BASE, ".")


def merge_adapters(lm: nn.Module) -> None:
    """Work the adapters into the weights and take them off; outputs stay the same up to rounding."""
    for name, module in list(lm.named_modules()):
        if _adapted(module):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(lm.get_submodule(parent), last, module.get_base_layer())
    if hasattr(lm, "peft_config"):
        del lm.peft_config


def save_adapters(lm: nn.Module, folder: Path) -> Path:
    """Write the adapters as peft's folder, which `PeftModel.from_pretrained` opens.

    Args:
        lm: a language model with adapters.
        folder: made if needed.

    Returns:
        the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = lm.peft_config[ADAPTER]
    config.save_pretrained(str(folder))
    weights = {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": value.detach().cpu().contiguous()
        for name, value in lm.state_dict().items()
        if is_adapter(name)
    }
    write_whole(folder / WEIGHTS_FILE, partial(save_file, weights))
    return folder


def _adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
