"""omma: train, check, evaluate, compare and export spatial-perception systems behind one command.

>>> import omma
>>> run = omma.train("lss/demo", **{"data.root": "data/demo", "optim.lr": 1e-4})  # doctest: +SKIP
>>> omma.evaluate(run).metrics["iou"]  # doctest: +SKIP
>>> omma.load(run).predict(0).draw()  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omma.version import __version__

__all__ = ["__version__", "evaluate", "load", "predict", "train"]

if TYPE_CHECKING:
    from omma.commands.api import evaluate, load, predict, train


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used, so that `omma --help` stays light."""
    if name in __all__:
        from omma.commands import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
