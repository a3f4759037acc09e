from __future__ import annotations

from pathlib import Path

from omma.data.fingerprint import fingerprint
from toy import ToySamples


class Files(ToySamples):
    def __init__(self, folder: Path) -> None:
        super().__init__(2)
        self.folder = folder

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


def _make(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0.png").write_bytes(b"pixels")
    (folder / "tables.json").write_text('{"a": 1}', encoding="utf-8")
    return folder


def test_same_data_elsewhere_has_the_same_fingerprint(tmp_path):
    one, two = _make(tmp_path / "one"), _make(tmp_path / "two")
    assert fingerprint(Files(one), one) == fingerprint(Files(two), two)
    assert fingerprint(Files(one), one)["num_files"] == 2
    assert fingerprint(Files(one), one)["bytes"] == 14
    assert list(fingerprint(Files(one), one)["annotations"]) == ["tables.json"]


def test_a_changed_annotation_or_image_shows(tmp_path):
    root = _make(tmp_path)
    before = fingerprint(Files(root), root)
    (root / "tables.json").write_text('{"a": 2}', encoding="utf-8")
    edited = fingerprint(Files(root), root)
    assert edited["sha256"] == before["sha256"]
    assert edited["annotations"] != before["annotations"]
    (root / "images" / "0.png").write_bytes(b"other pixels")
    assert fingerprint(Files(root), root)["sha256"] != before["sha256"]
