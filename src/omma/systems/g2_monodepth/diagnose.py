"""`omma diagnose` of a G2-MonoDepth run: its predictions against truth, given depths and simple fills."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.diagnosis import NUM_WORST, Diagnosis, Options, choose, visit
from omma.engine.rng import seed_step
from omma.engine.task import Batch, StepInfo
from omma.errors import DataError
from omma.systems.g2_monodepth.baselines import nearest_fill
from omma.systems.g2_monodepth.losses import logged_name
from omma.systems.g2_monodepth.prediction_checks import BARS, RULES, Seen
from omma.systems.g2_monodepth.task import G2Task
from omma.viz.curves import save_figure
from omma.viz.image import Image, save_png
from omma.viz.several import Bars, plot_groups

_UNSAFE = re.compile(r"[^\w.-]")


def run(task: G2Task, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """Score some samples, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """
    look = _Look(task, data, collate, options)
    with torch.no_grad():
        look.count()
        look.judge()
        look.draw()
    return look.result


class _Look:
    """One pass over the samples; see `run`."""

    def __init__(self, task: G2Task, data: Samples, collate: Collate, options: Options) -> None:
        self.task, self.data, self.collate, self.options = task, data, collate, options
        self.chosen = choose(len(data), options.num_samples, options.seed)
        alphas = getattr(task.model, "alphas", list)  # networks other than the UNet have no such factors
        weights = {logged_name(term): weight for term, weight in task.losses.weights.items()}
        self.seen = Seen(alphas=alphas(), weights=weights)
        self.readable: list[int] = []
        self.result = Diagnosis()

    def count(self) -> None:
        """Sums over the samples; one that cannot be read is a finding, and the others still count."""
        self.result.data += visit(self.chosen, self._add, self.options)

    def _add(self, index: int) -> None:
        batch = self._batch(index)
        true = _metres(batch, "depth")
        if not true.any():
            raise DataError(
                f"sample {self.data.name(index)} has no known depth", "choose a split with depths"
            )
        self.seen.add_truth(true, float(batch["max_depth"][0]))
        self.readable.append(index)
        if self.options.probe_only:
            return
        seed_step(0, index, 0, 0)
        pred = self.task(batch)[0, 0].float().cpu().numpy() * float(batch["max_depth"][0])
        given = _metres(batch, "point")
        fill = nearest_fill(given) if given.any() else None
        self.seen.add_prediction(self.data.name(index), batch["pattern"][0], (pred, true, given), fill)
        for name, value in self.task.training_step(batch, StepInfo(0, 0, 0.0)).items():
            self.seen.terms[name].append(float(value))

    def _batch(self, index: int) -> Batch:
        batch: Batch = to_device(self.collate([self.data[index]]), self.task.device)
        return batch

    def judge(self) -> None:
        """Findings and the sections of numbers."""
        found = [rule(self.seen, self.options.run) for rule in RULES]
        self.result.model += [finding for finding in found if finding is not None]
        total = len(self.data)
        head = f"samples: {len(self.readable)} readable of {len(self.chosen)} chosen, {total} in the split"
        self.result.sections = {
            "config sanity": [head],
            "GT distribution": self.seen.truth_lines(),
            "prediction distribution": self.seen.found_lines(),
            "metrics": self.seen.metric_lines(),
            "blocks": self.seen.alpha_lines(),
        }

    def draw(self) -> None:
        """Bars of the errors by pattern, pictures of samples, and of the worst ones."""
        scores = self.seen.scores
        if self.options.probe_only or not scores:
            return
        table = self.seen.by_pattern()
        names = {"network": "rmse", "nearest fill": "fill", "one constant": "constant"}
        bars = [
            Bars(name, [row[key] for row in table.values()], None, at)
            for at, (name, key) in enumerate(names.items())
        ]
        file = self.options.out / BARS
        save_figure(
            plot_groups(list(table), bars, title="RMSE in metres by given depth", size=(7.2, 3.4)), file
        )
        self.result.figures.append(file)
        drawn = self.readable[: self.options.vis_num]
        for index in drawn:
            self._save(f"{self._stem(index)}.png", self._draw(index))
        ranked = sorted(zip(scores, self.readable, strict=True), key=lambda pair: -pair[0].rmse)
        for _, index in ranked[: NUM_WORST if drawn else 0]:
            self._save(f"worst_{self._stem(index)}.png", self._draw(index))

    def _draw(self, index: int) -> Image:
        seed_step(0, index, 0, 0)
        return self.task.predict(self._batch(index)).draw()

    def _stem(self, index: int) -> str:
        """`000012_<token>`, legal as a file name everywhere."""
        return f"{index:06d}_{_UNSAFE.sub('-', self.data.name(index))}"

    def _save(self, name: str, picture: Image) -> None:
        save_png(self.options.out / name, picture)
        self.result.figures.append(self.options.out / name)


def _metres(batch: Batch, key: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = batch[key][0, 0].float().cpu().numpy()
    return values * float(batch["max_depth"][0])
