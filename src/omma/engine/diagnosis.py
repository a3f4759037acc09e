"""The part of `omma diagnose` that looks at labels and predictions, for systems whose labels are class maps.

A system gives a `MapReader` to `diagnose_maps`; one of another kind writes its own function that returns a
`Diagnosis`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.distributions import MapCounts, Truth, shares
from omma.engine.map_checks import BARS, LABEL_RULES, MODEL_RULES, apply, nothing_ignored
from omma.engine.rng import seed_step
from omma.engine.task import Batch, Prediction, Task
from omma.errors import DataError, Finding, OmmaError
from omma.runs.console import RunLog
from omma.viz.curves import save_figure
from omma.viz.image import Image, save_png
from omma.viz.several import Bars, plot_groups

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


@dataclass(frozen=True)
class MapReader:
    """How a system's batches and predictions are read as maps; batches hold one sample.

    Args:
        names: of the C classes.
        truth: the label in a batch; None where it has none.
        logits: (C, X, Y) of a batch.
        pictures: of a prediction: end of the file name -> picture.
        about: lines of the section "config sanity": what -> value.
        has_ignored: whether every label should have ignored cells.
    """

    names: Sequence[str]
    truth: Callable[[Batch], Truth | None]
    logits: Callable[[Batch], NDArray[np.float32]]
    pictures: Callable[[Prediction], Mapping[str, Image]]
    about: Mapping[str, Any]
    has_ignored: bool = False


def choose(number: int, wanted: int, seed: int) -> list[int]:
    """So many indices below `number`, drawn without repetition, in rising order."""
    drawn = np.random.default_rng(seed).choice(number, min(wanted, number), replace=False)
    return sorted(drawn.tolist())


def visit(chosen: Sequence[int], add: Callable[[int], None], options: Options) -> list[Finding]:
    """Look at samples one by one; those that cannot be read are a finding, and the others still count.

    Args:
        chosen: their indices.
        add: looks at one.
        options: for the progress bar, and the run's name.

    Returns:
        one finding or none.
    """
    errors: list[OmmaError] = []
    with options.console.progress(len(chosen), label="diagnose") as bar:
        for done, index in enumerate(chosen, 1):
            try:
                add(index)
            except OmmaError as error:
                errors.append(error)
            bar.update(done)
    if not errors:
        return []
    again = f"then `omma doctor {options.run}`"
    title = f"{len(errors)} of {len(chosen)} samples cannot be read"
    fix = f"{errors[0].hint}; {again}" if errors[0].hint else f"mend or leave out these files; {again}"
    return [Finding("error", title, f"the first: {errors[0].message}", fix)]


def diagnose_maps(
    task: Task, data: Samples, collate: Collate, options: Options, *, reader: MapReader
) -> Diagnosis:
    """Count labels and predictions over some samples, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split.
        collate: joins samples into a batch.
        options: how many samples and where to.
        reader: the system's view of them.
    """
    look = _Look(task, data, collate, options, reader)
    with torch.no_grad():
        look.count()
        look.judge()
        look.draw()
    return look.result


class _Look:
    """One pass over the samples; see `diagnose_maps`."""

    def __init__(
        self, task: Task, data: Samples, collate: Collate, options: Options, reader: MapReader
    ) -> None:
        self.task, self.data, self.collate, self.options, self.reader = task, data, collate, options, reader
        self.chosen = choose(len(data), options.num_samples, options.seed)
        self.counts = MapCounts(reader.names)
        self.readable: list[int] = []
        self.channels = {"classes of the labels": 0, "classes of the network": 0}
        self.result = Diagnosis()

    def count(self) -> None:
        """Sums over the samples; one that cannot be read is a finding, and the others still count."""
        self.result.data += visit(self.chosen, self._add, self.options)

    def _add(self, index: int) -> None:
        batch = self._batch(index)
        truth = self.reader.truth(batch)
        if truth is None:
            raise DataError(f"sample {self.data.name(index)} has no label", "choose a split with labels")
        self.counts.add_truth(truth)
        self.channels["classes of the labels"] = len(truth.occupied)
        self.readable.append(index)
        if self.options.probe_only:
            return
        seed_step(0, index, 0, 0)
        logits = self.reader.logits(batch)
        self.channels["classes of the network"] = len(logits)
        if logits.shape != truth.occupied.shape:
            raise DataError(
                f"prediction {logits.shape} and label {truth.occupied.shape} have different shapes",
                f"compare classes and grid: `omma show {self.options.run}`",
            )
        self.counts.add_prediction(self.data.name(index), logits, truth)

    def _batch(self, index: int) -> Batch:
        batch: Batch = to_device(self.collate([self.data[index]]), self.task.device)
        return batch

    def judge(self) -> None:
        """Findings and the sections of numbers."""
        counts, run = self.counts, self.options.run
        rules = (*LABEL_RULES, nothing_ignored) if self.reader.has_ignored else LABEL_RULES
        self.result.data += apply(rules, counts, run)
        self.result.model += apply(MODEL_RULES, counts, run)
        self.result.sections = {
            "config sanity": self._config_lines(),
            "GT distribution": _truth_lines(counts),
            "prediction distribution": _found_lines(counts),
            "metrics": _metric_lines(counts),
        }

    def _config_lines(self) -> list[str]:
        counts, total = self.counts, len(self.data)
        about = {
            "samples": f"{len(self.readable)} readable of {len(self.chosen)} chosen, {total} in the split",
            "classes of the recipe": len(counts.names),
            **{what: number or "not looked at" for what, number in self.channels.items()},
            **self.reader.about,
            "threshold": "probability 0.5 (logit 0)",
        }
        return [f"{what}: {value}" for what, value in about.items()]

    def draw(self) -> None:
        """Bars of the distributions, pictures of samples, and of the worst ones."""
        counts = self.counts
        if self.options.probe_only or not counts.predicted:
            return
        maps = {"labels": counts.truth_map, "predictions": counts.found_map}
        bars = [Bars(name, shares(cells).tolist(), None, at) for at, (name, cells) in enumerate(maps.items())]
        file = self.options.out / BARS
        title = f"share of visible cells by label, {counts.predicted} samples"
        save_figure(plot_groups(counts.labels, bars, title=title, size=(7.2, 3.4)), file)
        self.result.figures.append(file)
        drawn = self.readable[: self.options.vis_num]
        for index in drawn:
            self._draw_sample(index)
        ranked = sorted(self.readable, key=lambda index: counts.sample_iou[self.data.name(index)])
        for index in ranked[: NUM_WORST if drawn else 0]:
            self._save(f"worst_{self._stem(index)}.png", self._predict(index).draw())

    def _draw_sample(self, index: int) -> None:
        for end, picture in self.reader.pictures(self._predict(index)).items():
            self._save(f"{self._stem(index)}{end}.png", picture)

    def _predict(self, index: int) -> Prediction:
        seed_step(0, index, 0, 0)
        return self.task.predict(self._batch(index))

    def _stem(self, index: int) -> str:
        """`000012_<token>`, legal as a file name everywhere."""
        return f"{index:06d}_{_UNSAFE.sub('-', self.data.name(index))}"

    def _save(self, name: str, picture: Image) -> None:
        save_png(self.options.out / name, picture)
        self.result.figures.append(self.options.out / name)


def _table(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines with one row a label."""
    width = max(map(len, labels))
    head = " " * width + "".join(f"  {name:>12}" for name in columns)
    rows = [
        f"{label:<{width}}" + "".join(f"  {column[row]:>12}" for column in columns.values())
        for row, label in enumerate(labels)
    ]
    return [head, *rows]


