"""Samples of panoramas: a pure function of seed, epoch and index; turns, bad pictures, checks of the data."""

from __future__ import annotations

import csv
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from omma.core.caption_meter import Answer
from omma.data.formats.quic360 import Question, read_table
from omma.errors import DataError, Finding, UsageError
from omma.systems.panollava import checks, data
from omma.systems.panollava.answers import answers_csv, answers_jsonl
from omma.systems.panollava.config import PanoConfig, PanoData
from omma.systems.panollava.samples import Collate, PanoSamples, read_panorama
from omma.systems.panollava.text import Example
from omma.systems.panollava.turns import directed

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "pano"
SIZE = (16, 32)
VIEWS = {"image_size": (8, 8)}


class Letters:
    """A conversation of letters: the prompt, and the answer with a stop sign."""

    pad_id = 0

    def prompt(self, query: str) -> list[int]:
        return [ord(letter) for letter in query]

    def encode(self, query: str, answer: str) -> Example:
        prompt, own = self.prompt(query), [*(ord(letter) for letter in answer), 1]
        return Example(prompt + own, [-100] * len(prompt) + own, prompt, max(0, len(own) - 6))


def panorama(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A colour wheel that joins at the edges, with a brightness of its own."""
    hue = np.linspace(0, 180, size[1], endpoint=False).astype(np.uint8)
    wheel = np.stack([hue, np.full_like(hue, 255), np.full_like(hue, 120 + number)], -1)
    return cv2.cvtColor(np.repeat(wheel[None], size[0], 0), cv2.COLOR_HSV2RGB)


def write(folder: Path, number: int, size: tuple[int, int] = SIZE) -> Path:
    file = folder / f"{number}.png"
    cv2.imwrite(str(file), panorama(number, size)[..., ::-1])
    return file


def questions(folder: Path, count: int, query: str = "what") -> list[Question]:
    return [Question(f"t:{n}", write(folder, n), query, (f"answer {n}",)) for n in range(count)]


def settings(**values: object) -> PanoData:
    return PanoData(**{"views": VIEWS, **values})


def make(asked: list[Question], *, augment: bool = True, **values: object) -> PanoSamples:
    return PanoSamples(asked, settings(**values), Letters(), augment=augment)


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) if isinstance(first[k], torch.Tensor) else first[k] == second[k]
        for k in first
    )


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    samples = make(questions(tmp_path, 3))
    again = pickle.loads(pickle.dumps(samples))
    samples[2, 0]
    assert equal(samples[5, 1], again[5, 1])
    assert not torch.equal(samples[5, 1]["views"], samples[6, 1]["views"])
    again.seed = 1
    assert samples[5, 1]["yaw_deg"] != again[5, 1]["yaw_deg"]
    assert samples[5, 1]["views"].shape[1:] == (3, 8, 8)
    assert samples[5, 1]["views"].dtype == torch.uint8


def test_turns_reach_all_round_and_turn_the_views(tmp_path: Path) -> None:
    asked = questions(tmp_path, 1)
    samples, still = make(asked), make(asked, augment=False)
    turns = np.array([float(samples[epoch, 0]["yaw_deg"]) for epoch in range(60)])
    assert turns.min() < -120
    assert turns.max() > 120
    assert still[0]["yaw_deg"] == 0
    # the wheel's hue goes round once, so a turn to the right moves the hue of each view up by as much
    turned, straight = samples[4, 0], still[0]
    hues = [
        cv2.cvtColor(v["views"][0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)[4, 4, 0] * 2.0
        for v in (turned, straight)
    ]
    apart = (hues[0] - hues[1] - float(turned["yaw_deg"]) + 180) % 360 - 180
    assert abs(apart) < 360 / SIZE[1] + 4
    assert make(asked, random_yaw=False)[4, 0]["yaw_deg"] == 0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("What is behind you?", "a car"), True),
        (("street", "A bus on the LEFT."), True),
        (("people", "a bright leftover background"), False),
    ],
)
def test_what_speaks_of_a_direction_is_not_turned(
    tmp_path: Path, texts: tuple[str, str], expected: bool
) -> None:
    asked = replace(questions(tmp_path, 1)[0], query=texts[0], references=(texts[1],))
    assert directed(asked) is expected
    assert (float(make([asked])[3, 0]["yaw_deg"]) == 0) is expected


def test_a_bad_picture_is_replaced_by_a_complete_sample(tmp_path: Path) -> None:
    asked = questions(tmp_path, 4)
    asked[1].image.write_bytes(b"no picture")
    samples = make(asked, bad_images=0.3)
    sample = samples[0, 1]
    other = int(sample["token"][2:])
    assert other != 1
    assert sample["references"] == [f"answer {other}"]
    assert sample["image_path"] == str(asked[other].image)
    assert equal(sample, make(asked, bad_images=0.3)[0, 1])
    assert samples.bad == [asked[1].image]


def test_too_many_bad_pictures_are_an_error(tmp_path: Path) -> None:
    asked = questions(tmp_path, 4)
    samples = make(asked)
    asked[2].image.unlink()
    with pytest.raises(
        DataError, match=r"2\.png: no such file \(sample t:2\); 1 of 4 panoramas are bad"
    ) as caught:
        samples[0, 2]
    assert "\n" not in caught.value.message
    every = make(asked, bad_images=1.0)
    for question in asked:
        question.image.unlink(missing_ok=True)
    with pytest.raises(DataError, match="no such file"):
        every[0, 0]


def test_evaluation_replaces_nothing(tmp_path: Path) -> None:
    asked = questions(tmp_path, 2)
    asked[0].image.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png.*sample t:0"):
        make(asked, augment=False, bad_images=1.0)[0]


def test_partial_panoramas_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, 0, (16, 24))
    with pytest.raises(DataError, match="is 24 x 16 pixels"):
        read_panorama(file, settings().views)


def test_worker_processes_tell_what_is_bad(tmp_path: Path) -> None:
    asked = questions(tmp_path, 4)
    asked[3].image.write_bytes(b"no picture")
    samples = make(asked, bad_images=0.5)
    loader = DataLoader(samples, batch_size=2, num_workers=1, collate_fn=Collate(0))
    assert sum(len(batch["token"]) for batch in loader) == 4
    assert samples.bad == [asked[3].image]


def test_batches(tmp_path: Path) -> None:
    first, second = questions(tmp_path, 2)
    samples = make([first, replace(second, query="much longer", references=())], augment=False)
    batch = Collate(0)([samples[0], samples[1]])
    assert batch["views"].shape == (2, 8, 3, 8, 8)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 13)
    assert (batch["labels"][1] == -100).all()  # there is nothing to learn
    assert batch["attention_mask"].sum(1).tolist() == [13, 11]
    assert batch["prompt_mask"][0].tolist() == [0] * 7 + [1] * 4
    assert batch["references"] == [["answer 0"], []]
    alone = PanoSamples([first], settings(), None, augment=False)
    assert "input_ids" not in Collate(None)([alone[0]])


def recipe(root: Path, stage: str = "finetune", **values: object) -> PanoConfig:
    system = {"stage": stage, "language": {"name": "random", "config": {"model_type": "qwen2"}}}
    return PanoConfig.model_validate(
        {"system": system, "data": {"root": str(root), "views": VIEWS, **values}}
    )


def test_splits_of_a_recipe(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path, number)
    rows = "url,query,annotation\n0.png,q,one\n0.png,q,two\n1.png,q,three\n1.png,r,\n"
    for name in ("train.csv", "valid.csv"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    train, collate = data.build(recipe(tmp_path), "train", augment=True)
    val, _ = data.build(recipe(tmp_path), "val", augment=False)
    vision, _ = data.build(recipe(tmp_path, "vision"), "train", augment=True)
    assert (len(train), len(val), len(vision)) == (3, 3, 2)
    assert val[0]["references"] == ["one", "two"]
    assert (collate([train[0, 0], train[0, 2]])["labels"] != -100).any(1).all()
    named, _ = data.build(recipe(tmp_path, val_csv="train.csv"), "val", augment=False)
    assert named.name(0) == "train.csv:2"
    (tmp_path / "1.png").rename(tmp_path / "away.png")
    assert train.files() == [tmp_path / "train.csv", tmp_path / "0.png"]  # what the fingerprint reads
    (tmp_path / "away.png").rename(tmp_path / "1.png")
    (tmp_path / "mine.csv").write_text(rows, encoding="utf-8")
    mine, _ = data.build(recipe(tmp_path), str(tmp_path / "mine.csv"), augment=False)
    assert mine.name(2) == "mine.csv:5"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"root": None}, "data.root is not set"),
        ({"root": "nowhere"}, "nowhere: no such folder"),
        ({"train_csv": "gone.csv"}, r"gone\.csv: no such file \(data\.train_csv\)"),
        ({}, r"has none of train\.csv, train\.tsv"),
    ],
)
def test_missing_tables(tmp_path: Path, values: dict[str, str], message: str) -> None:
    config = recipe(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        data.build(
            config.model_copy(update={"data": config.data.model_copy(update=values)}), "train", augment=True
        )
    assert caught.value.hint


def test_tables_without_answers_train_stage_vision_only(tmp_path: Path) -> None:
    write(tmp_path, 0)
    (tmp_path / "train.csv").write_text("url\n0.png\n", encoding="utf-8")
    assert len(data.build(recipe(tmp_path, "vision"), "train", augment=True)[0]) == 1
    with pytest.raises(DataError, match=r"has no column query \(1 rows"):
        data.build(recipe(tmp_path), "train", augment=True)
    (tmp_path / "train.csv").write_text("url,query,annotation\n0.png,q,\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of its 1 rows has a question with an answer"):
        data.build(recipe(tmp_path), "train", augment=True)


def test_own_pictures(tmp_path: Path) -> None:
    files = [write(tmp_path, number) for number in range(2)]
    files[0].with_suffix(".txt").write_text("Who is there?\n", encoding="utf-8")
    samples, _ = data.build_inputs(recipe(tmp_path), files)
    assert [sample["query"] for sample in (samples[0], samples[1])] == ["Who is there?", data.DEFAULT_QUERY]
    assert [samples.name(n) for n in range(2)] == ["0.png", "1.png"]
    (tmp_path / "mine.csv").write_text("url,query\n0.png,place\n1.png,\n", encoding="utf-8")
    samples, _ = data.build_inputs(recipe(tmp_path), [tmp_path / "mine.csv"])
    assert [question.query for question in samples.questions] == ["place", data.DEFAULT_QUERY]
    with pytest.raises(UsageError):
        data.build_inputs(recipe(tmp_path), [])


def severities(findings: list[Finding]) -> list[str]:
    return [finding.severity for finding in findings]


def test_checks_of_tables_and_files(tmp_path: Path) -> None:
    good, torn = write(tmp_path, 0), write(tmp_path, 1, (16, 24))
    (tmp_path / "2.png").write_bytes(b"no picture")
    text = "url,query,annotation\n0.png,q,a\n0.png,q,a\n0.png,,b\n1.png,q,\n,q,c\n2.png,q,d\n3.png,q,e\n"
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "train.csv")
    found = checks.check_table(table)
    assert severities(found) == ["ok", "warning", "warning", "warning", "info"]
    assert [f.evidence for f in found[1:4]] == ["rows 6", "rows 4", "rows 5"]
    files = [tmp_path / f"{number}.png" for number in range(4)]
    found = checks.check_files(files)
    assert severities(found) == ["error"] * 3
    assert [f.title for f in found] == [
        "1 of 4 panoramas are missing",
        "1 of 4 panoramas cannot be opened",
        "1 of 4 panoramas are no whole panoramas",
    ]
    assert severities(checks.check_files([good])) == ["ok"]
    assert torn.is_file()


def test_check_of_seams(tmp_path: Path) -> None:
    whole, cropped = write(tmp_path, 0, (32, 64)), tmp_path / "cropped.png"
    cv2.imwrite(str(cropped), panorama(0, (32, 64))[:, :40])
    assert severities(checks.check_seams([whole])) == ["ok"]
    found = checks.check_seams([whole, cropped])
    assert found[0].severity == "warning"
    assert "cropped.png" in found[0].evidence


def test_check_of_splits_looks_at_the_content(tmp_path: Path) -> None:
    first, second = write(tmp_path, 0), write(tmp_path, 1)
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    tables = {}
    for split, names in {"train": ["0.png"], "val": ["1.png"], "test": ["copy.png"]}.items():
        (tmp_path / f"{split}.csv").write_text("url\n" + "\n".join(names), encoding="utf-8")
        tables[split] = read_table(tmp_path / f"{split}.csv")
    assert severities(checks.check_splits({s: tables[s] for s in ("train", "val")})) == ["ok"]
    found = checks.check_splits(tables)
    assert found[0].severity == "error"
    assert "0.png (train)" in found[0].evidence
    assert second.is_file()


def test_checks_of_questions(tmp_path: Path) -> None:
    asked = questions(tmp_path, 4)
    asked[0] = replace(asked[0], references=("It is red.",))
    asked[1] = replace(asked[1], references=("it is red", "red"))
    assert checks.question_only(asked[:1], asked) == pytest.approx(2 / 4)
    assert severities(checks.check_guessing(asked[:1], asked[:2])) == ["warning"]
    assert checks.question_only([], asked) == 0
    assert severities(checks.check_lengths(asked, Letters(), 10)) == ["warning"]
    assert checks.check_lengths(asked[:0], Letters(), 10) == []
    assert checks.check_directions(asked, random_yaw=True)[0].title.startswith("0 of 4")


def test_files_of_answers() -> None:
    answers = [
        Answer("t:2", "a.jpg", "place", 'a "wide" street, wet', ("A street.", "street")),
        Answer("t:3", "b.jpg", "place", "", ()),
    ]
    rows = list(csv.DictReader(io.StringIO(answers_csv(answers))))
    assert [row["prediction"] for row in rows] == [answer.prediction for answer in answers]
    assert json.loads(rows[0]["references"]) == ["A street.", "street"]
    lines = [json.loads(line) for line in answers_jsonl(answers, "finetune").splitlines()]
    assert [line["prediction_words"] for line in lines] == [4, 0]
    assert lines[0]["reference_words"] == [2, 1]
    assert lines[1] | {"stage": "finetune", "sample_index": 1, "references": []} == lines[1]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real data")
def test_real_panoramas(tmp_path: Path) -> None:
    images = sorted((REAL / "images").glob("flickr_[23]*.jpg"))[:3]
    assert severities([*checks.check_files(images), *checks.check_seams(images)]) == ["ok", "ok"]
    cropped = tmp_path / "cropped.png"
    whole = cv2.imread(str(images[0]))
    cv2.imwrite(str(cropped), whole[:, : whole.shape[1] * 4 // 5])
    assert severities(checks.check_seams([cropped])) == ["warning"]
    samples, collate = data.build_inputs(recipe(tmp_path), [REAL / "quic360_test.csv"])
    batch = collate([samples[0], samples[14]])
    assert batch["views"].shape == (2, 8, 3, 8, 8)
    assert min(len(references) for references in batch["references"]) >= 5
    assert batch["views"].float().std() > 20
