"""omma: train, check, evaluate, compare and export spatial-perception systems behind one command.

The commands in Python, each imported when it is first used::

    import omma

    run = omma.train("lss/demo", **{"data.root": "data/demo", "optim.lr": 1e-4})
    omma.evaluate(run).metrics["iou"]
    omma.load(run).predict(0).draw()
    omma.predict([run], "pictures", indices="0-3")
    omma.compare([run, "another-run"], "comparison")

    task = omma.build("lss/demo")    # plain PyTorch: an nn.Module with a training_step
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omma.version import __version__

__all__ = ["__version__", "build", "compare", "evaluate", "load", "predict", "train"]

if TYPE_CHECKING:
    from omma.commands.api import build, compare, evaluate, load, predict, train


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used, so that `omma --help` stays light."""
    if name in __all__:
        from omma.commands import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of the interface too, so that an editor completes them before they are imported."""
    return sorted({*globals(), *__all__})
