"""`omma diagnose` for systems whose labels are class maps: a system says how they are read (`MapReader`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.dataset import Collate, Samples
from omma.engine.diagnosis import Diagnosis, Look, Options
from omma.engine.distributions import MapCounts, Truth, shares
from omma.engine.map_checks import BARS, LABEL_RULES, MODEL_RULES, apply, nothing_ignored
from omma.engine.rng import seed_step
from omma.engine.task import Batch, Prediction, Task
from omma.errors import DataError
from omma.viz.image import Image
from omma.viz.several import Bars, plot_groups


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
    return _MapLook(task, data, collate, options, reader).run()


class _MapLook(Look):
    """Counts of cells; see `diagnose_maps`."""

    def __init__(
        self, task: Task, data: Samples, collate: Collate, options: Options, reader: MapReader
    ) -> None:
        super().__init__(task, data, collate, options)
        self.reader = reader
        self.counts = MapCounts(reader.names)
        self.channels = {"classes of the labels": 0, "classes of the network": 0}

    def add(self, index: int) -> None:
        batch = self.batch(index)
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

    def judge(self) -> None:
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
        about = {
            "samples": self.samples,
            "classes of the recipe": len(self.counts.names),
            **{what: number or "not looked at" for what, number in self.channels.items()},
            **self.reader.about,
            "threshold": "probability 0.5 (logit 0)",
        }
        return [f"{what}: {value}" for what, value in about.items()]

    def draw_sums(self) -> bool:
        counts = self.counts
        if not counts.predicted:
            return False
        maps = {"labels": counts.truth_map, "predictions": counts.found_map}
        bars = [Bars(name, shares(cells).tolist(), None, at) for at, (name, cells) in enumerate(maps.items())]
        title = f"share of visible cells by label, {counts.predicted} samples"
        self.figure(BARS, plot_groups(counts.labels, bars, title=title, size=(7.2, 3.4)))
        return True

    def worst_first(self) -> Sequence[int]:
        return sorted(self.readable, key=lambda index: self.counts.sample_iou[self.data.name(index)])

    def pictures(self, index: int) -> Mapping[str, Image]:
        return self.reader.pictures(self.predict(index))


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
