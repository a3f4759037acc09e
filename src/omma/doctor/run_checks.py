"""What a run's folder says about its training, with no knowledge of the system.

Rules look at the rows of metrics.csv and at status.json. Points are the logged ones; a rule that needs more
of them than there are says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from omma.doctor import loss_checks
from omma.doctor.curves import FEW_POINTS, Curves, columns, end, finite
from omma.doctor.environment import cores
from omma.engine.watch import fallen
from omma.errors import Finding
from omma.runs.metrics import series
from omma.systems import systems

WAITING = 0.3  # share of the step time; below it the GPU is the slower part
WARMING = 0.5  # share of the training that a warm-up may take
GAP = 2.0  # validation loss over training loss
SHARE_GAP = 0.3  # of a metric between 0 and 1
WORSE = 1.1  # validation loss at the end over its lowest
FASTER = ("-resize", "-cache")  # steps of `omma prepare` that leave less to do for each sample
FROM_0_TO_1 = ("iou", "precision", "recall", "accuracy", "pck", "delta", "share")


def check_run(curves: Curves) -> list[Finding]:
    """All rules in their order."""
    if not len(curves.values("loss")):
        return [*filter(None, [loss_checks.failed(curves)]), _nothing_logged(curves)]
    return [finding for rule in RULES if (finding := rule(curves)) is not None]


def _nothing_logged(curves: Curves) -> Finding:
    return Finding(
        "info",
        "no training step is recorded",
        "metrics.csv has no loss",
        f"shorter intervals: {curves.train('log.every=1')}",
    )


def metric_domain(curves: Curves) -> Finding | None:
    """A recorded share, such as an IoU, outside of [0, 1]."""
    for name in columns(curves):
        for phase in ("train", "val"):
            values = finite(curves.values(name, phase))
            if len(values) and is_share(name) and (values.min() < 0 or values.max() > 1):
                evidence = f"{phase}/{name} lies in [{values.min():.4g}, {values.max():.4g}], expected [0, 1]"
                return wrong_domain(name, evidence, curves.run)
    return None


def is_share(name: str) -> bool:
    """Whether a metric of this name lies between 0 and 1."""
    return "loss" not in name.lower() and any(word in name.lower() for word in FROM_0_TO_1)


def wrong_domain(name: str, evidence: str, run: str) -> Finding:
    """The finding for a metric outside of its range."""
    return Finding(
        "error",
        f"wrong metric domain: {name}",
        evidence,
        f"check what the metric gets (logits, probabilities, labels) and measure again: `omma eval {run}`",
    )


def metric_not_a_number(curves: Curves) -> Finding | None:
    """The metric of best/ is NaN in the last validation."""
    values = curves.values(curves.best[0], "val")
    if not len(values) or math.isfinite(values[-1]):
        return None
    return Finding(
        "error",
        f"the metric {curves.best[0]} is not a number",
        f"{np.isnan(values).sum()} of {len(values)} validations",
        f"most often the labels of the validation split are empty: `omma diagnose {curves.run} --probe-only`",
    )


def long_warmup(curves: Curves) -> Finding | None:
    """The learning rate rises for most of the training."""
    steps, rates = series(curves.rows, "train", "lr")
    total = curves.status.get("total") or (steps[-1] if steps else 0)
    if len(rates) < FEW_POINTS or max(rates) <= rates[0]:
        return None
    top = next(step for step, rate in zip(steps, rates, strict=True) if rate > 0.999 * max(rates))
    if top <= WARMING * total:
        return None
    return Finding(
        "warning",
        "the learning rate was warming up for most of the training",
        f"it reaches {max(rates):.3g} at step {top} of {total} (optim.lr={curves.lr:g})",
        f"train longer or warm up less: {curves.train('schedule.warmup=' + str(total // 20))}",
    )


def data_bound(curves: Curves) -> Finding | None:
    """Steps wait for data."""
    waits = curves.values("data_share")[1:]  # the first one waits for the processes to start
    if len(waits) < FEW_POINTS or np.median(waits) < WAITING:
        return None
    workers, there = curves.config["train"]["workers"], cores()
    seconds = float(np.median(curves.values("step_time")[1:]))
    more = f"train.workers={min(2 * workers + 2, there)}"
    bench = f"a machine with more than {there} cores; `omma bench {curves.run}` shows what loading takes"
    advice = [curves.train(more)] if workers < there else [bench]
    steps = " or ".join(f"`omma prepare {step}`" for step in _faster_loading(curves))
    advice += [f"images prepared once: {steps}"] if steps else []
    return Finding(
        "warning",
        "training waits for data",
        f"{np.median(waits):.0%} of a step of {seconds:.3g} s, with train.workers={workers} on {there} cores",
        ", or ".join(advice),
    )


def _faster_loading(curves: Curves) -> list[str]:
    """Steps of `omma prepare` after which the system's data loads faster; they are called so."""
    found = systems().get(curves.config["system"]["name"])
    return [step for step in (found.prepare if found else ()) if step.endswith(FASTER)]


