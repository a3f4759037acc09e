"""ImageNet weights for the HRNet backbone: timm's, or those of a file in timm's or HRNet's own names."""

from __future__ import annotations

import warnings

from torch import Tensor

from omma.engine.published_weights import encoder_weights
from omma.errors import CheckpointError
from omma.systems.sdpose.hrnet import HRNet
from omma.systems.sdpose.keys import BACKBONE, our_name

KEY = "system.backbone.pretrained"
TIMM_MODEL = "hrnet_w32"
_STAGE1 = ("stem.layer1.", "transition1.")  # of other shapes where stage 1 is narrower than ImageNet's
_COUNTER = "num_batches_tracked"  # old files have none


def load_imagenet(backbone: HRNet, source: str) -> None:
    """Give a backbone its first weights; what lies behind its third stage is left out.

    With 32 channels in stage 1 its weights and those that read it stay random, as published, and a warning
    says how many they are.

    Args:
        backbone: the network.
        source: "none"; "imagenet" (timm's, download); "auto": imagenet, or a warning and none; or a file.

    Raises:
        ConfigError: the weights cannot be downloaded.
        CheckpointError: the file cannot be read or is of another network.
    """
    weights = encoder_weights(source, TIMM_MODEL, KEY, download="imagenet")
    if weights is not None:
        _load(backbone, weights, source)


def _load(backbone: HRNet, weights: dict[str, Tensor], source: str) -> None:
    named = {our_name(f"{BACKBONE}{key}", hrnet=True).removeprefix(BACKBONE): v for key, v in weights.items()}
    wanted = {k: v for k, v in backbone.state_dict().items() if not k.endswith(_COUNTER)}
    missing = [key for key in wanted if key not in named]
    reshaped = [key for key in wanted if key in named and named[key].shape != wanted[key].shape]
    narrow = backbone.stage1_width != 64
    bad = missing + [key for key in reshaped if not (narrow and key.startswith(_STAGE1))]
    if bad:
        raise CheckpointError(
            f"{source}: {len(bad)} of {len(wanted)} tensors missing or of another shape, first {bad[0]}",
            hint=f"give a file of timm's {TIMM_MODEL} or of HRNet-W32's ImageNet weights",
        )
    if reshaped:
        warnings.warn(
            f"{len(reshaped)} of {len(wanted)} tensors of the backbone stay random, as published: ImageNet's "
            "stage 1 is wider; system.backbone.stage1_width=64 takes all",
            stacklevel=3,
        )
    fitting = {key: named[key] for key in wanted if key not in reshaped}
    backbone.load_state_dict(fitting, strict=False)
