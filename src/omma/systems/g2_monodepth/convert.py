"""Checkpoints of G2-MonoDepth, its successors and packnet's ResNetSAN01, to and from our names.

A file is a bare state dict or holds one under `network` (official), `model_state_dict` (the guide),
`state_dict` (Lightning), `network_state_dict` or `model`. Which network it is of, and how large, is read off
names and shapes; bounds of the depth and padding are options.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from omma.core.reference_state import load_strictly, plain_state, shape_of
from omma.errors import CheckpointError, ConfigError
from omma.systems.g2_monodepth.inputs import Pad
from omma.systems.g2_monodepth.keys import (
    CLASSIFIER,
    Architecture,
    architecture_of,
    bottleneck_name,
    in_their_order,
    our_name,
    reference_name,
)
from omma.systems.g2_monodepth.resnetsan import InverseSpace, ResNetSAN
from omma.systems.g2_monodepth.spnet import SIZES, SPNet
from omma.systems.g2_monodepth.unet import (
    BatchNormBottleneck,
    BlockName,
    Level,
    ReZeroBottleneck,
    UNet,
    stack,
)

PROJECT = "G2-MonoDepth, SPNet, PacGDC or ResNetSAN01"
CONTAINERS = ("network", "model_state_dict", "network_state_dict", "state_dict", "model")
Weights = Mapping[str, Tensor]
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
_DEPTH_NET = "depth_net."  # of packnet, beside other networks
_RESNETS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}


def load_reference(
    state_dict: Mapping[str, Any],
    *,
    pad: Pad = "replicate",
    min_depth: float = 0.5,
    max_depth: float = 15.0,
    space: InverseSpace = "linear",
) -> nn.Module:
    """The network with a published checkpoint's weights, in eval mode: (rgb, raw, mask) -> depth.

    Args:
        state_dict: tensors or arrays, bare or under one of `CONTAINERS`; prefixes of wrappers are cut.
        pad: how images go on whose sides are no multiples of the stride.
        min_depth: of ResNetSAN01, metres; like the two below.
        max_depth: metres.
        space: whether its single head is linear in inverse depth or in its logarithm.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes, or the network is none known here.
    """
    weights = _plain(state_dict)
    architecture = _architecture(weights)
    if architecture == "unet":
        model: nn.Module = _build_unet(weights, pad)
    elif architecture == "resnetsan":
        model = ResNetSAN(
            _resnet_layers(weights),
            dual_head=_has_two_heads(weights),
            sparse=False,
            min_depth=min_depth,
            max_depth=max_depth,
            space=space,
            pad=pad,
        )
    else:
        model = _build_spnet(weights, architecture, pad)
    load_strictly(model, from_reference(state_dict), PROJECT)
    return model


def settings_of(state_dict: Mapping[str, Any]) -> list[str]:
    """Settings under which a recipe's network is that of a published checkpoint, as `key=value` words.

    Args:
        state_dict: as for `load_reference`.

    Raises:
        CheckpointError: the network is none known here, or of a size that no setting gives.
    """
    weights = _plain(state_dict)
    architecture = _architecture(weights)
    network: dict[str, Any] = {"name": architecture}
    if architecture == "unet":
        model = _build_unet(weights, "replicate")
        network |= {"layers": len(model.levels()), "features": model.stem.out_channels}
        network |= {"block": "batch_norm" if _option(weights, "unet") else "rezero"}
    elif architecture == "resnetsan":
        network = {"name": "resnet_san", "layers": _resnet_layers(weights), "sparse": False}
        network |= {"dual_head": _has_two_heads(weights)}
    else:
        network["size"] = _spnet_size(weights)
    return [f"system.network={json.dumps(network)}"]


def load_reference_part(name: str, state_dict: Mapping[str, Any]) -> nn.Module:
    """One part of the UNet with published weights, in eval mode: features -> features.

    Args:
        name: a name before the part's keys, as in a dictionary of modules, or "bottleneck", "stack" or
            "level" for bare keys.
        state_dict: tensors or arrays; whether it is a bottleneck, three of them, or a level with what lies
            below it is read off the keys.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes.
        ConfigError: there is no such part.
    """
    weights = plain_state(state_dict, *CONTAINERS)
    start = f"{name}."
    inside = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)} or weights
    batch_norm = not any(key.endswith("alpha") for key in inside)
    block: BlockName = "batch_norm" if batch_norm else "rezero"
    if any(key.startswith("left.") for key in inside):
        ours = {bottleneck_name(key, batch_norm=batch_norm): value for key, value in inside.items()}
        bottleneck = BatchNormBottleneck if batch_norm else ReZeroBottleneck
        part: nn.Module = bottleneck(_shape(ours, "reduce.weight")[1], _shape(ours, "expand.weight")[0])
    elif any(key.startswith("block.0.left.") for key in inside):
        ours = _inside(_unet_names(inside, "block.1.", batch_norm=batch_norm), "before.")
        part = stack(_shape(ours, "0.reduce.weight")[1], _shape(ours, "0.expand.weight")[0], block)
    elif "block.0.weight" in inside:
        ours = _inside(_unet_names(inside, "block.2.", batch_norm=batch_norm), "inner.")
        part = Level(_shape(ours, "down.weight")[1], _widths(ours), block)
    else:
        raise ConfigError(
            f"the checkpoint holds no part {name} of the UNet",
            hint="parts are bottlenecks (left.*), stacks (block.0.left.*) and levels (block.0.weight)",
        )
    load_strictly(part, ours, PROJECT)
    return part


def from_reference(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names, without the unused classifier of ResNetSAN01.

    Its branch of MinkowskiEngine's sparse convolutions has no form here and is left out, with a warning.

    Raises:
        CheckpointError: it is of no network known here.
    """
    weights = _plain(state_dict)
    if branches := _minkowski(_tensors(state_dict)):
        warnings.warn(
            f"{', '.join(sorted(branches))} is left out: sparse convolutions of MinkowskiEngine cannot be "
            "loaded; the path of the image is complete, what reads given depth has to be trained anew",
            stacklevel=2,
        )
    architecture = _architecture(weights)
    option = _option(weights, architecture)
    return {
        our_name(name, architecture, option=option): value
        for name, value in weights.items()
        if not name.startswith(CLASSIFIER)
    }


