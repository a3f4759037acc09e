"""`omma doctor panollava/...`: are tables, panoramas, answers and towers there, whole, and do they fit?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from omma.data.formats.quic360 import Question, Table, grouped_questions, pictures, single_questions
from omma.errors import DataError, Finding, OmmaError
from omma.systems.data_checks import as_finding, check_overlap, read_splits, some
from omma.systems.panollava.checks import (
    check_directions,
    check_files,
    check_guessing,
    check_lengths,
    check_references,
    check_seams,
    check_splits,
    check_table,
    usable,
)
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.data import read_split, split_file
from omma.systems.panollava.samples import PanoSamples
from omma.systems.panollava.setting_checks import check_towers, check_views
from omma.systems.panollava.sheet import draw_sheet
from omma.systems.panollava.text import build_conversation, load_tokenizer
from omma.viz.image import save_png

SHEET = "panollava_views.png"
NUM_READ, NUM_SHOWN = 16, 4
_TEST = "test"
_Item = TypeVar("_Item")


def check(config: PanoConfig, out: Path | None) -> list[Finding]:
    """Everything that can be wrong with a recipe's data, and whether its towers are there.

    Args:
        config: the recipe.
        out: folder for a sheet of the views that the network is fed; none draws none.

    Returns:
        findings in the order of checking; without any table it ends with the settings.
    """
    towers = check_towers(config)
    findings, tables = _tables(config)
    for split, table in tables.items():
        findings += check_table(table)
        findings += _columns(config, split, table)
        findings += check_references(table) if config.system.stage != "vision" else []
    for split, table in tables.items():
        findings += _panoramas(split, table)
    findings += _overlap(config, tables)
    findings += _texts(config, tables, towers)
    if out is not None:
        findings += _sheet(config, tables, out)
    return [*findings, *towers, *check_views(config)]


def _tables(config: PanoConfig) -> tuple[list[Finding], dict[str, Table]]:
    """The tables that are trained and validated with, and one for the test if it lies beside them."""
    findings, tables = read_splits(config.data, lambda split: read_split(config.data, split))
    try:
        file = split_file(config.data, _TEST)
        if all(table.file != file for table in tables.values()):
            tables[_TEST] = read_split(config.data, _TEST)
    except DataError:
        pass  # nobody asked for it
    return findings, tables


def _columns(config: PanoConfig, split: str, table: Table) -> list[Finding]:
    """Columns that the stage cannot do without."""
    if config.system.stage == "vision":
        return []
    wanted = ("query", "annotation") if split == config.data.train_split else ("query",)
    try:
        table.require(*wanted)
    except DataError as error:
        return [as_finding(error)]
    if split == config.data.val_split and "annotation" not in table.columns:
        title = f"{table.file.name} has no answers, so there is no loss to choose the best checkpoint by"
        fix = "name the column of answers annotation, or give another data.val_csv"
        return [Finding("error", title, f"{len(table.rows)} rows", fix)]
    return []


def _panoramas(split: str, table: Table) -> list[Finding]:
    """Files of all panoramas by their headers, and some of them by their content."""
    images = sorted({question.image for question in pictures(table.rows)})
    found = [*check_files(images), *check_seams(some(usable(images), NUM_READ))]
    return [
        Finding(one.severity, f"{split}: {one.title}", one.evidence, one.fix, one.figure) for one in found
    ]


def _overlap(config: PanoConfig, tables: Mapping[str, Table]) -> list[Finding]:
    """Panoramas that are trained on and scored with."""
    data = config.data
    chosen = {table.file.resolve() for split, table in tables.items() if split != _TEST}
    if (
        data.train_split != data.val_split
        and len(chosen) == 1
        and {data.train_split, data.val_split} <= set(tables)
    ):
        fix = "set data.val_csv to another table; scores on what was trained on say little"
        return [Finding("warning", "training and validation are the same table", "", fix)]
    if data.train_split == data.val_split:
        return check_overlap(data, tables, "panoramas", lambda train, val: [])
    return check_splits(tables) if len(tables) > 1 else []


def _texts(config: PanoConfig, tables: Mapping[str, Table], towers: Sequence[Finding]) -> list[Finding]:
    """Questions and answers: their length in tokens, directions, and how far guessing leads."""
    train = tables.get(config.data.train_split)
    if config.system.stage == "vision" or train is None:
        return []
    questions = single_questions(train.rows)
    findings = check_directions(questions, random_yaw=config.data.random_yaw)
    try:
        talk = build_conversation(config.system.text, load_tokenizer(config.system.language))
        findings += check_lengths(questions, talk, config.system.text.max_length)
    except OmmaError as error:
        absent = any(one.severity == "warning" and "language" in one.title for one in towers)
        away = Finding("info", "the length of answers is not measured", "the tokenizer is not here yet")
        findings.append(away if absent else as_finding(error))
    val = tables.get(config.data.val_split)
    if val is not None and val is not train and questions:
        findings += check_guessing(questions, grouped_questions(val.rows))
    return findings


def _sheet(config: PanoConfig, tables: Mapping[str, Table], out: Path) -> list[Finding]:
    """Views of some panoramas as training gives them: as they are, and turned."""
    table = tables.get(config.data.train_split) or next(iter(tables.values()), None)
    if table is None:
        return []
    asked: dict[Path, list[Question]] = defaultdict(list)
    for question in (*single_questions(table.rows), *pictures(table.rows)):
        asked[question.image].append(question)
    images = some(usable(sorted(asked)), NUM_SHOWN)
    chosen = [asked[image][place % len(asked[image])] for place, image in enumerate(images)]
    turned = PanoSamples(chosen, config.data, None, augment=True)
    turned.seed = config.seed
    try:
        samples = [turned[index] for index in range(len(chosen))]
    except DataError:
        return []  # the panoramas' own finding says why
    if not samples:
        return []
    save_png(out / SHEET, draw_sheet(samples, turned.cutter.settings))
    look_at = "views must stand upright, follow one another to the right, and fit question and answer"
    return [Finding("info", "sheet of what the network is fed", "", look_at, str(out / SHEET))]
