"""What can be wrong with a training loss and its gradient: one rule a function, for any system."""

from __future__ import annotations

import itertools
import math

import numpy as np

from omma.doctor.curves import FEW_POINTS, MANY_POINTS, Curves, columns, end, finite, lowest, start, tail
from omma.engine.watch import JUMP, WINDOW, jumped
from omma.errors import Finding
from omma.runs.metrics import series

DIVERGED = 2.0  # end of the loss over its start; noise of a batch stays well below
ROSE, REGAINED = 4.0, 0.5  # end of the loss over its lowest stretch, and part of its fall that it lost again
BLOWN_UP, RECOVERED = 10.0, 0.8  # highest loss and end over the start; validation: the square of the first
SPIKE = 10.0  # one value over the median; batches differ by less
OFTEN = 0.02  # share of spikes from which they are a habit
FALLEN = 0.02  # part of its start that a learning loss loses at least
DROWNED = 0.95  # share of one term from which the others hardly steer
CLIPPED = 10.0  # gradient norm over the clip: the rate is in effect a tenth
MOST_TERMS = 6


def failed(curves: Curves) -> Finding | None:
    """The training stopped with an error."""
    error = curves.status.get("error")
    if curves.status.get("state") != "failed" or not error:
        return None
    step = curves.status.get("step")
    if "not finite" in str(error):
        fix = f"a lower rate: {_lower_rate(curves)}"
        return Finding("error", "the loss or its gradient is not finite", f"{error}", fix)
    return Finding(
        "error", "the training stopped with an error", f"step {step}: {error}", f"`omma resume {curves.run}`"
    )


def not_finite(curves: Curves) -> Finding | None:
    """NaN or infinity among the recorded losses."""
    steps, losses = series(curves.rows, "train", "loss")
    bad = [step for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)]
    if not bad:
        return None
    return Finding(
        "error",
        "the loss is not finite",
        f"first at step {bad[0]}, {len(bad)} of {len(steps)} logged steps",
        f"a lower rate: {_lower_rate(curves)}",
    )


def diverged(curves: Curves) -> Finding | None:
    """The loss ends far above where it began or had been, or blew up and did not recover."""
    losses = finite(curves.values("loss"))
    if len(losses) < FEW_POINTS or losses.min() <= 0:
        return None
    first, last, least, most = losses[0], end(losses), lowest(losses), losses.max()
    validated = finite(curves.values("loss", "val"))
    signs = (
        last > DIVERGED * first,
        last > ROSE * least and last - least > REGAINED * (first - least),
        most > BLOWN_UP * first and last > RECOVERED * first,
        len(validated) > 0 and validated.max() > BLOWN_UP**2 * first and validated[-1] > RECOVERED * first,
    )
    if not any(signs):
        return None
    validation = f"; up to {validated.max():.3g} in validation" if len(validated) else ""
    return Finding(
        "error",
        "the loss diverges",
        f"{first:.4g} at the start, {least:.4g} at its lowest, {most:.4g} at its highest, {last:.4g} at the "
        f"end{validation} (lr {curves.lr:g})",
        f"the learning rate is too high: {_lower_rate(curves)}",
    )


def no_gradient(curves: Curves) -> Finding | None:
    """The gradient is zero."""
    norms = curves.values("grad_norm")
    if len(norms) < FEW_POINTS or np.median(norms) > 0:
        return None
    return Finding(
        "error",
        "no gradient reaches the weights",
        f"grad_norm is 0 in {(norms == 0).mean():.0%} of {len(norms)} logged steps",
        f"look for frozen parts, a term of weight 0 or an empty mask: `omma show {curves.run}`",
    )


def not_learning(curves: Curves) -> Finding | None:
    """The loss is where it was at the start."""
    losses = finite(curves.values("loss"))
    if len(losses) < MANY_POINTS or diverged(curves):
        return None
    first, last = start(losses), end(losses)
    if first - last > FALLEN * abs(first):
        return None
    return Finding(
        "warning",
        "the loss does not fall",
        f"{first:.4g} over the first tenth, {last:.4g} over the last, {len(losses)} logged steps",
        f"can it learn at all? {curves.train('--overfit 4 train.length=300')}; if so, try "
        f"optim.lr={curves.lr * 3:g} and optim.lr={curves.lr / 10:g}",
    )


