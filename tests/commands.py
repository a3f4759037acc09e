"""Command lines in this process, and what they leave in a run folder."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from omma.cli import _run
from omma.runs.metrics import read_metrics


def omma(*words: object, debug: bool = True) -> int:
    """Run a command line; an error of the program is raised, as `--debug` does."""
    return _run([str(word) for word in words], debug=debug)


def user_omma(*words: object) -> int:
    """Run a command line as users do: an error is a line on stderr and an exit code."""
    return omma(*words, debug=False)


def weights_of(run: Path, which: str = "final") -> dict[str, Tensor]:
    """The weights of a run's checkpoint."""
    return load_file(run / "checkpoints" / which / "model.safetensors")


def rows_of(run: Path, phase: str) -> list[dict[str, float]]:
    """The rows of a run's metrics of one phase."""
    return [row for row in read_metrics(run / "metrics.csv") if row["phase"] == phase]
