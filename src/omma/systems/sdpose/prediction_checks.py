"""What can be wrong with predicted joints: one rule a function, on sums over some people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from omma.core.joint_meter import JointMeter
from omma.core.keypoint_meter import KeypointMeter
from omma.core.keypoints import FLIP_PAIRS
from omma.errors import Finding

Array = NDArray[np.floating]

FEW_PEOPLE = 4
CONSTANT = 0.1  # spread of predictions from person to person over that of the labels
EMPTY = 0.1  # median peak of labelled joints; a trained network has 0.5 and more
MIRRORED, SWAPPED = 0.5, 0.1  # share of pairs that took each other's place; a trained network has 0.01
PAIRS = 4  # of a person, to call it mirrored
OUTSIDE = 0.02  # share of joints that lie outside their crops
NEAR = 0.1  # of the box's longer side
BAD = (0.05, 10)  # share and number of far joints from which their scores are judged
UNRELATED = -0.1  # rank correlation of peak and error; a trained network has -0.5
LOW = 0.5  # share of joints that are found whose peaks reach the visible score
DROWNED, SILENT = 0.5, 1e-4  # share of all distillation terms in the loss, or of their gradient
LEARNED = 1e-4  # loss of heatmaps, below which there is nothing left to learn; empty ones have 0.01
BETTER = 0.1  # of the last cycle's PCK over that of the first, which predicts
_LISTED = 3


@dataclass(frozen=True)
class Person:
    """One person as predicted, first cycle or mean with the mirrored crop; lengths in sides of its box.

    Args:
        name: of the sample.
        found: (K, 2) in pixels of the crop.
        true: (K, 2) likewise.
        labelled: bool (K,).
        side: longer side of the box, in pixels of the crop.
        peaks: (K,).
    """

    name: str
    found: Array
    true: Array
    labelled: NDArray[np.bool_]
    side: float
    peaks: Array

    @property
    def errors(self) -> Array:
        """(K,), NaN where there is no label."""
        apart = np.linalg.norm(self.found - self.true, axis=-1) / self.side
        return np.where(self.labelled, apart, np.nan)

    @property
    def swapped(self) -> tuple[int, int]:
        """Pairs of left and right joints that are clearly nearer to each other's place, and all pairs."""
        left, right = (list(own) for own in zip(*FLIP_PAIRS, strict=True))
        both = self.labelled[left] & self.labelled[right]

        def apart(first: list[int], second: list[int]) -> Array:
            return np.linalg.norm(self.found[first] - self.true[second], axis=-1)

        straight = apart(left, left) + apart(right, right)
        crossed = apart(left, right) + apart(right, left)
        hits = (crossed < 0.5 * straight) & (crossed < 2 * NEAR * self.side) & both
        return int(hits.sum()), int(both.sum())


