"""Tables of panoramas with questions and answers: CSV or TSV, as QuIC-360 and PanoLLaVA have them.

A header names the columns: `url` (or image, image_path, file_name), `query` (or original_query, prompt,
instruction, question) and `annotation` (or response, reference, caption, answer). Several rows with the same
picture and question are several references. Questions and answers may be missing where they are not needed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

from omma.data.io import read_bytes
from omma.errors import DataError

COLUMNS = {
    "url": ("url", "image", "image_path", "file_name"),
    "query": ("query", "original_query", "prompt", "instruction", "question"),
    "annotation": ("annotation", "response", "reference", "caption", "answer"),
}
SPLITS = {"train": ("train",), "val": ("valid", "val"), "valid": ("valid", "val")}
_SUFFIXES = (".csv", ".tsv")
_LONGEST_FIELD = 1 << 24


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        number: of the row as a table program counts, the header being row 1.
        table: the file.
        image: the panorama's file.
        query: the question, empty where there is none.
        annotation: the answer, empty where there is none.
    """

    number: int
    table: Path
    image: Path
    query: str
    annotation: str


@dataclass(frozen=True)
class Table:
    """A file's rows.

    Args:
        file: where it lies.
        columns: "url", "query" and "annotation" -> the header's name; those that are there.
        rows: all rows that name a picture, in order.
        pictureless: numbers of the rows that name none; they are left out.
    """

    file: Path
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    pictureless: tuple[int, ...]

    def require(self, *names: str) -> None:
        """Make sure that the table has these columns.

        Raises:
            DataError: naming the column that is missing and those that are there.
        """
        for name in names:
            if name not in self.columns:
                raise DataError(
                    f"{self.file}: has no column {name} ({len(self.rows)} rows; columns "
                    f"{', '.join(self.columns.values())})",
                    f"name the column one of: {', '.join(COLUMNS[name])}",
                )


@dataclass(frozen=True)
class Question:
    """One question about one panorama.

    Args:
        token: table and row, for messages: "test.csv:12".
        image: the panorama's file.
        query: the question.
        references: the answers that people gave, each once; none where nobody was asked.
    """

    token: str
    image: Path
    query: str
    references: tuple[str, ...]


def find_table(root: Path, split: str) -> Path:
    """The table of a split: train.csv, valid.csv (or val.csv), or `split`.csv; .tsv likewise.

    Raises:
        DataError: there is none, with the names that were looked for.
    """
    names = [f"{name}{suffix}" for name in SPLITS.get(split, (split,)) for suffix in _SUFFIXES]
    file = next((root / name for name in names if (root / name).is_file()), None)
    if file is None:
        there = sorted(path.name for path in root.glob("*.[ct]sv"))
        raise DataError(
            f"{root}: has none of {', '.join(names)}; tables there: {', '.join(there) or 'none'}",
            "give another data.root, or the file itself in data.train_csv or data.val_csv",
        )
    return file


def read_table(file: Path, image_root: Path | None = None) -> Table:
    """The rows of a table.

    Args:
        file: CSV, or TSV by its suffix or a header with tabs and no commas; UTF-8 with or without mark.
        image_root: where relative paths start, default the table's folder; a path that leads nowhere there
            but is right from the working folder is taken so. Of a web address the last part counts.

    Raises:
        DataError: the file is missing, no text, has no column of pictures or a row of another length.
    """
    records = _records(file)
    header = next(records, None)
    if header is None:
        raise DataError(f"{file}: has no header", f"its first row names columns: {', '.join(COLUMNS)}")
    places = _places(header[1])
    columns = {name: header[1][place].strip() for name, place in places.items()}
    if "url" not in columns:
        count = sum(1 for _ in records)
        raise DataError(
            f"{file}: has no column url ({count} rows; columns {', '.join(header[1])})",
            f"name the column one of: {', '.join(COLUMNS['url'])}",
        )
    base = file.parent if image_root is None else image_root
    rows, pictureless = [], []
    for number, fields in records:
        if len(fields) != len(header[1]):
            raise DataError(
                f"{file}, row {number}: has {len(fields)} fields, the header has {len(header[1])}",
                "put quotation marks around fields that hold commas, line breaks or quotation marks",
            )
        texts = {name: fields[place].strip() for name, place in places.items()}
        if texts["url"]:
            image = locate(texts["url"], base)
            rows.append(Row(number, file, image, texts.get("query", ""), texts.get("annotation", "")))
        else:
            pictureless.append(number)
    if not rows:
        raise DataError(f"{file}: has no row with a picture")
    return Table(file, columns, tuple(rows), tuple(pictureless))


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each row that is not blank, the header first."""
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise DataError(f"{file}, line {line}: not UTF-8 text", "save the table as UTF-8") from None
    head = text.partition("\n")[0]
    tabs = file.suffix.lower() == ".tsv" or ("\t" in head and "," not in head)
    csv.field_size_limit(_LONGEST_FIELD)
    number = 0
    try:
        for number, fields in enumerate(
            csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", strict=True), 1
        ):
            if any(field.strip() for field in fields):
                yield number, fields
    except csv.Error as error:
        raise DataError(
            f"{file}, row {number + 1}: not a valid table ({error})",
            "a quotation mark inside a field is written twice, and the field is quoted",
        ) from None


def _places(header: Sequence[str]) -> dict[str, int]:
    """Column name -> place; of several names for one thing the first of `COLUMNS` counts."""
    there = {name.strip().lower(): place for place, name in reversed(list(enumerate(header)))}
    found = {}
    for column, names in COLUMNS.items():
        place = next((there[name] for name in names if name in there), None)
        if place is not None:
            found[column] = place
    return found


def locate(text: str, base: Path) -> Path:
    """The file that a table means; see `read_table`."""
    if text.lower().startswith(("http://", "https://")):
        return base / unquote(urlsplit(text).path.rpartition("/")[2])
    path = Path(PureWindowsPath(text).as_posix() if "\\" in text else text).expanduser()
    if path.is_absolute():
        return path
    beside = base / path
    return path if not beside.exists() and path.exists() else beside


def single_questions(rows: Iterable[Row]) -> list[Question]:
    """A question for each row with an answer, for training; rows that say the same twice count once."""
    seen = set()
    found = []
    for row in rows:
        key = (row.image, row.query, row.annotation)
        if row.query and row.annotation and key not in seen:
            seen.add(key)
            found.append(Question(_token(row), row.image, row.query, (row.annotation,)))
    return found


def grouped_questions(rows: Iterable[Row]) -> list[Question]:
    """A question for each picture and query with all its references, for evaluation."""
    first: dict[tuple[Path, str], Row] = {}
    references: dict[tuple[Path, str], dict[str, None]] = {}
    for row in rows:
        key = (row.image, row.query)
        if not row.query:
            continue
        first.setdefault(key, row)
        references.setdefault(key, {})
        if row.annotation:
            references[key][row.annotation] = None
    return [Question(_token(row), row.image, row.query, tuple(references[key])) for key, row in first.items()]


def pictures(rows: Iterable[Row]) -> list[Question]:
    """Each picture once, without question, for stage vision."""
    first: dict[Path, Row] = {}
    for row in rows:
        first.setdefault(row.image, row)
    return [Question(_token(row), row.image, "", ()) for row in first.values()]


def _token(row: Row) -> str:
    return f"{row.table.name}:{row.number}"
