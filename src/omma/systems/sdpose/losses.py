"""The training loss: heatmaps of every cycle, and each cycle's tokens against the next one's (section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from omma.core.heatmap_losses import joints_mse
from omma.core.token_losses import (
    entropy_token_loss,
    entropy_weights,
    important_keep,
    norm_scores,
    peak_scores,
    random_keep,
    token_loss,
)
from omma.errors import ConfigError
from omma.systems.sdpose.config import Distillation
from omma.systems.sdpose.model import Cycle

Kind = Literal["visual", "keypoint"]
KINDS: tuple[Kind, ...] = ("visual", "keypoint")
HEATMAPS, HEATMAPS_APART = "heatmap_loss", "heatmap_dist_loss"
_TERMS = {"visual": "vis_dist_loss", "keypoint": "kpt_dist_loss"}
_IMPORTANCE = {"visual": "attention", "keypoint": "peak"}


@dataclass(frozen=True)
class TokenTerm:
    """How one kind of token is distilled; values as in the recipe's `distill`, defaults filled in.

    Args:
        kind: of token.
        loss: "plain", "masked", "entropy" or "none".
        loss_weight: factor of the term.
        mask_ratio: share of the tokens left out.
        mask_strategy: "random" or "importance".
        importance: "attention", "peak" or "norm".
    """

    kind: Kind
    loss: str
    loss_weight: float
    mask_ratio: float
    mask_strategy: str
    importance: str

    @property
    def needs_attention(self) -> bool:
        """Whether the tokens' scores are the attention of the encoder's last layer."""
        masked = self.loss == "masked" and self.mask_strategy == "importance"
        return masked and self.importance == "attention"


def token_terms(distill: Distillation) -> list[TokenTerm]:
    """The active terms of a recipe, visual tokens first.

    Raises:
        ConfigError: scores that this kind of token has not.
    """
    terms = []
    for kind in KINDS:
        own = {k: v for k, v in getattr(distill, kind).model_dump().items() if v is not None}
        shared = distill.model_dump(include={"loss", "loss_weight", "mask_ratio", "mask_strategy"})
        term = TokenTerm(kind, **({**shared, "importance": _IMPORTANCE[kind]} | own))
        if term.importance not in (_IMPORTANCE[kind], "norm"):
            raise ConfigError(
                f"system.distill.{kind}.importance: {kind} tokens have no {term.importance}",
                hint=f"take {_IMPORTANCE[kind]} or norm",
            )
        if term.loss != "none" and term.loss_weight > 0:
            terms.append(term)
    return terms


class CycleLoss:
    """The training loss of a recipe.

    Args:
        distill: the recipe's section.

    Raises:
        ConfigError: scores that a kind of token has not.
    """

    def __init__(self, distill: Distillation) -> None:
        self.distill, self.terms = distill, token_terms(distill)

    @property
    def needs_attention(self) -> bool:
        """Whether the cycles have to come with their attention."""
        return any(term.needs_attention for term in self.terms)

    def names(self, cycles: int) -> list[str]:
        """Names of the terms with so many cycles."""
        if cycles == 1:
            return [HEATMAPS]
        more = [_TERMS[term.kind] for term in self.terms]
        return [HEATMAPS, *more, *([HEATMAPS_APART] if self.distill.heatmap_weight > 0 else [])]

    def __call__(
        self,
        cycles: Sequence[Cycle],
        target: Tensor,
        weight: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms; the loss is their sum.

        Args:
            cycles: as the network gives them.
            target: heatmaps, (B, K, h, w).
            weight: of each joint, (B, K, 1) or (B, K).
            generator: of random masks; None: PyTorch's own.

        Returns:
            scalars under `names`; each sums over cycles or pairs of cycles.
        """
        losses = {HEATMAPS: _sum(joints_mse(cycle.heatmaps, target, weight) for cycle in cycles)}
        pairs = list(pairwise(cycles))
        for term in self.terms if pairs else ():
            apart = _sum(self._tokens_apart(*pair, term, weight, generator) for pair in pairs)
            losses[_TERMS[term.kind]] = term.loss_weight * apart
        if pairs and self.distill.heatmap_weight > 0:
            apart = _sum(self._heatmaps_apart(*pair, weight) for pair in pairs)
            losses[HEATMAPS_APART] = self.distill.heatmap_weight * apart
        return losses

    def _heatmaps_apart(self, student: Cycle, teacher: Cycle, weight: Tensor) -> Tensor:
        target = teacher.heatmaps.detach() if self.distill.detach_teacher else teacher.heatmaps
        return joints_mse(student.heatmaps, target, weight)

    def _tokens_apart(
        self,
        student: Cycle,
        teacher: Cycle,
        term: TokenTerm,
        weight: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        tokens, better = _tokens(student, term.kind), _tokens(teacher, term.kind)
        detach = self.distill.detach_teacher
        if term.loss == "entropy":
            weights = entropy_weights(teacher.heatmaps, *self.distill.entropy_range)
            visible = weight.flatten(1)
            return entropy_token_loss(tokens, better, weights, visible=visible, detach_teacher=detach)
        keep = None
        if term.loss == "masked" and term.mask_strategy == "random":
            keep = random_keep(better, term.mask_ratio, generator=generator)
        elif term.loss == "masked":
            keep = important_keep(_scores(teacher, term), term.mask_ratio)
        return token_loss(tokens, better, keep=keep, detach_teacher=detach)


def _tokens(cycle: Cycle, kind: Kind) -> Tensor:
    return cycle.visual if kind == "visual" else cycle.keypoints


def _scores(teacher: Cycle, term: TokenTerm) -> Tensor:
    if term.importance == "peak":
        return peak_scores(teacher.heatmaps)
    if term.importance == "norm":
        return norm_scores(_tokens(teacher, term.kind))
    assert teacher.attention is not None, "the cycles come with attention where needs_attention says so"
    return teacher.attention


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
