"""Questions about panoramas of a recipe's data set, or a user's own panoramas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omma.data.formats.quic360 import (
    Question,
    Table,
    find_table,
    grouped_questions,
    pictures,
    read_table,
    single_questions,
)
from omma.data.root import find_root, ways
from omma.errors import DataError, UsageError
from omma.systems.panollava.config import PanoConfig, PanoData
from omma.systems.panollava.samples import Collate, PanoSamples
from omma.systems.panollava.text import build_conversation, load_tokenizer

DEFAULT_QUERY = "Describe this panorama."
_SYSTEM = ("panollava", "quic360")
_TABLES = (".csv", ".tsv")


def build(config: PanoConfig, split: str, *, augment: bool) -> tuple[PanoSamples, Collate]:
    """One split of the recipe's data.

    Stage vision has each panorama once. Training otherwise has a sample for each row with an answer;
    evaluation one for each panorama and question, with all its references.

    Args:
        config: the recipe.
        split: "train", "val" or what else has a table, such as "test".
        augment: training.

    Raises:
        DataError: a table, a column or every answer is missing.
    """
    table = read_split(config.data, split)
    if config.system.stage == "vision":
        return _samples(config, pictures(table.rows), augment=augment, tables=[table.file])
    table.require("query", "annotation") if augment else table.require("query")
    questions = single_questions(table.rows) if augment else grouped_questions(table.rows)
    if not questions:
        raise DataError(
            f"{table.file}: none of its {len(table.rows)} rows has a "
            f"{'question with an answer' if augment else 'question'}",
            "fill the columns, or train stage vision, which needs pictures only",
        )
    return _samples(config, questions, augment=augment, tables=[table.file])


def build_inputs(config: PanoConfig, files: Sequence[Path]) -> tuple[PanoSamples, Collate]:
    """The user's own panoramas, for prediction.

    Args:
        config: the recipe.
        files: pictures, each with its question in a text file of its name beside it (`street.txt`), else
            asked to be described; or tables.

    Raises:
        DataError: a file is missing or wrong.
        UsageError: there is none.
    """
    if not files:
        raise UsageError("no panorama is named", "give pictures, or a table of pictures and questions")
    questions = [question for file in files for question in _asked(config.data, file)]
    return _samples(config, questions, augment=False)


def read_split(data: PanoData, split: str) -> Table:
    """The table of a split.

    Raises:
        DataError: it is missing or wrong, with the ways to set or make one.
    """
    file = split_file(data, split)
    return read_table(file, Path(data.image_root).expanduser() if data.image_root else None)


def split_file(data: PanoData, split: str) -> Path:
    """Where the table of a split lies; a split may also be the path of a table.

    Raises:
        DataError: it is set nowhere, or not there.
    """
    if Path(split).suffix.lower() in _TABLES and Path(split).is_file():
        return Path(split)
    keys = {"train": "train_csv", data.train_split: "train_csv"}
    keys |= dict.fromkeys(("val", "valid", data.val_split), "val_csv")
    named = getattr(data, keys[split]) if split in keys else None
    if named is not None:
        file = Path(named).expanduser()
        under = Path(data.root).expanduser() / file if data.root else file
        found = next((place for place in (file, under) if place.is_file()), None)
        if found is None:
            raise DataError(f"{named}: no such file (data.{keys[split]})", ways(*_SYSTEM))
        return found
    return find_table(find_root(data, *_SYSTEM), split)


def _asked(data: PanoData, file: Path) -> list[Question]:
    if file.suffix.lower() in _TABLES:
        rows = read_table(file, Path(data.image_root).expanduser() if data.image_root else None).rows
        questions = [row if row.query else replace(row, query=DEFAULT_QUERY) for row in rows]
        return grouped_questions(questions)
    beside = file.with_suffix(".txt")
    query = beside.read_text(encoding="utf-8-sig").strip() if beside.is_file() else ""
    return [Question(file.name, file, query or DEFAULT_QUERY, ())]


def _samples(
    config: PanoConfig, questions: Sequence[Question], *, augment: bool, tables: Sequence[Path] = ()
) -> tuple[PanoSamples, Collate]:
    if config.system.stage == "vision":
        return PanoSamples(questions, config.data, None, augment=augment, tables=tables), Collate(None)
    talk = build_conversation(config.system.text, load_tokenizer(config.system.language))
    samples = PanoSamples(questions, config.data, talk, augment=augment, tables=tables)
    return samples, Collate(talk.pad_id)