def to_reference(model: nn.Module) -> dict[str, Tensor]:
    """A state dict that the published code loads.

    Raises:
        ConfigError: the network has something that no published code builds.
    """
    if isinstance(model, ResNetSAN) and model.sparse is not None:
        raise ConfigError(
            "a ResNet with the dense sparse branch has no published form", hint="sparse=false has"
        )
    if not isinstance(getattr(model, "activation", nn.Identity()), nn.Identity):
        raise ConfigError(
            "a network with an activation behind its head has no published form", hint="activation=none has"
        )
    return reference_state(model)


def reference_state(model: nn.Module) -> dict[str, Tensor]:
    """`to_reference` for any network: what has no published form keeps our names."""
    architecture, option = _of_model(model)
    state = {
        reference_name(name, architecture, option=option): value.detach().cpu()
        for name, value in model.state_dict().items()
    }
    if architecture == "resnetsan":
        channels = state["decoder.decoder.0.conv.conv.weight"].shape[1]
        state[f"{CLASSIFIER}weight"] = torch.zeros(1000, channels)
        state[f"{CLASSIFIER}bias"] = torch.zeros(1000)
    return {name: state[name] for name in in_their_order(state, architecture)}


def published_name(model: nn.Module, name: str) -> str:
    """The published name of a parameter or buffer of a network."""
    architecture, option = _of_model(model)
    return reference_name(name, architecture, option=option)


def _of_model(model: nn.Module) -> tuple[Architecture, bool]:
    """Architecture and option as `keys` takes them."""
    if isinstance(model, UNet):
        return "unet", isinstance(model.before[0], BatchNormBottleneck)
    if isinstance(model, SPNet):
        return model.variant, False
    assert isinstance(model, ResNetSAN), f"{type(model).__name__} is no network of this system"
    return "resnetsan", model.dual_head


