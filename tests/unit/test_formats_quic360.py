"""Tables of panoramas: quoting, names of columns, groups, paths, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from omma.data.formats.quic360 import (
    find_table,
    grouped_questions,
    locate,
    pictures,
    read_table,
    single_questions,
)
from omma.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "pano"


def write(folder: Path, text: str, name: str = "train.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file


def test_quotes_commas_line_breaks_and_a_mark(tmp_path: Path) -> None:
    text = '\ufeffurl,query,annotation\r\na.jpg,place,"a square, with a\nfountain"\r\n'
    text += 'b.jpg,"who?","a ""king"""\r\n'
    table = read_table(write(tmp_path, text))
    assert [row.annotation for row in table.rows] == ["a square, with a\nfountain", 'a "king"']
    assert [row.number for row in table.rows] == [2, 3]
    assert table.rows[0].image == tmp_path / "a.jpg"
    assert table.pictureless == ()


@pytest.mark.parametrize(
    "header",
    [
        "url,query,annotation",
        "image,prompt,response",
        "image_path,original_query,reference",
        "FILE_NAME, Instruction,answer",
    ],
)
def test_names_of_columns(tmp_path: Path, header: str) -> None:
    row = read_table(write(tmp_path, f"{header}\na.jpg,q,a\n")).rows[0]
    assert (row.image.name, row.query, row.annotation) == ("a.jpg", "q", "a")


@pytest.mark.parametrize("name", ["train.tsv", "train.csv"])
def test_tabs(tmp_path: Path, name: str) -> None:
    table = read_table(write(tmp_path, "id\turl\tquery\tannotation\n7\ta.jpg\tq\tone, two\n", name))
    assert table.rows[0].annotation == "one, two"
    assert list(table.columns) == ["url", "query", "annotation"]


def test_groups(tmp_path: Path) -> None:
    text = "url,query,annotation\na.jpg,q,one\na.jpg,r,three\na.jpg,q,two\na.jpg,q,one\n\n"
    text += "b.jpg,q,\nb.jpg,,five\n,q,six\n"
    table = read_table(write(tmp_path, text))
    groups = grouped_questions(table.rows)
    assert [(g.token, g.image.name, g.query, g.references) for g in groups] == [
        ("train.csv:2", "a.jpg", "q", ("one", "two")),
        ("train.csv:3", "a.jpg", "r", ("three",)),
        ("train.csv:7", "b.jpg", "q", ()),
    ]
    assert [s.references for s in single_questions(table.rows)] == [("one",), ("three",), ("two",)]
    assert [p.image.name for p in pictures(table.rows)] == ["a.jpg", "b.jpg"]
    assert table.pictureless == (9,)


def test_only_pictures(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "url\na.jpg\na.jpg\nb.jpg\n"))
    assert [p.token for p in pictures(table.rows)] == ["train.csv:2", "train.csv:4"]
    with pytest.raises(DataError, match=r"train\.csv: has no column query \(3 rows; columns url\)"):
        table.require("query")


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "images"
    assert locate("https://host.net/3106/27%20a_k.jpg?size=k", base) == base / "27 a_k.jpg"
    assert locate("sub\\b.jpg", base) == base / "sub" / "b.jpg"
    assert locate(str(tmp_path / "c.jpg"), base) == tmp_path / "c.jpg"
    (tmp_path / "here.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert locate("here.jpg", base) == Path("here.jpg")
    base.mkdir()
    (base / "here.jpg").touch()
    assert locate("here.jpg", base) == base / "here.jpg"


def test_image_root(tmp_path: Path) -> None:
    file = write(tmp_path, "url\nhttp://a.b/c/d.jpg\ne.jpg\n")
    rows = read_table(file, tmp_path / "pictures").rows
    assert [row.image for row in rows] == [tmp_path / "pictures" / name for name in ("d.jpg", "e.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "has no header"),
        ("picture,text\na.jpg,b\nc.jpg,d\n", r"has no column url \(2 rows; columns picture, text\)"),
        ("url,query\na.jpg,b,c\n", "row 2: has 3 fields, the header has 2"),
        ('url,query\na.jpg,"b" c\n', r"row 2: not a valid table"),
        ('url,query\na.jpg,"b\nc.jpg,d\n', r"row 2: not a valid table"),
        ("url,query\n,b\n", "has no row with a picture"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "train.csv" in caught.value.message
    assert "\n" not in caught.value.message


def test_other_encodings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_bytes("url,query\na.jpg,q\nb.jpg,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        read_table(file)


def test_splits_have_names(tmp_path: Path) -> None:
    write(tmp_path, "url\na.jpg\n", "valid.tsv")
    assert find_table(tmp_path, "val").name == "valid.tsv"
    with pytest.raises(DataError, match=r"has none of test\.csv, test\.tsv; tables there: valid\.tsv"):
        find_table(tmp_path, "test")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real data")
@pytest.mark.parametrize("name", ["quic360_test.csv", "quic360_test_instruction.csv"])
def test_real_rows(name: str) -> None:
    table = read_table(REAL / name)
    groups = grouped_questions(table.rows)
    assert (len(table.rows), len(groups), len(pictures(table.rows))) == (81, 15, 5)
    assert all(group.image.is_file() and len(group.references) >= 5 for group in groups)