@dataclass
class Seen:
    """Sums over the people of a diagnosis.

    Args:
        size: (H, W) of the crops.
        visible_score: joints above it give a person's score.
        cycles: meters of each cycle, of people and of joints.
        evaluated: the same as an evaluation has them.
        people: those looked at.
        apart: kind of token -> mean square distance of each pair of cycles, and that over the later one's
            mean square.
        terms: loss term -> its mean.
        gradients: loss term -> length of its gradient in the shared encoder.
        not_finite: heatmaps with NaN or infinity.
    """

    size: tuple[int, int]
    visible_score: float
    cycles: list[tuple[KeypointMeter, JointMeter]]
    evaluated: tuple[KeypointMeter, JointMeter]
    people: list[Person] = field(default_factory=list)
    apart: dict[str, list[list[tuple[float, float]]]] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    not_finite: int = 0

    @property
    def errors(self) -> Array:
        """(people, K), NaN where there is no label."""
        return np.stack([person.errors for person in self.people])

    @property
    def peaks(self) -> Array:
        """(people, K)."""
        return np.stack([person.peaks for person in self.people])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(people, K)."""
        return np.stack([person.labelled for person in self.people])

    def metric_lines(self) -> list[str]:
        """Of summary.txt: the evaluation's numbers, by size and occlusion, and each cycle's."""
        if not self.people:
            return ["the network was not run"]
        numbers, joints = (meter.compute() for meter in self.evaluated)
        lines = ["as evaluated, of the people looked at:"]
        lines += [f"  {name} {_number(value)}" for name, value in (numbers | joints).items()]
        lines += ["(COCO's sizes by area; joints seen: how many of the 17)", "", "cycles, without flip test:"]
        for number, (people, own) in enumerate(self.cycles, 1):
            near = own.compute()
            numbers = {"AP": people.compute()["AP"]} | {
                title: near[name]
                for title, name in (("PCK@0.1", "PCK@0.1"), ("px", "error_px"), ("swapped", "swap_error"))
            }
            listed = ", ".join(f"{title} {_number(value)}" for title, value in numbers.items())
            lines.append(f"  cycle {number}: {listed}")
        for kind, pairs in self.apart.items():
            for number, values in enumerate(pairs, 1):
                square, relative = np.mean(values, axis=0)
                far = f"mean square {square:.4g}, {relative:.3g} of that of cycle {number + 1}"
                lines.append(f"  {kind} tokens of cycles {number} and {number + 1}: {far}")
        return lines

    def loss_lines(self) -> list[str]:
        """Of summary.txt: what each term is of the loss, and of the gradient in the shared encoder."""
        if not self.terms:
            return ["the network was not run"]
        return [
            f"{name}: {value:.4g}, {shares(self.terms)[name]:.3%} of the loss; gradient in the encoder "
            f"{self.gradients[name]:.4g}, {shares(self.gradients)[name]:.3%}"
            for name, value in self.terms.items()
        ]

    def joint_lines(self) -> list[str]:
        """Of summary.txt: one row a joint."""
        if not self.people:
            return ["the network was not run"]
        rows = self.evaluated[1].per_class()
        titles = [name for name in rows[0] if name != "class"]
        head = f"{'joint':<14}" + "".join(f"  {title:>9}" for title in titles)
        return [
            head,
            *(
                f"{row['class']:<14}" + "".join(f"  {_number(row[title]):>9}" for title in titles)
                for row in rows
            ),
        ]


def shares(sizes: dict[str, float]) -> dict[str, float]:
    """Of their sum; 0 where that is 0."""
    whole = sum(sizes.values())
    return {name: size / whole if whole else 0.0 for name, size in sizes.items()}


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "none" if np.isnan(value) else f"{value:.4f}"


Rule = Callable[[Seen, str], Finding | None]


def not_finite(seen: Seen, run: str) -> Finding | None:
    """NaN or infinity in heatmaps."""
    if not seen.not_finite:
        return None
    evidence = f"{seen.not_finite} of {len(seen.people)} people"
    fix = f"`omma eval {run}@last train.precision=32`; lower optim.lr if that does not help"
    return Finding("error", "heatmaps are not finite", evidence, fix)


def same_for_all(seen: Seen, run: str) -> Finding | None:
    """The same joints whatever the picture."""
    if len(seen.people) < FEW_PEOPLE:
        return None
    masked = np.where(seen.labelled[..., None], 1.0, np.nan)
    kept = seen.labelled.sum(0) >= FEW_PEOPLE
    if not kept.any():
        return None
    found, true = (
        np.nanstd(np.stack([getattr(one, name) for one in seen.people])[:, kept] * masked[:, kept], axis=0)
        for name in ("found", "true")
    )
    ratio = float(np.median(found) / max(np.median(true), 1e-6))
    if ratio >= CONSTANT:
        return None
    evidence = f"from person to person joints move by {ratio:.1%} of what the labels do"
    fix = f"does the picture reach the network? can it learn? `omma train {run} --overfit 6 train.length=300`"
    return Finding("error", "the prediction is nearly the same for everybody", evidence, fix)


def empty_maps(seen: Seen, run: str) -> Finding | None:
    """Heatmaps without peaks, the plateau at the start of every training."""
    middle = float(np.median(seen.peaks[seen.labelled]))
    if middle >= EMPTY:
        return None
    evidence = f"median peak of labelled joints {middle:.3g}; targets have 1"
    fix = f"empty maps are where trainings begin: train longer, or look at the loss: `omma report {run}`"
    return Finding("warning", "the heatmaps are nearly empty", evidence, fix)


def sides(seen: Seen, run: str) -> Finding | None:
    """Left and right joints in each other's places."""
    pairs = np.array([person.swapped for person in seen.people])
    share = pairs[:, 0].sum() / max(1, pairs[:, 1].sum())
    whole = (pairs[:, 0] > MIRRORED * pairs[:, 1]) & (pairs[:, 1] >= PAIRS)
    names = [person.name for person, is_whole in zip(seen.people, whole, strict=True) if is_whole]
    evidence = (
        f"{pairs[:, 0].sum()} of {pairs[:, 1].sum()} pairs of a left and a right joint have swapped places"
    )
    if names:
        evidence += f"; all of {len(names)} people, such as {', '.join(names[:_LISTED])}"
    if share > MIRRORED:
        fix = f"labels of this split or of the training are mirrored: `omma doctor {run} --out DIR`"
        return Finding("error", "left and right are mirrored", evidence, fix)
    if share > SWAPPED or len(names) > SWAPPED * len(seen.people):
        fix = f"look at these people: `omma doctor {run} --out DIR` draws crops with their labels"
        return Finding("warning", "left and right are mixed up", evidence, fix)
    return None


