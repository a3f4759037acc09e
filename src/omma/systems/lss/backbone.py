"""Image backbones of timm with features at strides 16 and 32, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import timm
import torch
from torch import Tensor, nn

from omma.engine.published_weights import encoder_weights
from omma.errors import CheckpointError, ConfigError
from omma.systems.lss.keys import TO_TIMM, rename

KEY = "system.pretrained"
MOMENTUM_PRETRAINED = (
    0.01  # as published; from random weights running statistics would lag by hundreds of steps
)
MOMENTUM_SCRATCH = 0.1


def build_backbone(
    name: str, pretrained: str, drop_path: float, bn_momentum: float | None
) -> tuple[nn.Module, list[int]]:
    """A timm model that returns its features at strides 16 and 32, and their channels.

    Args:
        name: timm model name.
        pretrained: "none"; "timm" (download); "auto": timm, or a warning and none; or a file of weights, in
            timm's names or efficientnet_pytorch's.
        drop_path: largest stochastic depth.
        bn_momentum: of every batch normalisation; None: 0.01 when pretrained, else 0.1.

    Raises:
        ConfigError: timm does not know the model, its strides differ or its weights cannot be downloaded.
        CheckpointError: the file cannot be read or is of another model.
    """
    model = _create(name, drop_path=drop_path)
    if model.feature_info.reduction() != [16, 32]:
        raise ConfigError(
            f"backbone {name}: its last two feature maps have strides {model.feature_info.reduction()}",
            hint="take a model with strides 16 and 32, such as tf_efficientnet_b0 or resnet18",
        )
    weights = encoder_weights(pretrained, name, KEY)
    if weights is not None:
        _load(model, name, weights, pretrained)
    auto = MOMENTUM_SCRATCH if weights is None else MOMENTUM_PRETRAINED
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = auto if bn_momentum is None else bn_momentum
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = partial(_float32_on_cpu, module.forward)
    return model, model.feature_info.channels()


def _float32_on_cpu(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Keep CPU autocast off a grouped convolution: bf16 gradients take up to 90 times as long there."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())


def _create(name: str, *, drop_path: float) -> nn.Module:
    if not timm.is_model(name):
        near = timm.list_models(f"{name[:6]}*")[:5]
        raise ConfigError(
            f"timm {timm.__version__} has no model {name}",
            hint=f"near it: {', '.join(near)}" if near else "timm.list_models() names all",
        )
    return timm.create_model(name, features_only=True, out_indices=(-2, -1), drop_path_rate=drop_path)


def _load(model: nn.Module, name: str, published: Mapping[str, Tensor], source: str) -> None:
    weights = {_plain(rename(key, TO_TIMM) or key): value for key, value in published.items()}
    wanted = {key: v for key, v in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    found = {key: weights[_plain(key)] for key in wanted if _plain(key) in weights}
    bad = [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
    if bad:
        raise CheckpointError(
            f"{source}: {len(bad)} of the {len(wanted)} tensors of {name} are missing or of another shape, "
            f"first {bad[0]}",
            hint=f"give a file of timm's {name} or, for it, of efficientnet_pytorch; or pretrained=none",
        )
    model.load_state_dict(found, strict=False)


def _plain(key: str) -> str:
    """The key without what timm's feature extraction changes in it: stages.0 becomes stages_0."""
    return key.replace(".", "_")
