"""`omma diagnose` of a G2-MonoDepth run: its predictions against truth, given depths and simple fills."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.data.dataset import Collate, Samples
from omma.engine.diagnosis import Diagnosis, Look, Options
from omma.engine.rng import seed_step
from omma.engine.task import Batch, StepInfo
from omma.errors import DataError
from omma.systems.g2_monodepth.baselines import nearest_fill
from omma.systems.g2_monodepth.losses import logged_name
from omma.systems.g2_monodepth.prediction_checks import BARS, RULES, Seen
from omma.systems.g2_monodepth.task import G2Task
from omma.viz.several import Bars, plot_groups


def run(task: G2Task, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """Score some samples, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """
    return _Look(task, data, collate, options).run()


class _Look(Look):
    """Errors of the depths; see `run`."""

    def __init__(self, task: G2Task, data: Samples, collate: Collate, options: Options) -> None:
        super().__init__(task, data, collate, options)
        alphas = getattr(task.model, "alphas", list)  # networks other than the UNet have no such factors
        weights = {logged_name(term): weight for term, weight in task.losses.weights.items()}
        self.seen = Seen(alphas=alphas(), weights=weights)

    def add(self, index: int) -> None:
        batch = self.batch(index)
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

    def judge(self) -> None:
        found = [rule(self.seen, self.options.run) for rule in RULES]
        self.result.model += [finding for finding in found if finding is not None]
        self.result.sections = {
            "config sanity": [f"samples: {self.samples}"],
            "GT distribution": self.seen.truth_lines(),
            "prediction distribution": self.seen.found_lines(),
            "metrics": self.seen.metric_lines(),
            "blocks": self.seen.alpha_lines(),
        }

    def draw_sums(self) -> bool:
        if not self.seen.scores:
            return False
        table = self.seen.by_pattern()
        names = {"network": "rmse", "nearest fill": "fill", "one constant": "constant"}
        bars = [
            Bars(name, [row[key] for row in table.values()], None, at)
            for at, (name, key) in enumerate(names.items())
        ]
        self.figure(
            BARS, plot_groups(list(table), bars, title="RMSE in metres by given depth", size=(7.2, 3.4))
        )
        return True

    def worst_first(self) -> Sequence[int]:
        scored = zip(self.seen.scores, self.readable, strict=True)
        return [index for _, index in sorted(scored, key=lambda pair: -pair[0].rmse)]


def _metres(batch: Batch, key: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = batch[key][0, 0].float().cpu().numpy()
    return values * float(batch["max_depth"][0])
