"""ImageNet weights for the ResNet encoder: timm's, or those of a file in timm's or torchvision's names."""

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
from omma.systems.g2_monodepth.resnetsan import ResNetSAN

_CLASSIFIER = "fc."
_COUNTERS = "num_batches_tracked"  # old files have none


def load_encoder(model: ResNetSAN, source: str) -> None:
    """Give a network's encoder its first weights.

    Args:
        model: the network.
        source: "none"; "timm" (download); "auto": timm, or a warning and none; or a file of a whole
            classification network or its features.

    Raises:
        ConfigError: the weights cannot be downloaded.
        CheckpointError: the file cannot be read or is of another network.
    """
    if source == "none":
        return
    if source in ("timm", "auto"):
        try:
            weights = _download(f"resnet{model.layers}")
        except ConfigError as error:
            if source == "timm":
                raise
            warnings.warn(f"the image encoder starts from random weights: {error}", stacklevel=2)
            return
    else:
        weights = _read(Path(source))
    wanted = {k: v for k, v in model.encoder.state_dict().items() if not k.endswith(_COUNTERS)}
    found = {k: v for k, v in weights.items() if not k.startswith(_CLASSIFIER) and not k.endswith(_COUNTERS)}
    bad = [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
    bad += sorted(set(found) - set(wanted))
    if bad:
        raise CheckpointError(
            f"{source}: {len(bad)} tensors missing, left over or of another shape, first {bad[0]}",
            hint=f"give a file of timm's or torchvision's resnet{model.layers}",
        )
    model.encoder.load_state_dict(found, strict=False)


def _download(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except OSError as error:
        source = timm.get_pretrained_cfg(name).hf_hub_id
        raise ConfigError(
            f"the weights of {name} could not be downloaded: {type(error).__name__}",
            hint=f"on a connected machine fetch model.safetensors of https://huggingface.co/{source}, "
            "copy it here and set system.pretrained to the file; or start from random weights with "
            "system.pretrained=none. HF_HUB_OFFLINE=1 in the environment spares the waiting",
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file of encoder weights",
            hint="system.pretrained is none, timm, auto or the path of a .safetensors or .pth file",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read: {type(error).__name__}") from error
    return plain_state(content, "state_dict", "model")
