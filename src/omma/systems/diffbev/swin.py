"""Swin transformer as an image encoder (Liu et al., arXiv 2103.14030).

Follows the reference on maps that are no multiple of the window: they are padded first and rolled then, and
maps smaller than the window are shifted too. Tokens stay (B, H, W, C) from the first to the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 4
MASKED = -100.0  # added to the scores of tokens that are no neighbours, as in published weights' training


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for every relative position.

    Args:
        channels: of the tokens.
        num_heads: divides the channels.
        window: tokens along a window's side.
    """

    relative_index: Tensor

    def __init__(self, channels: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_index", relative_index(window), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            tokens: windows of all images, (B V, L, C), V windows an image, L tokens a window.
            mask: added to the scores, (V, L, L); None: nothing.

        Returns:
            (B V, L, C).
        """
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias_table[self.relative_index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(tokens) // len(mask), 1, 1, 1)
        attended = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        return self.proj(attended.transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        channels: of the tokens.
        num_heads: of the attention.
        window: tokens along a window's side.
        shift: the windows' offset in tokens; 0: none.
        drop_path: probability of leaving out a branch of a sample in training.
    """

    def __init__(self, channels: int, num_heads: int, *, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, num_heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, H, W, C) from the same; `mask` (V, L, L) as `shift_mask` makes it, for a shifted block."""
        x = x + self._drop(self._attend(self.norm1(x), mask))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        _, H, W, C = x.shape
        w, (height, width) = self.window, padded_size((H, W), self.window)
        x = F.pad(x, (0, 0, 0, width - W, 0, height - H))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        split = (-1, height // w, w, width // w, w, C)
        windows = x.view(split).transpose(2, 3).reshape(-1, w * w, C)
        windows = self.attn(windows, mask).view(-1, height // w, width // w, w, w, C)
        x = windows.transpose(2, 3).reshape(-1, height, width, C)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :H, :W]

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1, 1).bernoulli_(1.0 - self.drop_path)
        return branch * kept / (1.0 - self.drop_path)


class PatchEmbed(nn.Module):
    """Patches of 4 x 4 pixels to tokens.

    Args:
        channels: of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, img: Tensor) -> Tensor:
        """Tokens (B, ceil(H / 4), ceil(W / 4), C) of images (B, 3, H, W), padded with zeros at the end."""
        img = F.pad(img, (0, -img.shape[3] % PATCH, 0, -img.shape[2] % PATCH))
        tokens = self.projection(img.contiguous(memory_format=torch.channels_last))
        return self.norm(tokens.permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Four neighbouring tokens to one of twice the channels.

    Args:
        channels: of the tokens that come in.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ceil(H / 2), ceil(W / 2), 2C) of (B, H, W, C), padded with zeros at the end."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, every second one shifted by half a window, and the way to the next.

    Args:
        channels: of the tokens.
        num_heads: of every attention.
        window: tokens along a window's side.
        drop_paths: one for each block.
        merge: whether a next stage follows.
    """

    def __init__(
        self, channels: int, num_heads: int, *, window: int, drop_paths: Sequence[float], merge: bool
    ) -> None:
        super().__init__()
        self.window = window
        shifts = [window // 2 if index % 2 else 0 for index in range(len(drop_paths))]
        self.blocks = nn.ModuleList(
            SwinBlock(channels, num_heads, window=window, shift=shift, drop_path=drop_path)
            for shift, drop_path in zip(shifts, drop_paths, strict=True)
        )
        self.downsample = PatchMerging(channels) if merge else None
        self._masks: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) from the same, before merging."""
        mask = self._shift_mask(x)
        for block in self.blocks:
            x = block(x, mask if block.shift else None)
        return x

    def _shift_mask(self, x: Tensor) -> Tensor:
        size = padded_size((x.shape[1], x.shape[2]), self.window)
        if torch.compiler.is_compiling():
            return shift_mask(size, self.window).to(x.device)
        key = (*size, x.device)
        if key not in self._masks:
            with torch.inference_mode(False):
                self._masks = {key: shift_mask(size, self.window).to(x.device)}
        return self._masks[key]


class SwinTransformer(nn.Module):
    """Feature maps of strides 4, 8, 16 and 32.

    Args:
        embed_dim: channels of the first stage, doubled by every next one.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window: tokens along a window's side.
        drop_path: stochastic depth of the last block; grows linearly from 0 at the first.
        out_indices: stages whose maps are returned.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.0,
        out_indices: Sequence[int] = (3,),
    ) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        self.channels = [embed_dim * 2**stage for stage in range(len(depths))]
        self.patch_embed = PatchEmbed(embed_dim)
        step = drop_path / max(sum(depths) - 1, 1)
        first = [sum(depths[:stage]) for stage in range(len(depths))]
        self.stages = nn.ModuleList(
            SwinStage(
                channels,
                num_heads[stage],
                window=window,
                drop_paths=[step * (first[stage] + block) for block in range(depths[stage])],
                merge=stage + 1 < len(depths),
            )
            for stage, channels in enumerate(self.channels)
        )
        self.norms = nn.ModuleDict({str(stage): nn.LayerNorm(self.channels[stage]) for stage in out_indices})
        self.apply(_init)

    def forward(self, img: Tensor) -> list[Tensor]:
        """Normalised maps (B, C, h, w) of `out_indices`, sides rounded up, of images (B, 3, H, W)."""
        maps = []
        x = self.patch_embed(img)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(self.norms[str(index)](x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


def padded_size(size: tuple[int, int], window: int) -> tuple[int, int]:
    """(height, width) rounded up to whole windows."""
    return -(-size[0] // window) * window, -(-size[1] // window) * window


def relative_index(window: int) -> Tensor:
    """Row of the bias table for (query, key) of a window: (dy + w - 1)(2w - 1) + dx + w - 1, int64 (L, L)."""
    side = torch.arange(window)
    y, x = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
    dy, dx = (axis[:, None] - axis[None, :] + window - 1 for axis in (y, x))
    return dy * (2 * window - 1) + dx


def shift_mask(size: tuple[int, int], window: int) -> Tensor:
    """What keeps tokens apart that only the roll has brought together.

    Args:
        size: of the padded map, whole windows.
        window: tokens along a window's side; the shift is half of it.

    Returns:
        float32 (V, L, L), 0 or -100, to be added to the scores of V windows with L tokens.
    """
    rows, columns = (_regions(cells, window) for cells in size)
    regions = rows[:, None] * 3 + columns[None, :]
    split = regions.view(size[0] // window, window, size[1] // window, window)
    of_window = split.transpose(1, 2).reshape(-1, window * window)
    return (of_window[:, :, None] != of_window[:, None, :]).float() * MASKED


def _regions(cells: int, window: int) -> Tensor:
    """0 before the last window of an axis, 1 in it, 2 in what the roll moved there."""
    position = torch.arange(cells)
    return (position >= cells - window).int() + (position >= cells - window // 2).int()


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.bias_table, std=0.02)
