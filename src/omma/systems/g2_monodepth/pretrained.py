"""ImageNet weights for the ResNet encoder: timm's, or those of a file in timm's or torchvision's names."""

from __future__ import annotations

from omma.engine.published_weights import encoder_weights
from omma.errors import CheckpointError
from omma.systems.g2_monodepth.resnetsan import ResNetSAN

KEY = "system.pretrained"
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
    weights = encoder_weights(source, f"resnet{model.layers}", KEY)
    if weights is None:
        return
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
