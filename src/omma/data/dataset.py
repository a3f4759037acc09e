"""The base of every data set: a sample is a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

Sample = dict[str, Any]
Collate = Callable[[Sequence[Sample]], dict[str, Any]]


class Samples(Dataset[Sample]):
    """A map-style data set with a random generator for each (seed, epoch, index).

    A subclass gives `load`, `__len__`, `name` and `files`; it must pickle (worker processes may be spawned).
    """

    seed: int = 0

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Read and augment one sample; all randomness comes from `rng`."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The sample's token, for messages and per-sample tables; reads no image."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """Every file that the samples are made of, for the fingerprint."""
        raise NotImplementedError

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """`dataset[index]` or, from the engine's sampler, `dataset[epoch, index]`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return self.load(index, np.random.default_rng([self.seed, epoch, index]))


class Subset(Samples):
    """Some samples of another data set, with the same seed."""

    def __init__(self, base: Samples, indices: Sequence[int]) -> None:
        self.base, self.indices, self.seed = base, list(indices), base.seed

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples."""
        return self.base.load(self.indices[index], rng)

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.base.name(self.indices[index])

    def files(self) -> list[Path]:
        """See Samples."""
        return self.base.files()
