"""Selective state spaces (Mamba, arXiv 2312.00752) over a view's tokens, both ways, in plain PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Size = tuple[int, int]
_CONV = 4
_EXPANSION = 2
_STEP_RANGE = (1e-3, 1e-1)  # of the step sizes that a new mixer begins with


class BiMamba(nn.Module):
    """Blocks of two mixers each, one for either direction.

    Args:
        in_width: features of a token that comes in.
        width: of one that goes out.
        hidden: of the blocks.
        depth: blocks.
        state: numbers that each feature remembers.
        dropout: after a block's mixers.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        hidden: int = 512,
        depth: int = 4,
        state: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.input_proj = nn.Linear(in_width, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, state, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.output_proj = nn.Linear(hidden, width)

    def out_grid(self, grid: Size) -> Size | None:
        """Grid of the tokens that go out."""
        return grid

    def count(self, grid: Size) -> int:
        """Tokens of a view that go out."""
        return math.prod(grid)

    def forward(self, tokens: Tensor, grid: Size | None = None) -> Tensor:
        """Tokens (N, S, width) from (N, S, in_width); the grid does not matter."""
        tokens = self.input_proj(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.output_proj(self.norm(tokens))


class _Block(nn.Module):
    def __init__(self, width: int, state: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.ahead, self.back = Mixer(width, state), Mixer(width, state)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        both = self.ahead(normed) + self.back(normed.flip(1)).flip(1)
        return tokens + self.dropout(0.5 * both)


class Mixer(nn.Module):
    """One selective state space, token after token.

    Args:
        width: features of a token.
        state: numbers that each inner feature remembers.
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        inner, rank = _EXPANSION * width, math.ceil(width / 16)
        self.splits = (rank, state, state)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, _CONV, groups=inner, padding=_CONV - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._set_steps(rank)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, S, width), each from those up to it."""
        values, gate = self.in_proj(tokens).chunk(2, dim=-1)
        values = F.silu(self.conv1d(values.mT)[..., : tokens.shape[1]]).mT
        steps, write, read = self.x_proj(values).split(self.splits, dim=-1)
        inputs = (values, F.softplus(self.dt_proj(steps)), -self.A_log.float().exp(), write, read)
        # a memory for every token would fill a GPU: the backward pass computes them again
        seen = checkpoint(_scan, *inputs, use_reentrant=False) if torch.is_grad_enabled() else _scan(*inputs)
        return self.out_proj((seen + self.D * values) * F.silu(gate))

    def _set_steps(self, rank: int) -> None:
        low, high = (math.log(edge) for edge in _STEP_RANGE)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            steps = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp()
            self.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus of it gives the steps


def _scan(values: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """What is read from a memory that fades and is written to, token after token.

    Args:
        values: written, (N, S, D).
        steps: how much, (N, S, D).
        decay: of each number remembered, (D, M), negative.
        write: where to, (N, S, M).
        read: from where, (N, S, M).

    Returns:
        (N, S, D).
    """
    dtype = values.dtype
    values, steps, write, read = (part.float() for part in (values, steps, write, read))
    kept = (steps[..., None] * decay).exp().unbind(1)
    new = ((steps * values)[..., None] * write[:, :, None]).unbind(1)
    memory = torch.zeros_like(new[0])
    seen = []
    for index, (keep, add) in enumerate(zip(kept, new, strict=True)):
        memory = keep * memory + add
        seen.append((memory * read[:, index, None]).sum(-1))
    return torch.stack(seen, dim=1).to(dtype)
