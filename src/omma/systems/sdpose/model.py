"""SDPose: a convolutional stem, a transformer encoder run in cycles, heatmaps (arXiv 2404.03518).

Every cycle passes all tokens through the same encoder and its keypoint tokens through the same head.
Prediction takes the first cycle alone; the later ones teach it in training.
Shapes: B batch, K keypoints, N visual tokens, D features of a token, (h, w) heatmap cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.sdpose.config import STRIDE
from omma.systems.sdpose.encoder import Encoder
from omma.systems.sdpose.hrnet import HRNet
from omma.systems.sdpose.positions import sine_table
from omma.systems.sdpose.pretrained import load_imagenet
from omma.systems.sdpose.readout import start_as_readout
from omma.systems.sdpose.stemnet import StemNet

if TYPE_CHECKING:
    from omma.systems.sdpose.config import SDPoseData, SDPoseSystem

Size = tuple[int, int]
Position = Literal["sine-full", "sine", "learnable"]
Backbone = StemNet | HRNet
NUM_KEYPOINTS = 17
INIT_STD = 0.02


class Cycle(NamedTuple):
    """What one pass through the encoder gives.

    Args:
        keypoints: tokens, (B, K, D).
        visual: tokens, (B, N, D).
        heatmaps: (B, K, h, w).
        attention: how much the keypoints look at each visual token in the last layer, mean over heads and
            keypoints, (B, N) float32 without gradient; None unless asked for.
    """

    keypoints: Tensor
    visual: Tensor
    heatmaps: Tensor
    attention: Tensor | None


class TokenHead(nn.Module):
    """Features to heatmaps by tokens: one for each patch, one learned for each keypoint.

    Args:
        channels: C of the features.
        size: (h, w) of features and heatmaps.
        patch: (rows, columns) of cells a visual token.
        num_keypoints: K.
        dim: D.
        depth: layers of the encoder.
        heads: of each attention.
        mlp_ratio: hidden features of a layer's perceptron over D.
        position: "sine" adds fixed positions to the visual tokens before the first layer, "sine-full" also
            before every other one but each cycle's first, "learnable" adds learned ones to all tokens once.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: Size,
        patch: Size,
        num_keypoints: int = NUM_KEYPOINTS,
        dim: int = 192,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 3.0,
        position: Position = "sine-full",
    ) -> None:
        super().__init__()
        self.size, self.patch, self.num_keypoints, self.position = size, patch, num_keypoints, position
        self.grid = size[0] // patch[0], size[1] // patch[1]
        self.keypoint_token = nn.Parameter(torch.zeros(1, num_keypoints, dim))
        if position == "learnable":
            self.positions = nn.Parameter(torch.zeros(1, num_keypoints + self.grid[0] * self.grid[1], dim))
        else:
            for_all = F.pad(sine_table(self.grid, dim), (0, 0, num_keypoints, 0))
            self.register_buffer("positions", for_all, persistent=False)
        self.patch_to_token = nn.Linear(patch[0] * patch[1] * channels, dim)
        self.encoder = Encoder(dim, depth, heads, round(mlp_ratio * dim))
        self.output = _output(dim, size[0] * size[1])
        self.apply(_init_linear)
        nn.init.trunc_normal_(self.keypoint_token, std=INIT_STD)
        if position == "learnable":
            nn.init.trunc_normal_(self.positions, std=INIT_STD)

    def forward(self, features: Tensor) -> Tensor:
        """Heatmaps (B, K, h, w) of the first cycle from features (B, C, h, w)."""
        return self.forward_cycles(features, cycles=1)[0].heatmaps

    def forward_cycles(self, features: Tensor, *, cycles: int, attention: bool = False) -> list[Cycle]:
        """Every cycle; arguments as for `SDPose.forward_cycles`, from features (B, C, h, w)."""
        tokens = self._tokens(features)
        between = self.positions if self.position == "sine-full" else None
        results = []
        for _ in range(cycles):
            attention_of = self.num_keypoints if attention else 0
            tokens, scores = self.encoder(tokens, between, attention_of=attention_of)
            keypoints, visual = tokens[:, : self.num_keypoints], tokens[:, self.num_keypoints :]
            heatmaps = self.output(keypoints).unflatten(2, self.size)
            results.append(Cycle(keypoints, visual, heatmaps, scores))
        return results

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The encoder's layers."""
        return list(self.encoder.layers)

    def _tokens(self, features: Tensor) -> Tensor:
        """(B, K + N, D), positions added; a patch's features in the order row, column, channel."""
        rows, columns = self.patch
        patches = features.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        visual = self.patch_to_token(patches)
        keypoints = self.keypoint_token.expand(visual.shape[0], -1, -1).to(visual.dtype)
        return torch.cat([keypoints, visual], dim=1) + self.positions


class SDPose(nn.Module):
    """One person's crop to heatmaps of the keypoints.

    Args:
        backbone: images to features of a quarter of their size.
        head: features to heatmaps.
    """

    def __init__(self, backbone: Backbone, head: TokenHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor:
        """Heatmaps (B, K, H / 4, W / 4) of the first cycle from normalised RGB (B, 3, H, W)."""
        return self.head(self._features(image))

    def forward_cycles(self, image: Tensor, *, cycles: int, attention: bool = False) -> list[Cycle]:
        """What each cycle gives, the one that predicts first.

        Args:
            image: normalised RGB, (B, 3, H, W).
            cycles: passes through the encoder, at least one.
            attention: whether the cycles' attention is wanted.
        """
        return self.head.forward_cycles(self._features(image), cycles=cycles, attention=attention)

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass."""
        return [*self.backbone.checkpoint_blocks(), *self.head.checkpoint_blocks()]

    def _features(self, image: Tensor) -> Tensor:
        expected = tuple(STRIDE * side for side in self.head.size)
        if tuple(image.shape[-2:]) != expected:
            raise ConfigError(
                f"the image is {image.shape[-2]} x {image.shape[-1]}, the network was built for "
                f"{expected[0]} x {expected[1]} (height x width)",
                hint="give the images and the network the same data.image_size",
            )
        return self.backbone(image)


def build_model(system: SDPoseSystem, data: SDPoseData) -> SDPose:
    """The network that a recipe describes.

    Raises:
        ConfigError: ImageNet weights that cannot be had.
        CheckpointError: the file of ImageNet weights is none.
    """
    settings = system.backbone
    if settings.name == "stemnet":
        if settings.pretrained not in ("none", "auto"):
            raise ConfigError(
                f"system.backbone.pretrained={settings.pretrained}: StemNet has no ImageNet weights",
                hint="leave it out; `--init FILE` starts from a whole network's weights",
            )
        backbone: Backbone = StemNet(settings.width)
    else:
        backbone = HRNet(settings.stage1_width)
        load_imagenet(backbone, settings.pretrained)
    head = TokenHead(
        backbone.channels,
        size=(data.image_size[0] // STRIDE, data.image_size[1] // STRIDE),
        patch=system.patch,
        dim=system.dim,
        depth=system.depth,
        heads=system.heads,
        mlp_ratio=system.mlp_ratio,
        position=system.position,
    )
    model = SDPose(backbone, head)
    if system.init == "readout":
        start_as_readout(model, sigma=data.target.sigma)
    return model


def _output(dim: int, cells: int) -> nn.Sequential:
    """A keypoint's token to its heatmap: two linear layers without an activation between, as published."""
    hidden = cells // 8
    if 2 * dim > hidden:
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, cells))
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, cells)
    )


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
