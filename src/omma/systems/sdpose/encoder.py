"""The transformer encoder that every cycle shares (spec sections 3.6 and 3.7).

Shapes: B batch, T tokens, the K of the keypoints first and N visual ones behind them, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        dim: D.
        heads: of the attention; divides D.
        mlp_dim: hidden features of the perceptron.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) from the same."""
        query, key, value = (self._split(part) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))

    @torch.no_grad()
    def attention(self, x: Tensor, num_keypoints: int) -> Tensor:
        """How much the keypoints look at each visual token.

        Args:
            x: what `forward` is given, (B, T, D).
            num_keypoints: K; only their rows of the attention are computed.

        Returns:
            mean over heads and keypoints, (B, N) float32, without gradient.
        """
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would rank many tokens alike
            tokens = self.norm1(x.to(self.norm1.weight.dtype))
            of_query, of_key, _ = self.qkv.weight.chunk(3)
            query = self._split(F.linear(tokens[:, :num_keypoints], of_query)).float()
            key = self._split(F.linear(tokens, of_key)).float()
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            return scores.softmax(-1).mean((1, 2))[:, num_keypoints:]

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """Layers one after another, without a norm behind the last.

    Args:
        dim: D.
        depth: layers.
        heads: of each attention.
        mlp_dim: hidden features of each perceptron.
    """

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, mlp_dim) for _ in range(depth))

    def forward(
        self, x: Tensor, positions: Tensor | None = None, *, attention_of: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            x: tokens, (B, T, D).
            positions: added before every layer but the first, (1, T, D).
            attention_of: keypoints whose attention in the last layer is wanted; 0: none is computed.

        Returns:
            tokens (B, T, D) and the attention as `EncoderLayer.attention` gives it, or None.
        """
        attention = None
        for index, layer in enumerate(self.layers):
            if index and positions is not None:
                x = x + positions
            if attention_of and index + 1 == len(self.layers):
                attention = layer.attention(x, attention_of)
            x = layer(x)
        return x, attention
