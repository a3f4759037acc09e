"""The terms of a recipe's loss, by name, over what a network answers (spec section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.depth_losses import (
    absolute_loss,
    berhu_loss,
    dual_head_losses,
    relative_error_loss,
    relative_losses,
    silog_loss,
    square_loss,
    ssi_loss,
    trimmed_loss,
)
from omma.core.depth_metrics import SMALLEST_DEPTH_M
from omma.engine.task import Batch
from omma.systems.g2_monodepth.config import TERMS, G2System, Terms
from omma.systems.g2_monodepth.resnetsan import SCALES, Heads, ResNetSAN

LOGGED = {"absolute": "adepth", "relative": "rdepth", "gradient": "rgrad"}  # others under their own names
CONSISTENCY = "consistency"
_LOG_EPS = 1e-8


class Answer(NamedTuple):
    """What a network says in one pass at one scale, at the size of the truth.

    Args:
        depth: over the maximal depth, (B, 1, H, W).
        heads: integer and fractional part, each in [0, 1], same shape; None without a dual head.
    """

    depth: Tensor
    heads: tuple[Tensor, Tensor] | None = None


class DepthLosses:
    """The weighted terms of a recipe.

    Args:
        system: its section; wrong combinations are refused there.
    """

    def __init__(self, system: G2System) -> None:
        loss, network = system.loss, system.network
        self.settings: Terms = loss
        self.bounds_m = (SMALLEST_DEPTH_M, float("inf"))
        self.weights = {name: weight for name in TERMS if (weight := getattr(loss, name))}
        self.consistency = 0.0
        if network.name == "resnet_san":
            self.bounds_m = (network.min_depth, network.max_depth)
            self.consistency = network.consistency if network.sparse else 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """What the log shows beside the loss, unweighted."""
        more = (CONSISTENCY,) if self.consistency else ()
        return (*(logged_name(term) for term in self.weights), *more)

    def __call__(
        self, answers: Sequence[Answer], batch: Batch, consistency: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss and its terms, each the mean over the answers; float32 whatever autocast says.

        Args:
            answers: at least one.
            batch: depth, point (B, 1, H, W) and max_depth (B,).
            consistency: scalar of the network with a sparse branch.
        """
        device = answers[0].depth.device.type
        with torch.autocast(device, enabled=False):
            cases = [_Case(self.settings, answer, batch, self.bounds_m) for answer in answers]
            values = {
                term: torch.stack([RULES[term](case) for case in cases]).mean() for term in self.weights
            }
        weighted = [self.weights[term] * value for term, value in values.items()]
        terms = {logged_name(term): value for term, value in values.items()}
        if self.consistency:
            assert consistency is not None, "the network has a sparse branch"
            weighted.append(self.consistency * consistency)
            terms[CONSISTENCY] = consistency
        return {"loss": torch.stack(weighted).sum(), **terms}

    def of_depth(self, depth: Tensor, batch: Batch) -> Tensor:
        """The loss of a map (B, 1, H, W) over the maximal depth: without what needs heads or features."""
        with torch.autocast(depth.device.type, enabled=False):
            case = _Case(self.settings, Answer(depth), batch, self.bounds_m)
            parts = [weight * RULES[t](case) for t, weight in self.weights.items() if t not in OF_HEADS]
        return torch.stack(parts).sum() if parts else depth.new_zeros(())

    def describe(self) -> str:
        """One line: terms, weights, and where the absolute loss counts."""
        shown = [f"{logged_name(term)} x {weight:g}" for term, weight in self.weights.items()]
        shown += [f"{CONSISTENCY} x {self.consistency:g}"] if self.consistency else []
        pixels = {"gt": "of known true depth", "raw": "of given depth", "raw_and_gt": "of both depths"}
        where = f" (adepth on pixels {pixels[self.settings.absolute_mask]})"
        return f"loss: {', '.join(shown)}{where if 'absolute' in self.weights else ''}"


