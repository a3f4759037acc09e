"""The loss between tokens of neighbouring views, as a recipe describes it (spec section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omma.core.overlap_losses import (
    Matches,
    dense_contrast,
    token_matcher,
    vicreg,
    vicreg_local,
)
from omma.core.panorama import View
from omma.systems.panollava.config import OverlapSection, PanoConfig
from omma.systems.panollava.views import view_layout

_VICREG = ("invariance", "variance", "covariance")


class OverlapLoss(nn.Module):
    """Weighted terms of tokens (B, V, S, D).

    Args:
        settings: of the recipe.
        weight: factor of all terms.
        views: of a panorama; the whole one (None) takes no part.
        grid: (H, W) of a view's tokens.
        overlap: of neighbouring views.

    Raises:
        ConfigError: neighbouring views share no place.
    """

    def __init__(
        self,
        settings: OverlapSection,
        weight: float,
        *,
        views: Sequence[View | None],
        grid: tuple[int, int],
        overlap: float,
    ) -> None:
        super().__init__()
        self.settings, self.weight = settings, weight
        self.ring = [index for index, view in enumerate(views) if view is not None]
        self.match = token_matcher(views, grid, pairing=settings.pairing, overlap=overlap)
        self.names: tuple[str, ...] = ("contrast",) if settings.name == "densecl" else _VICREG

    @classmethod
    def of(cls, config: PanoConfig, grid: tuple[int, int]) -> OverlapLoss | None:
        """The loss of a recipe; None where its weight is 0."""
        settings = config.system.overlap
        weight = settings.weight
        if weight is None:
            weight = 1.0 if config.system.stage == "vision" else 0.0
        if weight == 0:
            return None
        views = config.data.views
        return cls(settings, weight, views=view_layout(views), grid=grid, overlap=views.overlap)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """The terms, whose sum is the loss; float32 whatever autocast says."""
        with torch.autocast(tokens.device.type, enabled=False):
            matches: Matches = self.match(tokens.float())
            if self.settings.name == "densecl":
                return {"contrast": self.weight * dense_contrast(matches, self.settings.temperature)}
            terms = vicreg(matches) if self.settings.name == "vicreg" else vicreg_local(matches)
        return {
            name: self.weight * factor * torch.as_tensor(term)
            for name, factor, term in zip(_VICREG, self.settings.factors(), terms, strict=True)
        }

    def describe(self) -> str:
        """One line about the loss."""
        how = f"{len(self.match.joined)} pairs of views by {self.settings.pairing}"
        return f"overlap loss {self.settings.name} x {self.weight:g}, {how}"
