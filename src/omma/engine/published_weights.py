"""Published weights of an image encoder: timm's, or those of a file."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omma.core.reference_state import plain_state
from omma.errors import CheckpointError, ConfigError


def encoder_weights(
    source: str, model: str | None, key: str, *, download: str = "timm"
) -> dict[str, Tensor] | None:
    """The weights that an image encoder starts from.

    Args:
        source: "none"; what `download` says; "auto": the same, or a warning and none; or the path of a
            .safetensors, .pt or .pth file.
        model: timm's name of the encoder; None where timm has none of its size.
        key: the setting that `source` is the value of.
        download: its value for timm's weights.

    Returns:
        under the names that they are published with, wrappers taken off; None: random ones.

    Raises:
        ConfigError: they cannot be downloaded, with the way to bring them here.
        CheckpointError: there is no such file, or it cannot be read.
    """
    if source == "none":
        return None
    if source not in (download, "auto"):
        return _read(
            Path(source), f"{key} is none, {download}, auto or the path of a .safetensors or .pth file"
        )
    try:
        return _download(model, key)
    except ConfigError as error:
        if source == download:
            raise
        warnings.warn(f"the image encoder starts from random weights: {error}", stacklevel=3)
        return None


def _download(model: str | None, key: str) -> dict[str, Tensor]:
    if model is None:
        raise ConfigError(
            "timm has no weights for an image encoder of this size",
            hint=f"set {key} to a file of such weights or to none",
        )
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


def _read(path: Path, hint: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of an image encoder's weights", hint=hint)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read: {type(error).__name__}", hint) from error
    return plain_state(content, "state_dict", "model")
