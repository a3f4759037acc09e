"""Scores at a fixed list of input depths, beside those of fillings that need no network (spec 7)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omma.core.depth_meter import DepthMeter, DistanceMeter, PaperMeter
from omma.core.depth_metrics import MORE, SEVEN, fit_scale_and_shift, scale_to_median, scored_depth
from omma.core.meter import Meter
from omma.data.dataset import Collate, Sample, Samples
from omma.data.loader import Loader, to_device
from omma.engine.evaluate import autocast
from omma.errors import DataError
from omma.systems.g2_monodepth.baselines import BASELINES
from omma.systems.g2_monodepth.config import G2Config, ScoringSection
from omma.systems.g2_monodepth.patterns import ARTEFACTS, MEASURED, parse_pattern
from omma.systems.g2_monodepth.samples import ValidationSamples
from omma.systems.g2_monodepth.task import G2Task

NETWORK, TRUE_MEDIAN = "network", "true median"
ALIGNED = {"network, median scaled": scale_to_median, "network, scale and shift": fit_scale_and_shift}
METHODS = (NETWORK, *BASELINES, *ALIGNED, TRUE_MEDIAN)
RELATIVE = ("srmse", "oe")  # the paper's scores without given depth
SHOWN = ("input", "method", "points", "rmse", "mae", "abs_rel", "irmse", "delta1", "delta_1.05", *RELATIVE)
_TIMED, _LONG_S = 3, 60.0  # images before the rest is estimated; seconds that are worth a line

State = dict[str, dict[str, Any]]


class Bar(Protocol):
    """A progress bar."""

    def update(self, done: int) -> None:
        """Move it."""
        ...


class Console(Protocol):
    """Where lines and progress go."""

    def line(self, text: str) -> None:
        """Write one line."""
        ...

    def progress(self, total: int, *, label: str) -> AbstractContextManager[Bar]:
        """A bar while the block runs."""
        ...


class StudySamples(Samples):
    """One item a picture: "samples", one for each input, and "baselines", states of their meters.

    Baselines are filled and scored here, so that data-loading processes share that work.

    Args:
        base: pictures with true depth.
        patterns: inputs.
        scoring: which true depths count.
        collate: of the data set.
    """

    def __init__(
        self, base: ValidationSamples, patterns: Sequence[str], scoring: ScoringSection, collate: Collate
    ) -> None:
        self.base, self.patterns, self.scoring = base, tuple(patterns), scoring
        self.collate = collate

    def __len__(self) -> int:
        return len(self.base.frames)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.base.frames[index].token

    def files(self) -> list[Path]:
        """See Samples."""
        return self.base.files()

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; nothing is drawn from `rng`."""
        samples = self.base.of_frame(index, self.patterns)
        return {"samples": samples, "baselines": [self._fill(sample) for sample in samples]}

    def _fill(self, sample: Sample) -> dict[str, State]:
        """Method -> states; fillings leave out a picture without a given depth."""
        batch = self.collate([sample])
        if without_depth(sample["pattern"]):
            true = scored_depth(batch["depth"] * sample["max_depth"], **self.scoring.model_dump()).numpy()
            median = float(np.median(true[true > 0])) / float(sample["max_depth"]) if true.any() else 0.0
            return {TRUE_MEDIAN: score(torch.full_like(batch["depth"], median), batch, self.scoring)}
        given = sample["point"][0].numpy()
        if not given.any():
            return {}
        fills = {name: torch.from_numpy(fill(given))[None, None] for name, fill in BASELINES.items()}
        return {name: score(filled, batch, self.scoring) for name, filled in fills.items()}


def without_depth(pattern: str) -> bool:
    """Whether the pattern never gives a depth."""
    if pattern == MEASURED:
        return False
    return all(any(part.name == "none" for part in parts) for parts in parse_pattern(pattern).patterns)


def score(pred: Tensor, batch: dict[str, Any], scoring: ScoringSection) -> State:
    """States of the meters of one prediction.

    Args:
        pred: (1, 1, H, W) over max_depth.
        batch: of one sample.
        scoring: which true depths count.
    """
    meters, metres = _new_meters(), batch["max_depth"].view(-1, 1, 1, 1)
    true = scored_depth(batch["depth"] * metres, **scoring.model_dump())
    meters["depth"].update(pred * metres, true, batch["token"])
    meters["distance"].update(pred * metres, true, batch["point"] * metres)
    meters["paper"].update(pred, true / metres, batch["point"])
    return {name: meter.state() for name, meter in meters.items()}


def _new_meters() -> dict[str, Meter]:
    return {"depth": DepthMeter(more=True), "distance": DistanceMeter(), "paper": PaperMeter()}


