"""`from src.src_main import Trainer`: trains a Config by omma, which finds devices and processes itself."""

import sys
from dataclasses import dataclass

from omma.compat import run_words


@dataclass
class Trainer:
    """The original's trainer.

    Args:
        rank: 0, as processes are started by omma.
        world_size: processes in all.
        config: a Config.
    """

    rank: int
    world_size: int
    config: object

    def train(self) -> None:
        """Train; the first process does it for all, and a training that fails ends it with its exit code."""
        if self.rank == 0:
            words = [f"train.devices={self.world_size}"]
            code = run_words("g2_monodepth", "train.py", words, self.config)
            if code:
                sys.exit(code)
