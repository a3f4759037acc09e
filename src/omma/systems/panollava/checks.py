"""What `omma doctor` checks about panoramas and their tables: each function returns findings."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.core import ptb
from omma.data.formats.quic360 import Question, Table, grouped_questions, pictures, single_questions
from omma.data.io import image_size, read_bytes, read_image
from omma.errors import DataError, Finding
from omma.systems.panollava.samples import Talk, check_aspect, directed

Picture = NDArray[np.uint8]

SEAM_RATIO = 1.5  # of the step across the seam to the largest usual step between columns
_LARGEST_USUAL = 0.99  # quantile
_CUT_SHARE = 0.01
_GUESSED = 0.5
_NAMED = 3


def check_table(table: Table) -> list[Finding]:
    """What a table holds, and rows that lack something or say the same twice."""
    rows = table.rows
    findings = [
        Finding(
            "ok",
            f"{table.file.name} has {len(rows)} rows",
            f"{len(pictures(rows))} panoramas, {len(grouped_questions(rows))} questions, columns "
            f"{', '.join(table.columns.values())}",
        )
    ]
    lacks = {"picture": list(table.pictureless)}
    for name, column in (("question", "query"), ("answer", "annotation")):
        if column in table.columns:
            lacks[name] = [row.number for row in rows if not getattr(row, column)]
    for name, numbers in lacks.items():
        if numbers:
            findings.append(
                Finding(
                    "warning",
                    f"{table.file.name}: {len(numbers)} rows have no {name}",
                    f"rows {_some(numbers)}",
                    "they are left out" if name != "answer" else "they are left out of training",
                )
            )
    repeated = len([r for r in rows if r.query and r.annotation]) - len(single_questions(rows))
    if repeated:
        findings.append(
            Finding("info", f"{table.file.name}: {repeated} rows repeat another", fix="they count once")
        )
    return findings


def check_files(images: Sequence[Path]) -> list[Finding]:
    """Whether panoramas exist, can be opened and are twice as wide as high; reads headers only."""
    missing, bad, partial = [], [], []
    for image in images:
        if not image.is_file():
            missing.append(str(image))
            continue
        try:
            size = image_size(image)
        except DataError as error:
            bad.append(error.message)
            continue
        try:
            check_aspect(image, size)
        except DataError as error:
            partial.append(error.message)
    findings = []
    if missing:
        fix = "set data.image_root to the folder that the table's paths start from, or fetch the pictures"
        findings.append(_problem(missing, images, "are missing", fix))
    if bad:
        findings.append(_problem(bad, images, "cannot be opened", "copy them again or remove their rows"))
    if partial:
        fix = "longitudes are wrong in partial panoramas: pad them to 360 x 180 degrees or remove their rows"
        findings.append(_problem(partial, images, "are no whole panoramas", fix))
    return findings or [Finding("ok", f"{len(images)} panoramas are there, twice as wide as high")]


def _problem(cases: Sequence[str], images: Sequence[Path], what: str, fix: str) -> Finding:
    return Finding("error", f"{len(cases)} of {len(images)} panoramas {what}", _some(cases), fix)


def seam_ratio(panorama: Picture) -> float:
    """Step from the last to the first column over the largest usual step between columns.

    Args:
        panorama: (H, W, 3).

    Returns:
        mostly below 1 where the edges join, 1.7 and more where photographs were cropped.
    """
    columns = panorama.astype(np.float32)
    seam = float(np.abs(columns[:, 0] - columns[:, -1]).mean())
    steps = np.abs(np.diff(columns, axis=1)).mean((0, 2))
    return seam / max(float(np.quantile(steps, _LARGEST_USUAL)), 1.0)


def check_seams(images: Sequence[Path]) -> list[Finding]:
    """Whether the left and right edges of panoramas join; unreadable files are not judged."""
    torn, judged = [], 0
    for image in images:
        try:
            ratio = seam_ratio(read_image(image))
        except DataError:
            continue
        judged += 1
        if ratio > SEAM_RATIO:
            torn.append(f"{image} ({ratio:.1f} times the largest usual step)")
    if torn:
        return [
            Finding(
                "warning",
                f"the edges of {len(torn)} of {judged} panoramas do not join",
                _some(torn),
                "a panorama that was cropped or is no full circle: views across its edge show a break",
            )
        ]
    return [Finding("ok", f"the edges of {judged} panoramas join")] if judged else []


def check_splits(tables: Mapping[str, Table]) -> list[Finding]:
    """Whether a panorama, by path or by content, is in more than one split.

    Args:
        tables: by split.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, table in tables.items():
        for question in pictures(table.rows):
            if question.image.is_file():
                by_size[question.image.stat().st_size].append((split, question.image))
    shared = []
    for group in by_size.values():
        if len({split for split, _ in group}) < 2:
            continue
        same: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        for split, image in group:
            same[hashlib.sha256(read_bytes(image)).hexdigest()].append((split, image))
        shared += [found for found in same.values() if len({split for split, _ in found}) > 1]
    if not shared:
        return [Finding("ok", f"no panorama is in two of: {', '.join(tables)}")]
    cases = [" = ".join(f"{image} ({split})" for split, image in found) for found in shared]
    return [
        Finding(
            "error",
            f"{len(shared)} panoramas are in several splits",
            _some(cases),
            "take them out of all but one: scores on pictures seen in training mean nothing",
        )
    ]


