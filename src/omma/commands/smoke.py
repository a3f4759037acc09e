"""A trial run: a few steps of everything, and a warm-up that fits into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from omma.config.base import Period, Share
from omma.systems.recipes import Recipe

_WARMUP_SHARE = 20  # a trial warms up for one step in so many


def smoke_overrides(steps: int | None) -> list[str]:
    """Settings of a trial of so many steps; they stand before the user's own."""
    if steps is None:
        return []
    return [
        f"train.length={steps}", f"validate.every={max(1, steps // 2)}", "validate.limit=8",
        f"save.every={max(1, steps // 2)}", "log.every=1",
    ]  # fmt: skip


def fit_warmup(recipe: Recipe, smoke: int | None, overrides: Sequence[str]) -> tuple[Recipe, str | None]:
    """A recipe whose trial reaches its learning rate.

    Args:
        recipe: what is trained.
        smoke: steps of a trial; None: not one.
        overrides: the user's words; a warm-up among them is kept.

    Returns:
        the recipe, and a line for the user if its warm-up was shortened.
    """
    config = recipe.config
    warmup, length = config.schedule.warmup, config.train.length
    if isinstance(warmup, Share) or warmup.unit != length.unit or warmup.count == 0:
        return recipe, None
    asked_for = any(word.startswith("schedule.warmup=") for word in overrides)
    fitting = Period(max(1, length.count // _WARMUP_SHARE), length.unit)
    if smoke is not None and not asked_for and fitting.count < warmup.count:
        schedule = config.schedule.model_copy(update={"warmup": fitting})
        line = f"trial: the warm-up is {fitting} of {length} steps instead of {warmup}"
        return replace(recipe, config=config.model_copy(update={"schedule": schedule})), line
    return recipe, None