def plateau(curves: Curves) -> Finding | None:
    """The second half of the training brought nothing though the learning rate is still high."""
    losses, rates = finite(curves.values("loss")), curves.values("lr")
    if len(losses) < MANY_POINTS or not_learning(curves) or diverged(curves):
        return None
    first, middle, last = start(losses), end(losses[: len(losses) // 2]), end(losses)
    if middle - last > FALLEN * (first - last) or rates[-1] < 0.5 * rates.max():
        return None
    return Finding(
        "warning",
        "the loss is on a plateau",
        f"{first:.4g} at the start, {middle:.4g} half-way, {last:.4g} at the end; lr still {rates[-1]:.2g}",
        f"let the learning rate fall: {curves.train('schedule.name=cosine')}",
    )


def spikes(curves: Curves) -> Finding | None:
    """Single losses or gradients far above the others."""
    for name in ("loss", "grad_norm"):
        values = finite(curves.values(name))
        if len(values) < MANY_POINTS or np.median(values) <= 0:
            continue
        later = values[len(values) // 10 :]  # the first steps of a training are always high
        high = later > SPIKE * np.median(later)
        if high.sum() < max(FEW_POINTS, OFTEN * len(later)):
            continue
        clip = curves.config["optim"].get("grad_clip")
        settings = f"optim.grad_clip={_round(float(np.median(finite(curves.values('grad_norm')))))}"
        return Finding(
            "warning",
            f"{name} has spikes",
            f"{high.sum()} of {len(later)} logged steps above {SPIKE:g} times the median "
            f"{np.median(later):.3g}; optim.grad_clip={clip}",
            f"clip closer or lower the rate: {curves.train(settings)}",
        )
    return None


def jumps(curves: Curves) -> Finding | None:
    """Losses far above the ones before, in a training that does not diverge."""
    losses = finite(curves.values("loss"))
    high = [i for i in range(len(losses)) if jumped(losses[max(0, i - WINDOW) : i].tolist(), losses[i])]
    if not high or diverged(curves):
        return None
    last = high[-1]
    before, after = losses[last - WINDOW : last].mean(), losses[last + 1 : last + 1 + WINDOW]
    stays = not len(after) or float(np.median(after)) > JUMP * before
    evidence = (
        f"{len(high)} of {len(losses)} logged steps above {JUMP:g} times the mean of the {WINDOW} before; "
        f"the last one {losses[last]:.4g} after {before:.4g}"
    )
    fix = f"a lower rate or closer clipping: {_lower_rate(curves)}"
    if stays:
        return Finding("warning", "the loss jumped and did not come back", evidence, fix)
    return Finding("info", "the loss jumped and came back", evidence)


def always_clipped(curves: Curves) -> Finding | None:
    """Nearly every gradient is cut down to a small part of itself."""
    clip, norms = curves.config["optim"].get("grad_clip"), finite(curves.values("grad_norm"))
    if clip is None or len(norms) < MANY_POINTS or np.median(norms) < CLIPPED * clip:
        return None
    return Finding(
        "warning",
        "nearly every gradient is clipped to a small part",
        f"median grad_norm {np.median(norms):.3g}, optim.grad_clip={clip}",
        f"clip at what is usual: {curves.train(f'optim.grad_clip={_round(float(np.median(norms)))}')}",
    )


def term_shares(curves: Curves) -> Finding | None:
    """How much of the loss each of its terms is, where some of the recorded ones add up to it."""
    found = loss_terms(curves)
    if not found:
        return None
    sizes = {name: float(np.abs(tail(curves.values(name))).mean()) for name in found}
    whole = sum(sizes.values()) or 1.0
    listed = ", ".join(f"{name} {value / whole:.1%}" for name, value in sizes.items())
    silent = [name for name in found if not curves.values(name).any()]
    largest = max(sizes, key=lambda name: sizes[name])
    if silent:
        fix = f"its targets are missing, or its weight is 0: `omma doctor {curves.run}`"
        return Finding("warning", f"loss term {', '.join(silent)} is 0 all the time", listed, fix)
    if sizes[largest] > DROWNED * whole:
        fix = f"lower its weight if the others do not improve: `omma show {curves.run}` names the weights"
        return Finding("warning", f"loss term {largest} drowns the others", listed, fix)
    return Finding("ok", "loss terms", listed)


def loss_terms(curves: Curves) -> list[str]:
    """The fewest recorded columns, at least two, that add up to the loss in every row."""
    rows = [
        row for row in curves.rows if row["phase"] == "train" and math.isfinite(row.get("loss", math.nan))
    ]
    names = [name for name in columns(curves) if all(name in row for row in rows)]
    losses = np.array([row["loss"] for row in rows])
    for size in range(2, min(len(names), MOST_TERMS) + 1):
        for chosen in itertools.combinations(names, size):
            total = np.array([sum(row[name] for name in chosen) for row in rows])
            if np.allclose(total, losses, rtol=1e-3, atol=1e-9):
                return list(chosen)
    return []


def _lower_rate(curves: Curves) -> str:
    return f"{curves.train(f'optim.lr={curves.lr / 10:g}')}, or optim.grad_clip=1"


def _round(value: float) -> str:
    return f"{value:.1g}"