def check_directions(questions: Sequence[Question], *, random_yaw: bool) -> list[Finding]:
    """How many questions keep their panorama from being turned in training."""
    fixed = sum(directed(question) for question in questions)
    if not questions or not random_yaw:
        return []
    return [
        Finding(
            "info",
            f"{fixed} of {len(questions)} questions speak of a direction",
            "their panoramas are not turned by data.random_yaw",
        )
    ]


def check_lengths(questions: Sequence[Question], talk: Talk, max_length: int) -> list[Finding]:
    """Whether answers are cut off at the recipe's length; looks at the first reference of each question."""
    answered = [question for question in questions if question.references]
    cut = sum(talk.encode(question.query, question.references[0]).cut > 0 for question in answered)
    if cut <= _CUT_SHARE * len(answered):
        return []
    return [
        Finding(
            "warning",
            f"{cut} of {len(answered)} answers are cut off",
            f"prompt and answer are longer than system.text.max_length={max_length}",
            f"system.text.max_length={2 * max_length}",
        )
    ]


def question_only(train: Sequence[Question], test: Sequence[Question]) -> float:
    """Share of questions that the most frequent training answer to the same question answers exactly.

    Args:
        train: with answers.
        test: with answers; an answer counts that has the words of any reference.

    Returns:
        the share of the test questions, NaN without any; a question that training does not have is wrong.
    """
    counts: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for question in train:
        counts[question.query].update(tuple(ptb.words(text)) for text in question.references)
    answered = [question for question in test if question.references]
    right = [
        counts[question.query].most_common(1)[0][0]
        in {tuple(ptb.words(text)) for text in question.references}
        for question in answered
        if question.query in counts
    ]
    return sum(right) / len(answered) if answered else float("nan")


def check_guessing(train: Sequence[Question], test: Sequence[Question]) -> list[Finding]:
    """How far the question alone leads."""
    share = question_only(train, test)
    if np.isnan(share):
        return []
    easy = share > _GUESSED
    return [
        Finding(
            "warning" if easy else "info",
            f"the question alone answers {share:.0%} exactly",
            f"most frequent training answer, {len(test)} questions",
            "exact match says little about seeing; compare with this number" if easy else "",
        )
    ]


def _some(cases: Sequence[object]) -> str:
    rest = len(cases) - _NAMED
    return ", ".join(str(case) for case in cases[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
