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
from omma.systems.panollava.samples import Talk, check_aspect
from omma.systems.panollava.turns import directed

Picture = NDArray[np.uint8]

SEAM_RATIO = 1.5  # of the step across the seam to the largest usual step between columns
TORN_ROWS = 0.5  # share of rows that break there
_LARGEST_USUAL, _LARGE_IN_ROW = 0.99, 0.9  # quantiles
_CUT_SHARE = 0.01
_GUESSED = 0.5
_NAMED = 3
_AGAIN = "copy them again or remove their rows"


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


def check_references(table: Table) -> list[Finding]:
    """How many answers people gave to a question, which scores with one reference and with all depend on."""
    questions = grouped_questions(table.rows)
    counts = [len(question.references) for question in questions if question.references]
    if not counts:
        return []
    rows, mean = sum(counts), sum(counts) / len(counts)
    several = sum(count > 1 for count in counts)
    return [
        Finding(
            "info",
            f"{table.file.name}: {mean:.2f} references a question",
            f"{rows} answers to {len(counts)} pairs of panorama and question, {several} with several; "
            "evaluation answers each pair once and scores with all, single_ref_rows/ as published",
        )
    ]


def check_files(images: Sequence[Path]) -> list[Finding]:
    """Whether panoramas exist, can be opened and are twice as wide as high; reads headers only."""
    problems: dict[str, list[str]] = defaultdict(list)
    for image in images:
        kind, message = _header_problem(image) or ("", "")
        problems[kind].append(message)
    fixes = {
        "are missing": "set data.image_root to the folder that the table's paths start from, or fetch them",
        "cannot be opened": _AGAIN,
        "are no whole panoramas": "longitudes are wrong in partial ones: pad them to 360 x 180 degrees or "
        "remove their rows",
    }
    findings = [
        _problem(problems[kind], images, kind, fix) for kind, fix in fixes.items() if problems.get(kind)
    ]
    return findings or [Finding("ok", f"{len(images)} panoramas are there, twice as wide as high")]


def usable(images: Sequence[Path]) -> list[Path]:
    """Those that `check_files` has nothing against."""
    return [image for image in images if _header_problem(image) is None]


def _header_problem(image: Path) -> tuple[str, str] | None:
    """What is wrong with a panorama, and with which; None for a sound one."""
    if not image.is_file():
        return "are missing", str(image)
    try:
        size = image_size(image)
    except DataError as error:
        return "cannot be opened", error.message
    try:
        check_aspect(image, size)
    except DataError as error:
        return "are no whole panoramas", error.message
    return None


def _problem(cases: Sequence[str], images: Sequence[Path], what: str, fix: str) -> Finding:
    return Finding("error", f"{len(cases)} of {len(images)} panoramas {what}", _some(cases), fix)


def seam_ratio(panorama: Picture) -> float:
    """Step from the last to the first column over the largest usual step between columns.

    Args:
        panorama: (H, W, 3).

    Returns:
        mostly below 1 where the edges join.
    """
    steps = _steps(panorama).mean(0)
    return float(steps[-1]) / max(float(np.quantile(steps[:-1], _LARGEST_USUAL)), 1.0)


def torn_rows(panorama: Picture) -> float:
    """Share of rows whose step across the seam is larger than nine tenths of their own steps.

    An edge of the scene that happens to lie on the seam breaks some rows, a cropped photograph most of them.

    Args:
        panorama: (H, W, 3).
    """
    steps = _steps(panorama)
    large = np.maximum(np.quantile(steps[:, :-1], _LARGE_IN_ROW, axis=1), 1.0)
    return float((steps[:, -1] > large).mean())


def _steps(panorama: Picture) -> NDArray[np.float32]:
    """Mean difference of each pixel from its right neighbour; (H, W), the last column across the seam."""
    pixels = panorama.astype(np.float32)
    steps: NDArray[np.float32] = np.abs(np.roll(pixels, -1, axis=1) - pixels).mean(2)
    return steps


def _is_torn(panorama: Picture) -> bool:
    return seam_ratio(panorama) > SEAM_RATIO and torn_rows(panorama) > TORN_ROWS


def check_seams(images: Sequence[Path]) -> list[Finding]:
    """Whether panoramas can be read to their end, and their left and right edges join."""
    torn, bad = [], []
    for image in images:
        try:
            panorama = read_image(image)
        except DataError as error:
            bad.append(error.message)
            continue
        if _is_torn(panorama):
            torn.append(f"{image} ({torn_rows(panorama):.0%} of its rows break there)")
    findings = [_problem(bad, images, "looked at are damaged", _AGAIN)] * bool(bad)
    judged = len(images) - len(bad)
    if torn:
        findings.append(
            Finding(
                "warning",
                f"the edges of {len(torn)} of {judged} panoramas do not join",
                _some(torn),
                "a panorama that was cropped or is no full circle: views across its edge show a break",
            )
        )
    elif judged:
        findings.append(Finding("ok", f"the edges of {judged} panoramas join"))
    return findings


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
    examples = [
        talk.encode(question.query, question.references[0]) for question in questions if question.references
    ]
    if not examples:
        return []
    lengths = [len(example.input_ids) + example.cut for example in examples]
    cut = sum(example.cut > 0 for example in examples)
    if cut <= _CUT_SHARE * len(examples):
        evidence = (
            f"the longest of {len(examples)} has {max(lengths)} tokens with its prompt, {cut} are cut off"
        )
        return [Finding("ok", f"answers fit into system.text.max_length={max_length}", evidence)]
    needed = int(np.quantile(lengths, 1 - _CUT_SHARE, method="higher"))
    return [
        Finding(
            "warning",
            f"{cut} of {len(examples)} answers are cut off",
            f"longer with their prompt than system.text.max_length={max_length}; 99% have at most {needed}",
            f"system.text.max_length={needed}",
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
