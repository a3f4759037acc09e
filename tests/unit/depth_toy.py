"""Small scenes for learning tests: tilted boards in front of a slanted wall, depths normalised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from omma.data.dataset import Sample, Samples
from omma.systems.g2_monodepth.degrade import make_raw, only_pattern

SIDE = 64
_SIDES_PX = (10, 31)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (64, 64, 3) uint8 and its depth (64, 64) float32 of 0.02 to 1, all known.

    A wall a + b (y - 0.5) + c (x - 0.5) and 3 to 6 rectangles in front of it, the nearest on top, each of one
    colour with a mild shading from top to bottom, and noise.
    """
    rng = np.random.default_rng([SIDE, seed])
    y, x = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    depth = rng.uniform(0.4, 0.8) + rng.uniform(-0.3, 0.3) * (y - 0.5) + rng.uniform(-0.2, 0.2) * (x - 0.5)
    colour = rng.uniform(0, 1, 3) * (0.85 + 0.3 * y[..., None])
    for _ in range(int(rng.integers(3, 7))):
        height, width = (int(side) for side in rng.integers(_SIDES_PX[0], _SIDES_PX[1] + 1, 2))
        top, left = (int(rng.integers(0, SIDE - side + 1)) for side in (height, width))
        place = np.s_[top : top + height, left : left + width]
        across = np.linspace(-0.5, 0.5, height)[:, None]
        board = np.broadcast_to(rng.uniform(0.1, 0.6) + rng.uniform(-0.1, 0.1) * across, (height, width))
        shaded = np.broadcast_to((1 + 0.3 * across)[..., None] * rng.uniform(0, 1, 3), (height, width, 3))
        front = board < depth[place]
        depth[place] = np.where(front, board, depth[place])
        colour[place] = np.where(front[..., None], shaded, colour[place])
    colour = np.clip(colour + rng.normal(0, 0.02, colour.shape), 0, 1)
    return np.rint(colour * 255).astype(np.uint8), np.clip(depth, 0.02, 1).astype(np.float32)


class ToyScenes(Samples):
    """Scenes with input depth of a sparsity pattern, without artefacts, crops or changes of colour.

    Args:
        seeds: of the scenes, one a sample.
        pattern: which depths are given.
        fixed: the same ones in every epoch, for validation.
    """

    def __init__(self, seeds: range, pattern: str, *, fixed: bool = False) -> None:
        self.seeds, self.pattern, self.fixed = seeds, pattern, fixed
        self.scenes = [scene(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return f"scene-{self.seeds[index]:04d}"

    def files(self) -> list[Path]:
        return []

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        colour, depth = self.scenes[index]
        if self.fixed:
            rng = np.random.default_rng([7, index])
        point = torch.from_numpy(make_raw(depth, colour, only_pattern(self.pattern), rng))[None]
        return {
            "token": self.name(index),
            "dataset": "toy",
            "pattern": self.pattern,
            "rgb": torch.from_numpy(colour.transpose(2, 0, 1).copy()),
            "depth": torch.from_numpy(depth)[None],
            "point": point,
            "hole_point": (point > 0).float(),
            "max_depth": torch.tensor(1.0),
            "intrinsics": torch.full((3, 3), float("nan")),
        }
