"""What can be wrong with label maps and their predictions: one rule a function, on sums over some samples.

Every rule returns a finding or None. `run` is what commands call the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from omma.core.symmetry import AS_IT_IS
from omma.engine.distributions import MapCounts, shares
from omma.errors import Finding

BARS = "distribution.png"  # picture of both label maps
Rule = Callable[[MapCounts, str], Finding | None]

COLLAPSED = 0.95  # one label on more of the predicted map than this is a collapse ...
COMMON = 0.90  # ... unless the labels themselves have it on so much
HARDLY_ANY = 0.02  # cells found over cells labelled; a useful model is within a factor of a few
MOST_IGNORED = 0.98  # a single camera sees a tenth of its square even behind close traffic
OUTSIDE = 0.02  # visible cells out of view; rounding at the border stays below
FEW_SAMPLES = 4  # fewer agree by chance
TURNED_GAIN, TURNED_RATIO, TURNED_VOTES = 0.05, 1.25, 0.8  # a real mirror wins in nearly every sample
NARROWEST = 0.05  # spread of outputs; a constant inside [0, 1] is no probability map


def foreign_labels(counts: MapCounts, run: str) -> Finding | None:
    """Stored values that mean nothing."""
    if not counts.foreign:
        return None
    return Finding(
        "error",
        "labels are out of range",
        f"{counts.foreign} of {counts.cells} cells hold a value that is none of the {len(counts.names)} "
        "classes",
        f"check how the labels were made and the number of classes; then `omma diagnose {run} --probe-only`",
    )


def nothing_counts(counts: MapCounts, run: str) -> Finding | None:
    """All or nearly all cells are ignored."""
    share = counts.ignored_share
    if not counts.cells or share < MOST_IGNORED:
        return None
    return Finding(
        "error" if counts.visible == 0 else "warning",
        f"{share:.1%} of the label cells are ignored",
        f"{counts.visible} of {counts.cells} cells count",
        f"check the visibility mask or ignore value of the labels; then `omma diagnose {run} --probe-only`",
    )


def outside_of_view(counts: MapCounts, run: str) -> Finding | None:
    """Labels count cells that the calibration says no camera sees."""
    share = counts.unseen / max(counts.visible, 1)
    if share < OUTSIDE:
        return None
    return Finding(
        "error",
        "labels and calibration do not fit: cells count that the camera does not see",
        f"{share:.1%} of {counts.visible} cells that count lie outside of the image",
        "the labels are turned or mirrored, or the intrinsics are of another camera or image size; make the "
        f"labels again, then `omma diagnose {run} --probe-only`",
    )


def nothing_ignored(counts: MapCounts, run: str) -> Finding | None:
    """For labels that always have ignored cells: there are none."""
    if not counts.cells or counts.ignored_share > 0:
        return None
    return Finding(
        "warning",
        "no label cell is ignored",
        f"all of {counts.cells} cells count, also those outside of the camera's view",
        f"make the labels again with their ignore bit; then `omma diagnose {run} --probe-only`",
    )


def empty_labels(counts: MapCounts, run: str) -> Finding | None:
    """No class is anywhere."""
    if not counts.visible or counts.truth.any():
        return None
    return Finding(
        "error",
        "the labels are empty",
        f"no class on any of the {counts.visible} cells that count in {counts.samples} samples",
        f"check the classes and the grid of the recipe: `omma show {run}`",
    )


def outputs_not_finite(counts: MapCounts, run: str) -> Finding | None:
    """NaN or infinity comes out of the network."""
    if not counts.not_finite:
        return None
    return Finding(
        "error",
        "the network's outputs are not finite",
        f"{counts.not_finite} values are NaN or infinite",
        f"take an earlier checkpoint (`omma diagnose {run}@final`), or train in 32 bit with a lower rate: "
        f"`omma train {run} train.precision=32 optim.grad_clip=5`",
    )


def probabilities_for_logits(counts: MapCounts, run: str) -> Finding | None:
    """Outputs that are already probabilities: at a threshold of logit 0 everything counts as found."""
    low, high = counts.lowest, counts.highest
    if not counts.predicted or low < 0 or high > 1 or high - low < NARROWEST:
        return None
    return Finding(
        "error",
        "wrong metric domain: outputs look like probabilities, logits are expected",
        f"all outputs lie in [{low:.3g}, {high:.3g}]; the metrics call a cell found above logit 0",
        f"take the sigmoid out of the network, or the logits before it; then `omma eval {run}`",
    )


def mirrored(counts: MapCounts, run: str) -> Finding | None:
    """Predictions fit the labels clearly better when turned."""
    if counts.predicted < FEW_SAMPLES or not counts.present.any():
        return None
    own = counts.mean_iou()
    best = max(counts.turned, key=counts.mean_iou)
    value, votes = counts.mean_iou(best), counts.wins[best] / counts.predicted
    if value < max(own + TURNED_GAIN, own * TURNED_RATIO) or votes < TURNED_VOTES:
        return None
    return Finding(
        "error",
        f"labels or images are mirrored: predictions fit only when {best}",
        f"mIoU {own:.3f} {AS_IT_IS}, {value:.3f} {best}, which is better in {votes:.0%} of "
        f"{counts.predicted} samples",
        "compare the axes of the labels with the calibration: "
        f"`omma doctor {run} --out pictures` draws labels into the images",
    )


def collapsed(counts: MapCounts, run: str) -> Finding | None:
    """One label nearly everywhere, nothing at all, or the same map whatever the input."""
    if not counts.predicted:
        return None
    why = _one_label(counts) or _nothing(counts) or _always_the_same(counts)
    if why is None:
        return None
    return Finding(
        "error",
        f"collapsed prediction: {why[0]}",
        why[1],
        "check loss weights, labels and learning rate; a network that works learns a few samples by heart: "
        f"`omma train {run} --overfit 4 train.length=300`",
        BARS,
    )


def _one_label(counts: MapCounts) -> tuple[str, str] | None:
    found, truth = shares(counts.found_map), shares(counts.truth_map)
    label = int(found.argmax())
    if found[label] <= COLLAPSED or truth[label] >= COMMON:
        return None
    name = counts.labels[label]
    return f"{name} on {found[label]:.1%} of the cells", f"in the labels {name} has {truth[label]:.1%}"


def _nothing(counts: MapCounts) -> tuple[str, str] | None:
    found, truth = int(counts.found.sum()), int(counts.truth.sum())
    if found >= HARDLY_ANY * truth:
        return None
    title = "nothing is found" if found == 0 else "hardly anything is found"
    return title, f"{found} cells found over all classes, {truth} in the labels"


def _always_the_same(counts: MapCounts) -> tuple[str, str] | None:
    if counts.predicted < FEW_SAMPLES or not counts.same_found or counts.same_truth:
        return None
    return "the same map for every sample", f"{counts.predicted} samples with different labels"


def classes_never_right(counts: MapCounts, run: str) -> Finding | None:
    """Classes that are in the labels and never hit."""
    missed = np.flatnonzero(counts.present & (counts.shared == 0))
    if not counts.predicted or not len(missed) or collapsed(counts, run):
        return None
    listed = ", ".join(f"{counts.names[c]} ({counts.truth[c]} cells)" for c in missed)
    return Finding(
        "warning",
        f"{len(missed)} of {counts.present.sum()} classes have IoU 0",
        listed,
        f"normal early on and for rare classes; else compare the classes' order: `omma show {run}`",
    )


def classes_without_truth(counts: MapCounts, run: str) -> Finding | None:
    """Classes that these samples cannot judge."""
    absent = [name for name, there in zip(counts.names, counts.present, strict=True) if not there]
    if not absent or not counts.truth.any():
        return None
    return Finding(
        "info",
        f"{len(absent)} of {len(counts.names)} classes are in none of these labels",
        ", ".join(absent),
        f"they are left out of mIoU here; look at more samples: `omma diagnose {run} --num-samples 500`",
    )


LABEL_RULES: tuple[Rule, ...] = (foreign_labels, outside_of_view, nothing_counts, empty_labels)
MODEL_RULES: tuple[Rule, ...] = (
    outputs_not_finite,
    probabilities_for_logits,
    mirrored,
    collapsed,
    classes_never_right,
    classes_without_truth,
)


def apply(rules: Sequence[Rule], counts: MapCounts, run: str) -> list[Finding]:
    """What the rules find, in their order, which is that of cause before effect."""
    return [finding for rule in rules if (finding := rule(counts, run)) is not None]