class Board:
    """What all methods scored at all inputs."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], list[State]] = {}
        self._points: dict[str, list[int]] = {}

    def add(self, pattern: str, states: dict[str, State]) -> None:
        """Scores of one picture by method."""
        for method, state in states.items():
            self._states.setdefault((pattern, method), []).append(state)

    def count(self, pattern: str, points: int) -> None:
        """Depths given in one picture."""
        self._points.setdefault(pattern, []).append(points)

    def scores(self, patterns: Sequence[str], method: str, meter: str) -> dict[str, float]:
        """Values of one meter over the pictures of some inputs; NaN where there are none."""
        merged = _new_meters()[meter]
        found = [state[meter] for pattern in patterns for state in self._states.get((pattern, method), [])]
        merged.merge(found or [merged.state()])
        return merged.compute()

    def rows(self) -> list[dict[str, Any]]:
        """A row for each input and method that has scores; empty cells where a score is for another input."""
        return [
            self._row(pattern, method)
            for pattern in self._points
            for method in METHODS
            if (pattern, method) in self._states
        ]

    def _row(self, pattern: str, method: str) -> dict[str, Any]:
        depth = self.scores([pattern], method, "depth")
        paper = self.scores([pattern], method, "paper")
        relative = without_depth(pattern)  # of a sparse input too, a small picture may be given no depth
        paper |= {name: math.nan for name in PaperMeter.names if (name in RELATIVE) != relative}
        row = {"input": pattern, "method": method, "images": int(depth["images"])}
        row["points"] = round(np.mean(self._points[pattern]))
        values = {name: depth[name] for name in (*SEVEN, *MORE)} | paper
        values |= self.scores([pattern], method, "distance")
        return row | {name: _empty_if_nan(value) for name, value in values.items()}


def densities(
    task: G2Task, config: G2Config, data: ValidationSamples, collate: Collate, console: Console
) -> dict[str, dict[str, Any]]:
    """Every picture with every input of data.study_patterns: the network's scores and the baselines'.

    Inputs are the same in every run. Without given depth the network is also scored after alignment with
    the truth, and what it has to beat is the picture's true median.

    Raises:
        DataError: a picture is damaged, or lacks the measured depth that is asked for.

    Returns:
        study name -> table or curves, as `omma eval` writes and the report draws them.
    """
    patterns = _patterns(config.data.study_patterns, data)
    samples = StudySamples(data, patterns, config.data.scoring, collate)
    loader = Loader(
        samples,
        _alone,
        [[index] for index in range(len(samples))],
        workers=config.train.workers,
        device=task.device,
    )
    was_training, board, started = task.training, Board(), time.monotonic()
    task.eval()
    try:
        with console.progress(len(samples), label="densities") as bar:
            for done, item in enumerate(loader, 1):
                _score_network(task, item["samples"], collate, board)
                for pattern, states in zip(patterns, item["baselines"], strict=True):
                    board.add(pattern, states)
                bar.update(done)
                if done == _TIMED:
                    _say_how_long((time.monotonic() - started) / done, len(samples), len(patterns), console)
    finally:
        task.train(was_training)
        loader.close()
    return _found(board, patterns)


def _patterns(listed: Sequence[str], data: ValidationSamples) -> list[str]:
    """The listed ones, each once, and measured depth where every picture has it."""
    without = [frame.token for frame in data.frames if frame.raw is None]
    if MEASURED in listed and without:
        raise DataError(
            f"data.study_patterns holds measured, but {without[0]} has no measured depth",
            f"{len(without)} of {len(data.frames)} pictures lack it; take measured out of the list",
        )
    return list(dict.fromkeys([*listed, *([] if without else [MEASURED])]))


def _alone(items: Sequence[Sample]) -> Sample:
    return items[0]


@torch.no_grad()
def _score_network(task: G2Task, samples: Sequence[Sample], collate: Collate, board: Board) -> None:
    """One picture with all its inputs."""
    config, scoring = task.config, task.config.data.scoring
    size = config.validation.batch_size or config.train.batch_size
    step = size if isinstance(size, int) else 1
    for first in range(0, len(samples), step):
        batch = to_device(collate(samples[first : first + step]), task.device)
        with autocast(task.device, config.train.precision):
            preds = task(batch)
        for place, pattern in enumerate(batch["pattern"]):
            one = {key: value[place : place + 1] for key, value in batch.items()}
            pred = preds[place : place + 1]
            states = {NETWORK: score(pred, one, scoring)}
            if without_depth(pattern):
                metres = one["max_depth"].view(-1, 1, 1, 1)
                true = scored_depth(one["depth"] * metres, **scoring.model_dump()) / metres
                states |= {name: score(align(pred, true), one, scoring) for name, align in ALIGNED.items()}
            board.add(pattern, states)
            board.count(pattern, int(one["hole_point"].sum()))


def _say_how_long(seconds: float, images: int, inputs: int, console: Console) -> None:
    if seconds * images > _LONG_S:
        minutes = math.ceil(seconds * images / 60)
        console.line(f"densities: {images} pictures with {inputs} inputs each, about {minutes} min")


def _found(board: Board, patterns: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = board.rows()
    values = {(row["input"], row["method"]): row["rmse"] for row in rows}
    series = {method: [values.get((pattern, method)) for pattern in patterns] for method in METHODS}
    sparse = [pattern for pattern in patterns if _is_sparse(pattern)]
    by_distance = {method: board.scores(sparse, method, "distance") for method in (NETWORK, *BASELINES)}
    return {
        "densities": {"title": "Scores by given depth", "shown": list(SHOWN), "rows": rows},
        "densities_rmse": {
            "title": "Error by given depth",
            "x_label": "given depth",
            "y_label": "RMSE, m",
            "x": list(patterns),
            "series": {method: line for method, line in series.items() if any(v is not None for v in line)},
        },
        "densities_distance": {
            "title": "Error far from given depths, all sparse inputs",
            "x_label": "distance to the nearest given depth, pixels",
            "y_label": "mean absolute error, m",
            "ordered": True,
            "x": [_range_name(name) for name in by_distance[NETWORK]],
            "series": {
                method: [_empty_if_nan(value) for value in found.values()]
                for method, found in by_distance.items()
            },
        },
    }


def _is_sparse(pattern: str) -> bool:
    """Whether the pattern leaves depths out, and those it gives are true."""
    if pattern == MEASURED:
        return False
    names = {part.name for parts in parse_pattern(pattern).patterns for part in parts}
    return not names & {"none", "full", *ARTEFACTS}


def _range_name(name: str) -> str:
    """`mae/4_16px` as `4 to 16`, `mae/64px_on` as `64 on`."""
    return name.removeprefix("mae/").replace("px", "").replace("_on", " on").replace("_", " to ")


def _empty_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
