"""train_simbev.py of the original, by omma (rows R4 to R32 of the spec)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from omma.errors import UsageError
from omma.systems.lss.aliases import ALIASES
from omma.systems.originals import Command, Program, Typed, training_flags, with_its_checkpoints

_FOLDER = "./runs/simbev"


def _train(typed: Typed) -> Iterator[Command]:
    """The recipe's defaults are the script's; its files are written under their old names too."""
    known = "OMMA_DATA_LSS" in os.environ or any(word.startswith("data.root=") for word in typed.settings)
    if "--dataroot" not in typed.flags and not known:
        raise UsageError("--dataroot is missing", "give the SimBEV folder: --dataroot PATH")
    folder = [] if "--logdir" in typed.flags else ["--logdir", _FOLDER]
    yield with_its_checkpoints(["train", "lss/base", *folder, "save.reference=true", *typed.given()])


PROGRAMS = {
    "train_simbev.py": Program(
        f"Train Lift-Splat-Shoot on SimBEV; model_*.pt and TensorBoard files go to --logdir ({_FOLDER}).",
        _train,
        training_flags(ALIASES),
    )
}