def outside_crop(seen: Seen, run: str) -> Finding | None:
    """Points thrown far away by a step on a flat map."""
    found = np.stack([person.found for person in seen.people])[seen.labelled]
    height, width = seen.size
    share = float(((found < -1) | (found > (width, height))).any(-1).mean())
    if share <= OUTSIDE:
        return None
    evidence = f"{share:.1%} of the labelled joints"
    fix = f"`omma eval {run} evaluation.largest_step=1.5` leaves out steps on flat heatmaps"
    return Finding("warning", "joints are found outside their crops", evidence, fix)


def scores_unrelated(seen: Seen, run: str) -> Finding | None:
    """Peaks that do not say which joints are right, so that people are ranked at random."""
    errors, peaks = seen.errors[seen.labelled], seen.peaks[seen.labelled]
    far = errors > NEAR
    least_share, least = BAD
    if not least_share < far.mean() < 1 - least_share or min(far.sum(), (~far).sum()) < least:
        return None
    correlation = 0.0 if np.ptp(peaks) == 0 else float(spearmanr(peaks, errors).statistic)
    if correlation < UNRELATED:
        return None
    evidence = (
        f"rank correlation {correlation:.2f}, expected below -0.3; {far.mean():.0%} of joints are far off"
    )
    fix = f"AP ranks people by their peaks: train longer, and compare AP with PCK: `omma eval {run}`"
    return Finding("warning", "the heights of peaks say nothing about errors", evidence, fix)


def low_scores(seen: Seen, run: str) -> Finding | None:
    """Joints that are found but do not count for a person's score."""
    good = seen.labelled & (np.nan_to_num(seen.errors, nan=np.inf) < NEAR)
    if good.sum() < BAD[1]:
        return None
    share = float((seen.peaks[good] > seen.visible_score).mean())
    if share >= LOW:
        return None
    middle = float(np.median(seen.peaks[good]))
    evidence = f"{share:.0%} of {good.sum()} joints; median peak {middle:.2g}, limit {seen.visible_score:g}"
    fix = f"`omma eval {run} evaluation.visible_score={0.5 * middle:.1g}`"
    return Finding("warning", "most joints that are found do not count for the score", evidence, fix)


def distillation(seen: Seen, run: str) -> Finding | None:
    """How much the distillation weighs beside the labels."""
    heatmaps = next(iter(seen.terms), "")
    if len(seen.terms) < 2:
        return None
    loss, gradient = 1 - shares(seen.terms)[heatmaps], 1 - shares(seen.gradients)[heatmaps]
    evidence = f"{loss:.3%} of the loss, {gradient:.3%} of the gradient in the shared encoder"
    if min(loss, gradient) > DROWNED and seen.terms[heatmaps] > LEARNED:
        fix = f"`omma train {run} system.distill.loss_weight=1e-6`"
        return Finding("warning", "the distillation drowns the labels", evidence, fix)
    if max(loss, gradient) < SILENT:
        fix = f"`omma train {run} system.distill.loss_weight=1e-4`"
        return Finding("info", "the distillation does next to nothing", evidence, fix)
    return Finding("ok", "distillation", evidence)


def cycle_gap(seen: Seen, run: str) -> Finding | None:
    """A first cycle, which predicts, that has not learned from the last one."""
    near = [meters[1].compute()["PCK@0.1"] for meters in seen.cycles]
    if len(near) < 2 or not near[-1] - near[0] > BETTER:
        return None
    evidence = "PCK@0.1 by cycle: " + ", ".join(f"{value:.3f}" for value in near)
    fix = f"`omma train {run} system.distill.loss_weight=1e-4`"
    return Finding("info", "later cycles are better than the first, which predicts", evidence, fix)


RULES: tuple[Rule, ...] = (  # cause before effect
    not_finite,
    same_for_all,
    empty_maps,
    sides,
    outside_crop,
    scores_unrelated,
    low_scores,
    distillation,
    cycle_gap,
)


def judge(seen: Seen, run: str) -> list[Finding]:
    """All rules in their order; after heatmaps that are not finite no other."""
    if not seen.people:
        return []
    if (first := not_finite(seen, run)) is not None:
        return [first]
    return [finding for rule in RULES if (finding := rule(seen, run)) is not None]
