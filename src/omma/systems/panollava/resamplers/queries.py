"""Learned queries that look at a view's tokens: Perceiver (arXiv 2204.14198), Q-Former (arXiv 2301.12597)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
_BERT_EPS = 1e-12
_INIT_STD = 0.02


class _Queries(nn.Module):
    """What both have: a fixed number of tokens without a grid."""

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.queries, self.width = queries, width

    def out_grid(self, grid: Size) -> Size | None:
        """None: queries have no grid."""
        return None

    def count(self, grid: Size) -> int:
        """Tokens of a view that go out."""
        return self.queries


class Perceiver(_Queries):
    """Latents that attend to the tokens and to one another.

    Args:
        in_width: features of a token that comes in, and of a latent.
        width: of one that goes out.
        queries: latents.
        depth: layers.
        heads: of each attention.
        head_width: features of a head.
        expansion: hidden features of a layer's perceptron over `in_width`.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        queries: int = 64,
        depth: int = 6,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
    ) -> None:
        super().__init__(queries, width)
        self.latents = nn.Parameter(_INIT_STD * torch.randn(queries, in_width))
        self.layers = nn.ModuleList(
            _PerceiverLayer(in_width, heads, head_width, expansion) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(in_width)
        self.proj = nn.Linear(in_width, width) if in_width != width else nn.Identity()

    def forward(self, tokens: Tensor, grid: Size | None = None) -> Tensor:
        """Tokens (N, queries, width) from (N, S, in_width); the grid does not matter."""
        latents = self.latents.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.proj(self.norm(latents))


class _PerceiverLayer(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.norm_tokens, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width, bias=False),
            nn.GELU(),
            nn.Linear(expansion * width, width, bias=False),
        )

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        normed = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([self.norm_tokens(tokens), normed], dim=1)).chunk(2, dim=-1)
        latents = latents + self.to_out(_attend(self.to_q(normed), keys, values, self.heads))
        return latents + self.mlp(latents)


class QFormer(_Queries):
    """BERT's layers on learned queries, with attention to the tokens in each.

    Args:
        in_width: features of a token that comes in, and of a query.
        width: of one that goes out.
        queries: how many.
        depth: layers.
        heads: of each attention.
        causal: whether a query attends to earlier ones only, as in the reference.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        queries: int = 64,
        depth: int = 6,
        heads: int = 8,
        causal: bool = False,
    ) -> None:
        super().__init__(queries, width)
        self.query = nn.Parameter(_INIT_STD * torch.randn(queries, in_width))
        self.norm = nn.LayerNorm(in_width, eps=_BERT_EPS)
        self.layers = nn.ModuleList(_QFormerLayer(in_width, heads, causal=causal) for _ in range(depth))
        self.proj = nn.Linear(in_width, width)

    def forward(self, tokens: Tensor, grid: Size | None = None) -> Tensor:
        """Tokens (N, queries, width) from (N, S, in_width); the grid does not matter."""
        queries = self.norm(self.query).expand(tokens.shape[0], -1, -1).to(tokens.dtype)
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.proj(queries)


class _QFormerLayer(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.attention = _BertAttention(width, heads, causal=causal)
        self.cross_attention = _BertAttention(width, heads)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=_BERT_EPS)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        queries = self.cross_attention(self.attention(queries, queries), tokens)
        return self.norm(queries + self.contract(F.gelu(self.expand(queries))))


class _BertAttention(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=_BERT_EPS)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        keys, values = self.key(tokens), self.value(tokens)
        seen = _attend(self.query(queries), keys, values, self.heads, causal=self.causal)
        return self.norm(queries + self.dense(seen))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """(N, Q, inner) from queries (N, Q, inner), keys and values (N, K, inner)."""
    split = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    return F.scaled_dot_product_attention(*split, is_causal=causal).transpose(1, 2).flatten(2)