def _by_class(cells: NDArray[np.int64], visible: int) -> dict[str, list[str]]:
    return {"cells": [str(n) for n in cells], "share": _percent(shares(cells, visible))}


def _percent(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.3%}" for value in values]


def _truth_lines(counts: MapCounts) -> list[str]:
    return [
        f"cells that count: {counts.visible} of {counts.cells}; ignored {counts.ignored_share:.2%}",
        f"cells with several classes: {counts.several}",
        f"cells with a value out of range: {counts.foreign}",
        f"cells that count though the camera cannot see them: {counts.unseen}",
        *_table(
            counts.names,
            {
                "cells": [str(n) for n in counts.truth],
                "share": _percent(shares(counts.truth, counts.visible)),
            },
        ),
        "as a label map (first class that is set):",
        *_table(counts.labels, {"share": _percent(shares(counts.truth_map))}),
    ]


def _found_lines(counts: MapCounts) -> list[str]:
    if not counts.predicted:
        return ["the network was not run"]
    return [
        f"outputs between {counts.lowest:.4g} and {counts.highest:.4g}; not finite: {counts.not_finite}",
        *_table(
            counts.names,
            {
                "cells": [str(n) for n in counts.found],
                "share": _percent(shares(counts.found, counts.visible)),
            },
        ),
        "as a label map (strongest class above the threshold):",
        *_table(counts.labels, {"share": _percent(shares(counts.found_map))}),
    ]


def _metric_lines(counts: MapCounts) -> list[str]:
    if not counts.predicted:
        return ["the network was not run"]
    columns = {
        "IoU": [f"{value:.4f}" for value in counts.class_iou()],
        "GT cells": [str(n) for n in counts.truth],
        "found cells": [str(n) for n in counts.found],
    }
    turned = [f"mIoU of predictions {name}: {counts.mean_iou(name):.4f}" for name in counts.turned]
    return [
        *_table(counts.names, columns),
        f"overall accuracy of the label map: {counts.accuracy:.4f}",
        f"mIoU over the {counts.present.sum()} classes with ground truth: {counts.mean_iou():.4f}",
        *turned[1:],
    ]
