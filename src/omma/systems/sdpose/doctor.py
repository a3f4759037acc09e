"""`omma doctor sdpose/...`: are annotations, photos and boxes there, whole, and the right way round?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from omma.core.keypoint_meter import GROUND_TRUTH
from omma.data.formats.coco import CocoKeypoints, CocoSplit, find_split, read_keypoints
from omma.errors import DataError, Finding
from omma.systems.data_checks import as_finding, check_files, check_overlap, read_splits, some
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
        return [as_finding(error), *settings]
    findings, splits = read_splits(
        config.data, lambda split: read_keypoints(find_split(root, split).annotations)
    )
    people: dict[str, PersonSamples] = {}
    for split, found in splits.items():
        findings += _annotations(split, found)
        try:
            persons = annotated_people(found, find_split(root, split).images)
        except DataError as error:
            findings.append(as_finding(error))
            continue
        people[split] = PersonSamples(persons, config.data, augment=False)
        findings.append(_photos(split, people[split]))
    findings += check_overlap(config.data, splits, "images", partial(_shared, splits))
    findings += _scored(config, splits, root)
    if out is not None and people:
        findings += _sheet(next(iter(people.values())).people, config, out)
    return [*findings, *settings]


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
        return [as_finding(error)]
    of_detector = (detected.boxes, detected.image_ids, detected.scores)
    return [check_detections(split, found[split].truth, *of_detector)]


def _shared(splits: Mapping[str, CocoKeypoints], train: str, val: str) -> list[str]:
    """Images with people of both splits."""
    both = _with_people(splits[train]) & _with_people(splits[val])
    return [f"{name}, image {identity}" for identity, name in sorted(both)]


def _with_people(found: CocoKeypoints) -> set[tuple[int, str]]:
    """Id and file name of the images with people."""
    known = set(found.truth.image_id[found.truth.labelled].tolist())
    pairs = zip(found.truth.image_ids.tolist(), found.names, strict=True)
    return {(identity, Path(name).name) for identity, name in pairs if identity in known}


def _photos(split: str, samples: PersonSamples) -> Finding:
    """Whether the photos are there, and some of them can be read and are of the annotated size."""
    found = check_files(split, samples.people.files, "photos of people")
    if found.severity != "ok":
        return found
    places = some(range(len(samples)), NUM_READ)
    errors = []
    for place in places:
        try:
            samples.photo(place)
        except DataError as error:
            errors.append(error)
    if errors:
        evidence = f"{len(errors)} of {len(places)} photos looked at in {split} cannot be used"
        return as_finding(errors[0], evidence)
    return replace(found, evidence=f"{found.evidence}; {len(places)} read, all whole")


def _sheet(people: People, config: SDPoseConfig, out: Path) -> list[Finding]:
    """Crops of some people, as they are and changed."""
    plain = PersonSamples(people, config.data, augment=False)
    changed = PersonSamples(people, config.data, augment=True)
    plain.seed = changed.seed = config.seed
    counts = (people.joints[..., 2] > 0).sum(-1)
    order = np.argsort(-counts, kind="stable")[: max(NUM_SHOWN, len(counts) // 2)]
    chosen = some(order.tolist(), NUM_SHOWN)
    try:
        rows = [(plain[index], [changed[epoch, index] for epoch in range(NUM_CHANGES)]) for index in chosen]
    except DataError:
        return []  # the photos' own finding says why
    save_png(out / SHEET, draw_sheet(rows, config.data.target))
    look_at = "joints must lie on the people in all crops, blue ones on their own left"
    return [Finding("info", "sheet of what the network is fed", "", look_at, str(out / SHEET))]
