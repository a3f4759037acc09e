"""A grid of overrides: a comma list is an axis, a list value needs brackets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from omma.errors import UsageError


def expand_grid(items: Sequence[str]) -> list[list[str]]:
    """Every combination of `key=a,b` words; `key=[a, b]` and `key=a` stay as they are.

    >>> expand_grid(["optim.lr=1e-3,1e-4", "seed=0"])
    [['optim.lr=1e-3', 'seed=0'], ['optim.lr=1e-4', 'seed=0']]
    """
    axes = []
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"{item}: expected key.path=value or key.path=value1,value2")
        axes.append([f"{key}={value}" for value in _split(text)])
    return [list(point) for point in itertools.product(*axes)]


def axes_of(items: Sequence[str]) -> list[str]:
    """The keys that have several values."""
    return [item.partition("=")[0] for item in items if len(_split(item.partition("=")[2])) > 1]


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and braces."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]
