"""What `omma diagnose` looks at in a run, for every system: samples, their sums, judgements and pictures.

A system gives its own `Look`; one whose labels are class maps takes `omma.engine.map_diagnosis`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.rng import seed_step
from omma.engine.task import Batch, Prediction, Task
from omma.errors import Finding, OmmaError
from omma.runs.console import RunLog
from omma.viz.curves import save_figure
from omma.viz.image import Image, save_png

NUM_WORST = 4
_UNSAFE = re.compile(r"[^\w.-]")


@dataclass(frozen=True)
class Options:
    """What a diagnosis looks at and where it writes.

    Args:
        run: what commands call the run.
        out: folder of the pictures.
        num_samples: samples to look at, drawn from the split.
        vis_num: samples to draw pictures of.
        seed: of the draw.
        probe_only: look at the labels, do not run the network.
        console: for a progress bar.
    """

    run: str
    out: Path
    num_samples: int = 50
    vis_num: int = 8
    seed: int = 42
    probe_only: bool = False
    console: RunLog = field(default_factory=lambda: RunLog(None, quiet=True))


@dataclass
class Diagnosis:
    """What a system found.

    Args:
        sections: title -> lines of summary.txt.
        data: findings about the data, cause before effect.
        model: findings about the predictions, cause before effect.
        figures: pictures written.
    """

    sections: dict[str, list[str]] = field(default_factory=dict)
    data: list[Finding] = field(default_factory=list)
    model: list[Finding] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)


def choose(number: int, wanted: int, seed: int) -> list[int]:
    """So many indices below `number`, drawn without repetition, in rising order."""
    drawn = np.random.default_rng(seed).choice(number, min(wanted, number), replace=False)
    return sorted(drawn.tolist())


class Look(ABC):
    """One pass over some samples of a split.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """

    task: Any  # each system's own
    data: Any

    def __init__(self, task: Task, data: Samples, collate: Collate, options: Options) -> None:
        self.task, self.data, self.collate, self.options = task, data, collate, options
        self.chosen = choose(len(data), options.num_samples, options.seed)
        self.readable: list[int] = []
        self.result = Diagnosis()

    def run(self) -> Diagnosis:
        """Add up the samples, judge the sums, draw pictures."""
        with torch.no_grad():
            self.result.data += self._visit()
            self.judge()
            if not self.options.probe_only:
                self._draw()
        return self.result

    @abstractmethod
    def add(self, index: int) -> None:
        """Add one sample to the sums and, once it is read, to `readable`.

        Raises:
            OmmaError: it cannot be read; that is a finding, and the others still count.
        """

    @abstractmethod
    def judge(self) -> None:
        """Findings, and the sections of numbers."""

    @abstractmethod
    def draw_sums(self) -> bool:
        """Figures of all samples; False where the network has answered for none, and none is drawn."""

    @abstractmethod
    def worst_first(self) -> Sequence[int]:
        """Readable samples by how well the network does."""

    def pictures(self, index: int) -> Mapping[str, Image]:
        """Of one sample: end of the file name -> picture."""
        return {"": self.predict(index).draw()}

    def predict(self, index: int) -> Prediction:
        """The network's answer to one sample, the same each time."""
        seed_step(0, index, 0, 0)
        prediction: Prediction = self.task.predict(self.batch(index))
        return prediction

    def batch(self, *indices: int) -> Batch:
        """These samples, on the task's device."""
        batch: Batch = to_device(self.collate([self.data[index] for index in indices]), self.task.device)
        return batch

    @property
    def samples(self) -> str:
        """How many samples were read, of how many."""
        return f"{len(self.readable)} readable of {len(self.chosen)} chosen, {len(self.data)} in the split"

    def figure(self, name: str, figure: Figure) -> None:
        """Write a figure of all samples."""
        save_figure(figure, self.options.out / name)
        self.result.figures.append(self.options.out / name)

    def _visit(self) -> list[Finding]:
        """Look at the samples one by one; one finding for all that cannot be read."""
        errors: list[OmmaError] = []
        with self.options.console.progress(len(self.chosen), label="diagnose") as bar:
            for done, index in enumerate(self.chosen, 1):
                try:
                    self.add(index)
                except OmmaError as error:
                    errors.append(error)
                bar.update(done)
        if not errors:
            return []
        again = f"then `omma doctor {self.options.run}`"
        title = f"{len(errors)} of {len(self.chosen)} samples cannot be read"
        fix = f"{errors[0].hint}; {again}" if errors[0].hint else f"mend or leave out these files; {again}"
        return [Finding("error", title, f"the first: {errors[0].message}", fix)]

    def _draw(self) -> None:
        """Figures of all samples, pictures of the first ones and of the worst ones."""
        if not self.draw_sums():
            return
        drawn = self.readable[: self.options.vis_num]
        for index in drawn:
            for end, picture in self.pictures(index).items():
                self._save(f"{self._stem(index)}{end}.png", picture)
        for index in self.worst_first()[: NUM_WORST if drawn else 0]:
            self._save(f"worst_{self._stem(index)}.png", self.predict(index).draw())

    def _stem(self, index: int) -> str:
        """`000012_<token>`, legal as a file name everywhere."""
        return f"{index:06d}_{_UNSAFE.sub('-', self.data.name(index))}"

    def _save(self, name: str, picture: Image) -> None:
        save_png(self.options.out / name, picture)
        self.result.figures.append(self.options.out / name)
