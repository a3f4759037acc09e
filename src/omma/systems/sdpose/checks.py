"""What is checked about people before training: boxes, joints, doubles, sides, detectors, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omma.core.coco_eval import GroundTruth
from omma.core.keypoints import FLIP_PAIRS, JOINTS
from omma.core.oks import closeness
from omma.errors import Finding
from omma.systems.sdpose.config import SDPoseConfig
from omma.systems.sdpose.losses import token_terms

OUTSIDE_PX = 2.0  # beyond the image; COCO's own boxes end on its edge
FAR = 0.05  # of the box's longer side, from which a joint lies outside of the box
MANY_FAR = 0.1  # share of such joints; COCO has 0.03
SAME = 0.98  # closeness of the joints of two people, from which one is there twice
FEW_JOINTS = 3  # in common, to call two people the same
FACING, CROSSING = 5, 30  # people who face the camera, to judge sides by; more for arms and legs, which cross
_TRUNK = ("eye", "ear", "shoulder", "hip")
MIRRORED = 0.5  # share of facing people with their left on the image's right; COCO has 0.9 to 1
SMALL_PX2 = 32.0**2
FOUND = 0.5  # overlap of boxes (IoU)
LOW_RECALL = 0.8
WEIGHTS, RATIOS = (1e-6, 1e-4), (0.2, 0.5)  # what the guide recommends
PUBLISHED_BATCH, PUBLISHED_LR = 512, 1e-3  # 8 devices of 64
_NOSE_AND_EYES = [0, 1, 2]
_SEEN = 2


def check_boxes(split: str, truth: GroundTruth, sizes: NDArray[np.int64]) -> list[Finding]:
    """Whether people's boxes lie in their images, and how large they are.

    Args:
        split: its name.
        truth: all annotated people.
        sizes: (A, 2) height and width of each person's image.
    """
    keep = truth.labelled
    boxes, sizes, ids = truth.boxes[keep], sizes[keep], truth.ids[keep]
    beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1]).max(-1)
    outside, empty = beyond > OUTSIDE_PX, (boxes[:, 2:] <= 0).any(-1)
    findings = []
    if empty.any():
        title = f"{split}: {empty.sum()} of {len(boxes)} boxes have no width or height"
        fix = "bbox is x, y, width, height, not two corners; such people are left out"
        findings.append(Finding("error", title, f"first: annotation {ids[empty.argmax()]}", fix))
    if outside.any():
        worst = int(beyond.argmax())
        findings.append(
            Finding(
                "error" if outside.mean() > MANY_FAR else "warning",
                f"{split}: {outside.sum()} of {len(boxes)} boxes lie outside their images",
                f"by up to {beyond[worst]:.0f} pixels: annotation {ids[worst]}, box {_short(boxes[worst])} "
                f"in an image of {sizes[worst, 1]} x {sizes[worst, 0]} (width x height)",
                "bbox is x, y, width, height in pixels; width and height of the image must be its own",
            )
        )
    sides = boxes[:, 2:].max(-1)
    low, middle, high = np.percentile(sides, (5, 50, 95))
    small = (truth.areas[keep] < SMALL_PX2).mean()
    evidence = f"longer side in pixels: 5 % below {low:.0f}, median {middle:.0f}, 5 % above {high:.0f}"
    evidence += f"; {small:.0%} are small for COCO (area below 32 x 32)"
    return [*findings, Finding("ok" if not findings else "info", f"{split}: box sizes", evidence)]


def check_joints(split: str, truth: GroundTruth, sizes: NDArray[np.int64]) -> list[Finding]:
    """Whether joints lie in their images and boxes; how many there are.

    Args:
        split: its name.
        truth: all annotated people.
        sizes: (A, 2) height and width of each person's image.
    """
    keep = truth.labelled
    joints, boxes, ids = truth.joints[keep], truth.boxes[keep], truth.ids[keep]
    labelled = joints[..., 2] > 0
    places, ends = joints[..., :2], sizes[keep][:, None, ::-1]
    out_of_image = (np.maximum(-places, places - ends).max(-1) > OUTSIDE_PX) & labelled
    low, high = boxes[:, None, :2], (boxes[:, :2] + boxes[:, 2:])[:, None]
    side = np.maximum(boxes[:, 2:].max(-1), 1)[:, None]
    far = (np.maximum(low - places, places - high).max(-1) / side > FAR) & labelled
    findings = []
    if out_of_image.any():
        first = ids[out_of_image.any(-1).argmax()]
        title = f"{split}: {out_of_image.sum()} of {labelled.sum()} joints lie outside their images"
        fix = "are x and y in pixels of the stored image, and was it not resized?"
        findings.append(Finding("error", title, f"first: annotation {first}", fix))
    share = far.sum() / max(1, labelled.sum())
    worst = int(far.sum(-1).argmax())
    evidence = f"{share:.1%} of {labelled.sum()} joints are farther out than {FAR:.0%} of its longer side"
    if share > MANY_FAR:
        evidence += f"; {far[worst].sum()} of annotation {ids[worst]}"
        fix = "is bbox x, y, width, height of the same person, in the same pixels?"
        findings.append(Finding("warning", f"{split}: many joints lie outside their boxes", evidence, fix))
    else:
        findings.append(Finding("ok", f"{split}: joints lie in their boxes", evidence))
    hidden = (joints[..., 2] == 1).sum() / max(1, labelled.sum())
    evidence = f"{labelled.sum(-1).mean():.1f} of {len(JOINTS)} joints a person; {hidden:.0%} of them hidden"
    return [*findings, Finding("ok", f"{split}: {len(joints)} people with joints", evidence)]


def check_doubles(split: str, truth: GroundTruth) -> Finding:
    """People who are annotated twice: joints in nearly the same places."""
    rows = np.flatnonzero(truth.labelled)
    rows = rows[np.argsort(truth.image_id[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(truth.image_id[rows])) + 1
    pairs = [pair for group in np.split(rows, starts) if len(group) > 1 for pair in _same(truth, group)]
    if not pairs:
        return Finding("ok", f"{split}: nobody is annotated twice")
    first = " and ".join(str(truth.ids[row]) for row in pairs[0])
    title = f"{split}: {len(pairs)} pairs of people have their joints in the same places"
    fix = "take one of each pair out: one of them cannot be found"
    evidence = f"first: annotations {first} of image {truth.image_id[pairs[0][0]]}"
    return Finding("warning", title, evidence, fix)


def _same(truth: GroundTruth, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    joints = truth.joints[rows]
    both = (joints[:, None, :, 2] > 0) & (joints[None, :, :, 2] > 0)
    squares = ((joints[:, None, :, :2] - joints[None, :, :, :2]) ** 2).sum(-1)
    areas = np.maximum(truth.boxes[rows, 2:].prod(-1), 1.0)
    alike = closeness(squares, np.minimum(areas[:, None], areas[None]))
    common = both.sum(-1)
    mean = (alike * both).sum(-1) / np.maximum(common, 1)
    same = np.triu((common >= FEW_JOINTS) & (mean > SAME), 1)
    return [(int(rows[one]), int(rows[other])) for one, other in np.argwhere(same)]


def check_sides(split: str, truth: GroundTruth) -> Finding:
    """Whether left joints are the person's left: on the image's right where a face looks at the camera."""
    joints = truth.joints[truth.labelled]
    joints = joints[(joints[:, _NOSE_AND_EYES, 2] == _SEEN).all(-1)]
    shares = {}
    for left, right in FLIP_PAIRS:
        known = joints[(joints[:, [left, right], 2] > 0).all(-1)]
        name = JOINTS[left].removeprefix("left_")
        if len(known) >= (FACING if name in _TRUNK else CROSSING):
            shares[name] = float((known[:, left, 0] > known[:, right, 0]).mean())
    if not shares:
        evidence = f"{len(joints)} people face the camera, {FACING} are needed"
        return Finding("info", f"{split}: left and right are not verified", evidence)
    listed = ", ".join(f"{name}s {share:.0%}" for name, share in shares.items())
    evidence = f"left on the image's right, of {len(joints)} people who face the camera: {listed}"
    wrong = [name for name, share in shares.items() if share < MIRRORED]
    if not wrong:
        return Finding("ok", f"{split}: left is the person's left", evidence)
    title = f"{split}: left and right are mixed up: {', '.join(wrong)}"
    fix = "left is the person's own left; were images mirrored without swapping the joints?"
    return Finding("error", title, evidence, fix)


def check_counts(split: str, truth: GroundTruth, skipped: Mapping[str, int]) -> Finding:
    """People an image, and annotations that are no people to learn from."""
    keep = truth.labelled
    counts = np.unique(truth.image_id[keep], return_counts=True)[1]
    empty = len(truth.image_ids) - len(counts)
    others = {"crowds": int(truth.crowd.sum()), "without a joint": int((~keep & ~truth.crowd).sum())}
    left_out = ", ".join(f"{number} {name}" for name, number in (others | dict(skipped)).items() if number)
    evidence = f"{counts.mean():.1f} an image with people, {counts.max()} at most; {empty} images have none"
    return Finding(
        "ok",
        f"{split}: {keep.sum()} people in {len(truth.image_ids)} images",
        evidence + (f"; left out: {left_out}" if left_out else ""),
    )


def check_detections(split: str, truth: GroundTruth, boxes: NDArray[np.float64],
                     image_id: NDArray[np.int64], scores: NDArray[np.float64]) -> Finding:  # fmt: skip
    """How many annotated people a detector's boxes find.

    Args:
        split: its name.
        truth: all annotated people.
        boxes: (D, 4) x, y, width, height of the detector.
        image_id: (D,) of each.
        scores: (D,) of each.
    """
    rows = np.flatnonzero(truth.labelled)
    by_image = {image: boxes[image_id == image] for image in np.unique(truth.image_id[rows]).tolist()}
    best = np.array([_overlap(truth.boxes[row], by_image[int(truth.image_id[row])]) for row in rows])
    recall = float((best >= FOUND).mean())
    without = len(np.setdiff1d(truth.image_id[rows], image_id))
    evidence = (
        f"{len(boxes)} boxes with scores of {scores.min():.2g} to {scores.max():.2g} in "
        f"{len(np.unique(image_id))} images; {recall:.1%} of {len(rows)} people overlap one by half or more"
    )
    if without:
        evidence += f"; {without} images with people have no box"
    if recall < LOW_RECALL:
        fix = "people without a box are never found: lower data.box_score, or take other boxes of this split"
        return Finding(
            "warning", f"{split}: the detector misses {1 - recall:.0%} of the people", evidence, fix
        )
    return Finding("ok", f"{split}: a detector's boxes", evidence)


def _overlap(box: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The largest intersection over union of a box with others; 0 without any."""
    if not len(others):
        return 0.0
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    common = (high - low).clip(0).prod(-1)
    return float((common / (box[2:].prod() + others[:, 2:].prod(-1) - common)).max())