def logged_name(term: str) -> str:
    """What the log calls a term."""
    return LOGGED.get(term, term)


class _Case:
    """One answer beside the truth, in the forms that terms ask for, each made once.

    Args:
        settings: of the loss.
        answer: of the network.
        batch: as for `DepthLosses`.
        bounds_m: smallest and largest depth of inverse and logarithmic terms.
    """

    def __init__(self, settings: Terms, answer: Answer, batch: Batch, bounds_m: tuple[float, float]) -> None:
        self.settings, self.heads, self.bounds_m = settings, answer.heads, bounds_m
        self.pred, self.gt, self.raw = answer.depth, batch["depth"], batch["point"]
        self.known = self.gt.bool()
        self.max_depth_m = batch["max_depth"].view(-1, 1, 1, 1)

    @cached_property
    def absolute_mask(self) -> Tensor:
        if self.settings.absolute_mask == "gt":
            return self.known
        given = self.raw.bool()
        return given if self.settings.absolute_mask == "raw" else self.known & given

    @cached_property
    def relative(self) -> tuple[Tensor, Tensor]:
        options = {
            name: getattr(self.settings, name)
            for name in ("scales", "operator", "edge_mask", "averaging", "mean_scales")
        }
        return relative_losses(self.pred, self.gt, self.known, **options)

    @cached_property
    def metres(self) -> tuple[Tensor, Tensor]:
        return self.pred * self.max_depth_m, self.gt * self.max_depth_m

    @cached_property
    def bounded(self) -> tuple[Tensor, Tensor]:
        """In metres, within what a logarithm and an inverse stand; 1 where the truth is unknown."""
        pred, gt = (torch.where(self.known, depth, 1.0).clamp(*self.bounds_m) for depth in self.metres)
        return pred, gt

    @cached_property
    def inverse(self) -> tuple[Tensor, Tensor]:
        pred, gt = self.bounded
        return 1.0 / pred, 1.0 / gt

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor]:
        assert self.heads is not None, "the network has a dual head"
        integer, fractional, _ = dual_head_losses(
            *self.heads, self.metres[1], self.known, max_depth=self.bounds_m[1]
        )
        return integer, fractional


RULES: dict[str, Callable[[_Case], Tensor]] = {
    "absolute": lambda case: absolute_loss(
        case.pred, case.gt, case.absolute_mask, averaging=case.settings.averaging
    ),
    "relative": lambda case: case.relative[0],
    "gradient": lambda case: case.relative[1],
    "silog": lambda case: silog_loss(*case.bounded, case.known, eps=_LOG_EPS),
    "ssi": lambda case: ssi_loss(*case.inverse, case.known),
    "ssi_trim": lambda case: trimmed_loss(*case.inverse, case.known),
    "berhu": lambda case: berhu_loss(*case.metres, case.known),
    "l1": lambda case: absolute_loss(*case.metres, case.known),
    "mse": lambda case: square_loss(*case.metres, case.known),
    "abs_rel": lambda case: relative_error_loss(*case.metres, case.known),
    "integer": lambda case: case.parts[0],
    "fractional": lambda case: case.parts[1],
}
OF_HEADS = ("integer", "fractional")


def answers_of(model: ResNetSAN, heads: Heads, size: Sequence[int], max_depth_m: Tensor) -> list[Answer]:
    """What a ResNetSAN says at each of its scales, all at one size.

    Args:
        model: the network.
        heads: of one pass.
        size: (H, W).
        max_depth_m: of each sample, (B,).
    """
    per_sample = max_depth_m.view(-1, 1, 1, 1)
    full = {
        name: [F.interpolate(values.float(), tuple(size), mode="nearest") for values in maps]
        for name, maps in heads.items()
    }
    parts = [
        (full["integer"][scale], full["fractional"][scale]) if model.dual_head else None
        for scale in range(SCALES)
    ]
    return [Answer(model.depth(full, scale) / per_sample, parts[scale]) for scale in range(SCALES)]