def overfitted(curves: Curves) -> Finding | None:
    """The validation loss is far above the training loss and rising."""
    train, val = finite(curves.values("loss")), finite(curves.values("loss", "val"))
    if len(train) < FEW_POINTS or len(val) < FEW_POINTS or end(train) <= 0:
        return None
    last, least = val[-1], val.min()
    if last < GAP * end(train) or last < WORSE * least:
        return None
    return Finding(
        "warning",
        "the gap between training and validation is large and grows",
        f"loss {end(train):.4g} in training; in validation {least:.4g} at its lowest, {last:.4g} at the end",
        f"more data or augmentation, or {curves.train(f'optim.weight_decay={_more_decay(curves)}')}; "
        f"`omma eval {curves.run}` takes the best checkpoint, not the last",
    )


def metric_gap(curves: Curves) -> Finding | None:
    """The metric of best/ is far better in training than in validation, where both record it."""
    name, mode = curves.best
    train, val = finite(curves.values(name)), finite(curves.values(name, "val"))
    if len(train) < FEW_POINTS or not len(val) or mode != "max" or not is_share(name):
        return None
    if end(train) - val[-1] < SHARE_GAP:
        return None
    return Finding(
        "warning",
        f"{name} is far better in training than in validation",
        f"{end(train):.3f} in training, {val[-1]:.3f} in the last validation",
        f"are both splits alike, and read alike? `omma diagnose {curves.run} --split train` against val",
    )


def metric_fell(curves: Curves) -> Finding | None:
    """The metric of best/, a share, is far below its best at the end."""
    name, mode = curves.best
    values = finite(curves.values(name, "val"))
    if mode != "max" or len(values) < 2 or not fallen(float(values[-1]), float(values.max())):
        return None
    place = f"validation {int(values.argmax()) + 1} of {len(values)}"
    return Finding(
        "warning",
        f"{name} fell after its best",
        f"{values.max():.4f} in {place}, {values[-1]:.4f} in the last",
        f"`omma eval {curves.run}` takes the best checkpoint; a lower rate at the end: "
        f"{curves.train('schedule.name=cosine')}",
    )


RULES: tuple[Callable[[Curves], Finding | None], ...] = (  # cause before effect
    loss_checks.failed,
    loss_checks.not_finite,
    loss_checks.diverged,
    loss_checks.no_gradient,
    metric_domain,
    metric_not_a_number,
    loss_checks.not_learning,
    loss_checks.plateau,
    loss_checks.spikes,
    loss_checks.jumps,
    loss_checks.always_clipped,
    overfitted,
    metric_gap,
    metric_fell,
    long_warmup,
    data_bound,
    loss_checks.term_shares,
)


def _more_decay(curves: Curves) -> str:
    return f"{max(1e-2, 10 * float(curves.config['optim']['weight_decay'])):g}"