def check_distillation(config: SDPoseConfig) -> list[Finding]:
    """Weights and mask ratios outside of what the guide recommends."""
    terms, cycles = token_terms(config.system.distill), config.system.cycles
    if cycles == 1 and terms:
        fix = "system.cycles=2"
        return [Finding("warning", "nothing is distilled: there is one cycle", "system.cycles=1", fix)]
    findings = []
    for term in terms:
        low, high = WEIGHTS
        if not low <= term.loss_weight <= high:
            title = f"weight {term.loss_weight:g} of the {term.kind} tokens' loss is unusual"
            evidence = f"{low:g} to {high:g} is recommended"
            fix = "system.distill.loss_weight=1e-5; 1e-6 if the loss diverges"
            findings.append(Finding("warning", title, evidence, fix))
        low, high = RATIOS
        if term.loss == "masked" and not low <= term.mask_ratio <= high:
            title = f"mask ratio {term.mask_ratio:g} of the {term.kind} tokens is unusual"
            evidence = f"{low:g} to {high:g} is recommended; 0 is the plain loss"
            findings.append(Finding("warning", title, evidence, "system.distill.mask_ratio=0.3"))
    listed = ", ".join(f"{term.kind} {term.loss} x {term.loss_weight:g}" for term in terms) or "nothing"
    return findings or [Finding("ok", f"distilled between {cycles} cycles: {listed}")]


def check_rate(config: SDPoseConfig) -> list[Finding]:
    """The batch and the learning rate against the published ones."""
    train, rate = config.train, config.optim.lr
    if train.batch_size == "auto":
        return []
    batch = train.batch_size * train.accumulate * train.devices
    parts = f"devices {train.devices} x batch {train.batch_size} x micro-steps {train.accumulate}"
    evidence = f"{parts}; published: {PUBLISHED_BATCH} (8 x 64) at {PUBLISHED_LR:g}"
    title = f"effective batch {batch} at a learning rate of {rate:g}"
    if batch == PUBLISHED_BATCH or config.optim.name not in ("adam", "adamw"):
        return [Finding("ok", title, evidence)]
    scaled = PUBLISHED_LR * batch / PUBLISHED_BATCH
    fix = f"the rate stays as given; in proportion to the batch it were optim.lr={scaled:.3g}"
    return [Finding("info", title, evidence, fix)]


def _short(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
