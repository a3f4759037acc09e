"""`omma doctor sdpose/...`: are annotations, photos and boxes there, whole, and the right way round?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omma.core.keypoint_meter import GROUND_TRUTH
from omma.data.formats.coco import CocoKeypoints, CocoSplit, find_split, read_keypoints
from omma.errors import DataError, Finding, OmmaError
from omma.systems.sdpose.boxes import People, annotated_people, detected_people
from omma.systems.sdpose.checks import (
    check_boxes,
    check_counts,
    check_detections,
    check_distillation,
    check_doubles,
    check_joints,
    check_rate,
    check_sides,
)
from omma.systems.sdpose.config import SDPoseConfig
from omma.systems.sdpose.data import data_root, find_boxes
from omma.systems.sdpose.samples import PersonSamples
from omma.systems.sdpose.sheet import draw_sheet
from omma.viz.image import save_png

SHEET = "sdpose_crops.png"
NUM_READ, NUM_SHOWN, NUM_CHANGES = 32, 4, 4


def check(config: SDPoseConfig, out: Path | None) -> list[Finding]:
    """Everything that can be wrong with a recipe's data, and what is unusual about its settings.

    Args:
        config: the recipe.
        out: folder for a sheet of crops with joints and targets; none draws none.

    Returns:
        findings in the order of checking; without the data set's folder it ends there.
    """
    settings = [*check_rate(config), *check_distillation(config)]
    try:
        root = data_root(config.data)
    except DataError as error:
        return [*settings, _as_finding(error)]
    findings: list[Finding] = []
    found: dict[str, CocoKeypoints] = {}
    people: dict[str, People] = {}
    for split in dict.fromkeys((config.data.train_split, config.data.val_split)):
        try:
            files = find_split(root, split)
            found[split] = read_keypoints(files.annotations)
            people[split] = annotated_people(found[split], files.images)
        except DataError as error:
            findings.append(_as_finding(error))
            continue
    for split, annotated in found.items():
        findings += _annotations(split, annotated)
    findings += _scored(config, found, root)
    findings += _overlap(config, found)
    for split, persons in people.items():
        findings += _photos(split, PersonSamples(persons, config.data, augment=False))
    if out is not None and people:
        findings += _sheet(next(iter(people.values())), config, out)
    return [*findings, *settings]


def _as_finding(error: OmmaError) -> Finding:
    return Finding("error", error.message, "", error.hint or "")


def _annotations(split: str, found: CocoKeypoints) -> list[Finding]:
    """What the annotations of a split say."""
    truth = found.truth
    order = truth.image_ids.argsort()
    sizes = found.sizes[order[np.searchsorted(truth.image_ids, truth.image_id, sorter=order)]]
    if not truth.labelled.any():
        return []
    return [
        check_counts(split, truth, found.skipped),
        *check_boxes(split, truth, sizes),
        *check_joints(split, truth, sizes),
        check_doubles(split, truth),
        check_sides(split, truth),
    ]


def _scored(config: SDPoseConfig, found: Mapping[str, CocoKeypoints], root: Path) -> list[Finding]:
    """Whether the validation can be scored, and with whose boxes."""
    split, data = config.data.val_split, config.data
    if split not in found:
        return []
    try:
        found[split].require_areas()
        if data.boxes == GROUND_TRUTH or split == data.train_split:
            evidence = "scores with a detector's boxes are lower and do not compare: data.boxes=FILE"
            return [Finding("ok", f"{split} is scored with annotated boxes", evidence)]
        files: CocoSplit = find_split(root, split)
        file = find_boxes(data.boxes, root)
        detected = detected_people(found[split], files.images, file, smallest_score=data.box_score)
    except DataError as error:
        return [_as_finding(error)]
    of_detector = (detected.boxes, detected.image_ids, detected.scores)
    return [check_detections(split, found[split].truth, *of_detector)]


def _overlap(config: SDPoseConfig, found: Mapping[str, CocoKeypoints]) -> list[Finding]:
    """Images that are trained on and validated with."""
    train, val = config.data.train_split, config.data.val_split
    if train == val:
        fix = "set data.val_split to another split; scores on what was trained on say little"
        return [Finding("warning", f"training and validation are the same split {train}", "", fix)]
    if set(found) != {train, val}:
        return []
    images = [_with_people(found[split]) for split in (train, val)]
    shared = sorted(images[0] & images[1])
    if not shared:
        return [Finding("ok", f"no image of {val} is in {train}")]
    identity, name = shared[0]
    title = f"{len(shared)} images of {val} are in {train} too"
    fix = f"take them out of {train}"
    return [Finding("error", title, f"first: {name}, image {identity}", fix)]


def _with_people(found: CocoKeypoints) -> set[tuple[int, str]]:
    """Id and file name of the images with people."""
    known = set(found.truth.image_id[found.truth.labelled].tolist())
    pairs = zip(found.truth.image_ids.tolist(), found.names, strict=True)
    return {(identity, Path(name).name) for identity, name in pairs if identity in known}


def _photos(split: str, samples: PersonSamples) -> list[Finding]:
    """Whether some photos can be read and are of the annotated size."""
    places = np.unique(np.linspace(0, len(samples) - 1, min(NUM_READ, len(samples))).round().astype(int))
    errors = []
    for place in places.tolist():
        try:
            samples.photo(place)
        except DataError as error:
            errors.append(error)
    if errors:
        evidence = f"{len(errors)} of {len(places)} photos looked at in {split} cannot be used"
        return [Finding("error", errors[0].message, evidence, errors[0].hint or "")]
    number = len(samples.people.files)
    return [Finding("ok", f"{split}: {number} photos of people are there", f"{len(places)} read, all whole")]


def _sheet(people: People, config: SDPoseConfig, out: Path) -> list[Finding]:
    """Crops of some people, as they are and changed."""
    plain = PersonSamples(people, config.data, augment=False)
    changed = PersonSamples(people, config.data, augment=True)
    plain.seed = changed.seed = config.seed
    counts = (people.joints[..., 2] > 0).sum(-1)
    order = np.argsort(-counts, kind="stable")[: max(NUM_SHOWN, len(counts) // 2)]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(NUM_SHOWN, len(order))).round().astype(int))]
    try:
        rows = [
            (plain[index], [changed[epoch, index] for epoch in range(NUM_CHANGES)])
            for index in chosen.tolist()
        ]
    except DataError:
        return []  # the photos' own finding says why
    save_png(out / SHEET, draw_sheet(rows, config.data.target))
    look_at = "joints must lie on the people in all crops, blue ones on their own left"
    return [Finding("info", "sheet of what the network is fed", "", look_at, str(out / SHEET))]
