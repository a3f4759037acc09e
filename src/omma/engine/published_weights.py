"""Published weights of an encoder: timm's, or those of a file. Users: g2_monodepth, sdpose."""

from __future__ import annotations

import pickle
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omma.core.reference_state import plain_state
from omma.errors import CheckpointError, ConfigError


def timm_weights(model: str, key: str) -> dict[str, Tensor]:
    """The weights that timm publishes for one of its models.

    Args:
        model: timm's name.
        key: setting that names a file instead, for the hint.

    Raises:
        ConfigError: they cannot be downloaded, with the way to bring them here.
    """
    try:
        return timm.create_model(model, pretrained=True).state_dict()
    except OSError as error:
        source = timm.get_pretrained_cfg(model).hf_hub_id
        raise ConfigError(
            f"the weights of {model} could not be downloaded: {type(error).__name__}",
            hint=f"on a connected machine fetch model.safetensors of https://huggingface.co/{source}, "
            f"copy it here and set {key} to the file; or start from random weights with "
            f"{key}=none. HF_HUB_OFFLINE=1 in the environment spares the waiting",
        ) from error


def file_weights(path: Path, part: str, hint: str) -> dict[str, Tensor]:
    """The weights of a .safetensors or .pth file, wrappers taken off.

    Args:
        path: the file.
        part: what they are of, for the message.
        hint: what the setting can be.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of {part} weights", hint=hint)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read: {type(error).__name__}") from error
    return plain_state(content, "state_dict", "model")
