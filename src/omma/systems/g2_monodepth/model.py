"""The network that a recipe describes, with its first weights."""

from __future__ import annotations

from torch import nn

from omma.errors import ConfigError
from omma.systems.g2_monodepth.config import G2System, ResNetSANSection, SPNetSection
from omma.systems.g2_monodepth.pretrained import load_encoder
from omma.systems.g2_monodepth.resnetsan import ResNetSAN
from omma.systems.g2_monodepth.spnet import DROP_PATH, SIZES, SPNet
from omma.systems.g2_monodepth.unet import UNet


def build_model(system: G2System) -> nn.Module:
    """The network of a recipe's `system` section: (rgb, raw, mask) -> depth.

    Raises:
        ConfigError: pretrained weights are asked for that there are none of, or cannot be downloaded.
        CheckpointError: the file of pretrained weights cannot be read or does not fit.
    """
    network = system.network
    if isinstance(network, ResNetSANSection):
        options = network.model_dump(exclude={"name", "layers", "consistency"})
        model = ResNetSAN(network.layers, **options)
        load_encoder(model, system.pretrained)
        return model
    if system.pretrained != "none":
        raise ConfigError(
            f"system.pretrained={system.pretrained}: only resnet_san has an encoder with weights of its own",
            f"--init FILE starts a training from weights of a whole {network.name}",
        )
    if isinstance(network, SPNetSection):
        return _build_spnet(network)
    return UNet(**network.model_dump(exclude={"name"}))


def _build_spnet(network: SPNetSection) -> SPNet:
    width, depths = SIZES[network.size]
    drop_path = network.drop_path
    if drop_path is None:
        drop_path = DROP_PATH[network.name][list(SIZES).index(network.size)]
    dims = [width * 2**stage for stage in range(4)]
    return SPNet(
        dims,
        depths,
        variant=network.name,
        drop_path=drop_path,
        pad=network.pad,
        activation=network.activation,
    )