def _plain(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that have a form here; see `_tensors`."""
    weights = _tensors(content)
    branches = _minkowski(weights)
    return {name: value for name, value in weights.items() if name.partition(".")[0] not in branches}


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors under the names that the published networks give them, wrappers' prefixes cut."""
    plain: dict[str, Tensor] = {}
    for key, value in plain_state(content, *CONTAINERS).items():
        while key.startswith(_WRAPPERS):
            key = key.partition(".")[2]
        plain[key] = value
    return _inside(plain, _DEPTH_NET) or plain


def _minkowski(weights: Weights) -> set[str]:
    """Parts of a network with sparse convolutions, whose weights MinkowskiEngine calls kernel."""
    return {name.partition(".")[0] for name in weights if name.endswith(".kernel")}


def _architecture(weights: Weights) -> Architecture:
    architecture = architecture_of(weights)
    if architecture is None:
        first = ", ".join(list(weights)[:3]) or "none"
        raise CheckpointError(
            f"the checkpoint's names (first: {first}) are those of no network known here",
            hint=f"it should be of {PROJECT}",
        )
    return architecture


def _option(weights: Weights, architecture: Architecture) -> bool:
    if architecture == "unet":
        return not any(key.endswith(".alpha") for key in weights)
    return architecture == "resnetsan" and _has_two_heads(weights)


def _has_two_heads(weights: Weights) -> bool:
    return "decoder.decoder.14.conv.weight" in weights


def _build_unet(weights: Weights, pad: Pad) -> UNet:
    layers = 1 + max(key.count("2.block.") for key in weights)
    features, in_channels = _shape(weights, "block.0.weight")[:2]
    return UNet(
        in_channels,
        _shape(weights, "block.4.weight")[0],
        layers=layers,
        features=features,
        block="batch_norm" if _option(weights, "unet") else "rezero",
        pad=pad,
    )


def _build_spnet(weights: Weights, architecture: Architecture, pad: Pad) -> SPNet:
    dims, depths = _spnet_form(weights)
    return SPNet(dims, depths, variant="pacgdc" if architecture == "pacgdc" else "spnet", pad=pad)


def _spnet_form(weights: Weights) -> tuple[list[int], list[int]]:
    """Channels and numbers of blocks of levels 2 to 5."""
    matches = [re.match(r"encoder\.stages\.(\d+)\.(\d+)\.block\.0\.weight", key) for key in weights]
    blocks = [int(match[1]) for match in matches if match]
    dims = [_shape(weights, f"encoder.downsample_layers.{level}.1.weight")[0] for level in range(2, 6)]
    return dims, [blocks.count(level) for level in range(2, 6)]


def _spnet_size(weights: Weights) -> str:
    dims, depths = _spnet_form(weights)
    for size, (width, blocks) in SIZES.items():
        if dims == [width * 2**stage for stage in range(4)] and depths == list(blocks):
            return size
    raise CheckpointError(
        f"the checkpoint's network has {dims} channels and {depths} blocks, which is none of the sizes "
        f"{', '.join(SIZES)}",
        hint="load_reference builds any size, for predictions in Python",
    )


def _resnet_layers(weights: Weights) -> Any:
    """18, 34 or 50."""
    matches = [re.match(r"encoder\.encoder\.layer(\d)\.(\d+)\.conv1\.weight", key) for key in weights]
    stages = [int(match[1]) for match in matches if match]
    counts = tuple(stages.count(stage) for stage in range(1, 5))
    return 50 if "encoder.encoder.layer1.0.conv3.weight" in weights else _RESNETS.get(counts, 18)


def _unet_names(weights: Weights, start: str, *, batch_norm: bool) -> dict[str, Tensor]:
    return {our_name(f"{start}{key}", "unet", option=batch_norm): value for key, value in weights.items()}


def _widths(ours: Weights) -> list[int]:
    """Channels of a level and those below it."""
    depth = max(key.count("inner.") for key in ours)
    return [_shape(ours, f"{'inner.' * level}down.weight")[0] for level in range(depth + 1)]


def _inside(weights: Weights, start: str) -> dict[str, Tensor]:
    return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}


def _shape(weights: Weights, key: str) -> tuple[int, ...]:
    return shape_of(weights, key, PROJECT)
