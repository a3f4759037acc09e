"""The doctor of panoramas and their tables: each mistake is named with its remedy, sound data pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pano_toy import LANGUAGE, TOWER
from PIL import Image

from omma.errors import Finding
from omma.systems.panollava import doctor
from omma.systems.panollava.checks import SEAM_RATIO, check_seams, seam_ratio
from omma.systems.panollava.config import PanoConfig

SIZE = (32, 64)
QUERIES = ("place", "people", "weather")


def panorama(number: int) -> np.ndarray:
    """A colour wheel whose edges join, with a brightness of its own."""
    hue = np.linspace(0, 180, SIZE[1], endpoint=False).astype(np.uint8)
    wheel = np.stack([hue, np.full_like(hue, 255), np.full_like(hue, 120 + number)], -1)
    return cv2.cvtColor(np.repeat(wheel[None], SIZE[0], 0), cv2.COLOR_HSV2BGR)


def write_table(root: Path, split: str, numbers: range, *, per_question: int) -> None:
    lines = ["url,query,annotation"]
    for number in numbers:
        cv2.imwrite(str(root / f"{number}.png"), panorama(number))
        lines += [
            f"{number}.png,{query},answer {number} {query} {one}"
            for query in QUERIES
            for one in range(per_question)
        ]
    (root / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_table(folder, "train", range(6), per_question=1)
    write_table(folder, "valid", range(10, 13), per_question=2)
    return folder


def config(root: Path | None, *, data: dict[str, Any] | None = None, **system: Any) -> PanoConfig:
    usual = {
        "vision": {"name": "random", "config": TOWER},
        "language": {"name": "random", "config": LANGUAGE},
    }
    shown = {"root": str(root) if root else None, "views": {"image_size": (16, 16)}, **(data or {})}
    return PanoConfig.model_validate({"system": usual | system, "data": shown})


def check(root: Path | None, out: Path | None = None, **sections: Any) -> list[Finding]:
    return doctor.check(config(root, **sections), out)


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in ("error", "warning")]


def find(findings: list[Finding], title: str) -> Finding:
    return next(finding for finding in findings if title in finding.title)


def test_sound_data_pass(root: Path) -> None:
    findings = check(root)
    assert wrong(findings) == []
    assert find(findings, "train.csv has 18 rows").evidence.startswith("6 panoramas, 18 questions")
    grouped = find(findings, "valid.csv: 2.00 references a question")
    assert grouped.evidence.startswith("18 answers to 9 pairs of panorama and question, 9 with several")
    assert find(findings, "no panorama is in two of: train, val").severity == "ok"
    assert find(findings, "answers fit into system.text.max_length=128").severity == "ok"
    assert find(findings, "val: the edges of 3 panoramas join").severity == "ok"
    assert find(findings, "the question alone answers 0% exactly").severity == "info"


def test_stage_vision_needs_pictures_only(root: Path) -> None:
    for split in ("train", "valid"):
        file = root / f"{split}.csv"
        names = [line.partition(",")[0] for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text("\n".join(names) + "\n", encoding="utf-8")
    findings = check(root, stage="vision")
    assert wrong(findings) == []
    overlap = find(findings, "neighbouring views show the same places")
    assert overlap.evidence.startswith("8 pairs of 8 views")
    assert all("language" not in finding.title for finding in findings)


def test_sheet_of_views(root: Path, tmp_path: Path) -> None:
    findings = check(root, tmp_path / "out", data={"views": {"image_size": (16, 16), "global_view": True}})
    picture = np.asarray(Image.open(tmp_path / "out" / doctor.SHEET))
    assert picture.shape[1] == 1200
    assert picture.std() > 20
    assert find(findings, "sheet").figure == str(tmp_path / "out" / doctor.SHEET)


def _no_set(root: Path) -> str:
    shutil.rmtree(root)
    return f"{root}: no such folder"


def _no_table(root: Path) -> str:
    (root / "valid.csv").unlink()
    return "has none of valid.csv, valid.tsv, val.csv, val.tsv; tables there: train.csv"


def _edit(root: Path, old: str, new: str, split: str = "train") -> None:
    file = root / f"{split}.csv"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def _no_pictures_column(root: Path) -> str:
    _edit(root, "url,", "file,")
    return "has no column url (18 rows; columns file, query, annotation)"


def _no_answers(root: Path) -> str:
    _edit(root, "annotation", "remark")
    return "has no column annotation (18 rows; columns url, query)"


def _no_answers_to_validate(root: Path) -> str:
    _edit(root, "annotation", "remark", "valid")
    return "valid.csv has no answers, so there is no loss"


def _missing_file(root: Path) -> str:
    (root / "3.png").unlink()
    return "train: 1 of 6 panoramas are missing"


def _no_picture(root: Path) -> str:
    (root / "11.png").write_bytes(b"no picture")
    return "val: 1 of 3 panoramas cannot be opened"


def _cut_short(root: Path) -> str:
    file = root / "12.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "val: 1 of 3 panoramas looked at are damaged"


def _partial(root: Path) -> str:
    cv2.imwrite(str(root / "2.png"), panorama(2)[:, :48])
    return "train: 1 of 6 panoramas are no whole panoramas"


def _torn(root: Path) -> str:
    torn = cv2.resize(panorama(2)[:, :48], SIZE[::-1])
    cv2.imwrite(str(root / "2.png"), torn)
    return "train: the edges of 1 of 6 panoramas do not join"


def _in_both_splits(root: Path) -> str:
    shutil.copy(root / "1.png", root / "11.png")
    return "1 panoramas are in several splits"


def _test_is_training(root: Path) -> str:
    (root / "test.csv").write_text("url,query\n5.png,place\n", encoding="utf-8")
    return "1 panoramas are in several splits"


DAMAGES = [
    _no_set, _no_table, _no_pictures_column, _no_answers, _no_answers_to_validate, _missing_file, _no_picture,
    _cut_short, _partial, _torn, _in_both_splits, _test_is_training,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_first_finding_about_damaged_data(root: Path, damage: Callable[[Path], str], tmp_path: Path) -> None:
    expected = damage(root)
    first = wrong(check(root, tmp_path / "out"))[0]
    assert expected in first.title
    assert first.severity == ("warning" if damage is _torn else "error")
    assert first.fix


def street(size: tuple[int, int]) -> np.ndarray:
    """Sky and ground with grain, houses of several colours between them; its edges join."""
    height, width = size
    noise = np.random.default_rng(1)
    picture = np.linspace(230, 90, height)[:, None, None] * np.array([1.0, 0.9, 0.8])
    picture = np.repeat(picture, width, axis=1) + noise.normal(0, 4, (height, width, 3))
    edges = np.sort(noise.choice(width, 12, replace=False))
    for left, right in pairwise(edges):
        colour, top = noise.uniform(40, 110, 3), int(height * noise.uniform(0.3, 0.5))
        picture[top : int(0.75 * height), left:right] = colour
    return picture.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 64), (64, 128), (512, 1024)])
def test_an_edge_of_a_house_on_the_seam_is_no_break(size: tuple[int, int], tmp_path: Path) -> None:
    """The strongest edge of the picture, turned onto the seam, is much larger than all other steps."""
    whole = street(size)
    fading = np.linspace(255, 90, size[1] // 4)[:, None].astype(np.uint8)
    whole[size[0] // 2 : size[0] * 4 // 5, size[1] // 3 :][:, : size[1] // 4] = fading
    strongest = int(np.abs(np.diff(whole.astype(float), axis=1)).mean((0, 2)).argmax()) + 1
    files = {name: tmp_path / f"{name}.png" for name in ("as it is", "turned", "cropped")}
    cropped = whole // 2
    cropped[:, size[1] // 2 :] += 120  # what is left and right of the crop differs in every row
    cropped = cv2.GaussianBlur(cropped, (0, 0), size[1] / 40, borderType=cv2.BORDER_REPLICATE)
    pictures = (whole, np.roll(whole, -strongest, 1), cropped)
    for file, picture in zip(files.values(), pictures, strict=True):
        cv2.imwrite(str(file), picture)
    assert [finding.severity for finding in check_seams([files["as it is"], files["turned"]])] == ["ok"]
    (torn,) = check_seams(list(files.values()))
    assert torn.title == "the edges of 1 of 3 panoramas do not join"
    assert "cropped.png (100% of its rows break there)" in torn.evidence
    assert seam_ratio(pictures[1]) > SEAM_RATIO, "the height of the step alone would not tell"


def test_answers_that_are_cut_off(root: Path) -> None:
    longest = int(find(check(root), "answers fit").evidence.split(" has ")[1].split()[0])
    first = wrong(check(root, text={"max_length": longest - 1}))[0]
    assert first.title.endswith("of 18 answers are cut off")
    needed = int(first.fix.removeprefix("system.text.max_length="))
    assert needed == longest
    assert wrong(check(root, text={"max_length": needed})) == []
    prompt = wrong(check(root, text={"max_length": 5}))[0]
    assert "the prompt of query" in prompt.title
    assert prompt.fix == "raise system.text.max_length"


def test_guessing_and_same_tables(root: Path) -> None:
    for split, numbers in (("train", range(6)), ("valid", (10, 11))):
        rows = [f"{number}.png,{query},A street." for number in numbers for query in QUERIES]
        text = "\n".join(["url,query,annotation", *rows])
        (root / f"{split}.csv").write_text(text, encoding="utf-8")
    guess = find(check(root), "the question alone answers 100% exactly")
    assert guess.severity == "warning"
    same = check(root, data={"val_csv": "train.csv"})
    assert wrong(same)[0].title == "training and validation are the same table"


@pytest.mark.parametrize(
    ("views", "overlap", "title"),
    [
        ({"overlap": 0.0}, {"weight": 1.0}, "views 0 and 1 have no place in common"),
        ({"name": "resize"}, {"weight": 1.0}, "an overlap loss needs several views"),
        ({}, {"weight": 1.0, "pairing": "columns"}, "system.overlap.pairing=columns is off by 1.1 patches"),
    ],
)
def test_views_for_an_overlap_loss(
    root: Path, views: dict[str, Any], overlap: dict[str, Any], title: str
) -> None:
    data = {"views": {"image_size": (224, 224), **views}}
    found = wrong(check(root, data=data, overlap=overlap))
    assert len(found) == 1
    assert title in found[0].title
    assert found[0].fix
    assert wrong(check(root, data=data)) == []


def test_stage_vision_without_a_loss(root: Path) -> None:
    found = wrong(check(root, stage="vision", overlap={"weight": 0.0}))
    assert [finding.title for finding in found] == ["stage vision learns nothing"]


def test_towers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tower"
    folder.mkdir()

    def about(name: str) -> Finding:
        return find(check(root, stage="vision", vision={"name": name}), "system.vision.name")

    assert about(str(tmp_path / "gone")).title.endswith("gone: no such folder")
    assert about(str(folder)).title.endswith("lacks config.json and *.safetensors or *.bin")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    assert about(str(folder)).severity == "ok"
    absent = about("google/siglip-base-patch16-224")
    assert absent.severity == "warning"
    assert "set system.vision.name to it" in absent.fix
    language = {"name": "random", "config": LANGUAGE, "tokenizer": str(tmp_path / "gone")}
    assert [f.severity for f in wrong(check(root, language=language))] == ["error", "error"]
