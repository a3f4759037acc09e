"""Words, stems, caption metrics in cases worked out by hand, and the meter over batches and processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omma.core import ptb
from omma.core.caption_meter import UNAVAILABLE, CaptionMeter
from omma.core.caption_metrics import (
    cider,
    coco_bleu,
    coco_rouge_l,
    common_length,
    distinct,
    meteor_exact_stem,
    nltk_bleu,
    rouge,
)
from omma.core.clip_scores import clip_s, ref_clip_s
from omma.core.porter import stem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man, a plan.", "a man a plan"),
        ("There isn't a dog's bed; it's the cats' one!", "there is n't a dog 's bed it 's the cats one"),
        ("We cannot see well-known 3,000.5 m", "we can not see well-known 3,000.5 m"),
        ('He said "no" (twice) -- really...', "he said no twice really"),
        ("Dr. Smith of the U.S. sees 50% & more", "dr. smith of the u.s. sees 50 % & more"),
        ("It’s “nice”", "it 's nice"),
        ("Straße und café", "straße und café"),
        (" ... ", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert " ".join(ptb.words(text)) == words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *(("caresses", "caress"), ("ponies", "poni"), ("ties", "tie"), ("cats", "cat"), ("agreed", "agre")),
        *(("plastered", "plaster"), ("motoring", "motor"), ("hopping", "hop"), ("falling", "fall")),
        *(("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("skies", "sky"), ("dying", "die")),
        *(("relational", "relat"), ("conditional", "condit"), ("digitizer", "digit"), ("hopeful", "hope")),
        *(("electricity", "electr"), ("adoption", "adopt"), ("controlling", "control"), ("rate", "rate")),
        *(("geology", "geolog"), ("enjoy", "enjoy"), ("buildings", "build"), ("is", "is")),
    ],
)
def test_stems(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_empty_hypotheses_score_zero_and_count() -> None:
    words, reference = "a red car stands there".split(), [["a red car stands there".split()]]
    empty: list[str] = []
    two = [words, empty], [*reference, *reference]
    together, each = coco_bleu(*two)
    assert each[0, 3] == pytest.approx(1)
    assert each[1].max() < 1e-12
    assert together[3] == pytest.approx(math.exp(1 - 2))  # half as long as the references
    precisions = (5 / 6) * (4 / 5) * (3 / 4) * (2 / 3)  # the empty one counts as one n-gram of each length
    assert nltk_bleu(*two)[3] == pytest.approx(math.exp(1 - 2) * precisions**0.25)
    assert nltk_bleu([empty], reference).tolist() == [0, 0, 0, 0]
    assert coco_rouge_l(empty, reference[0]) == 0
    assert cider(*two)[1] == 0
    assert meteor_exact_stem(empty, reference[0]) == 0
    assert rouge("", ["a car"]) == (0, 0, 0)


def test_common_length() -> None:
    assert common_length("abcbdab", "bdcaba") == 4
    assert common_length("", "abc") == 0


def test_meteor_matches_stems_and_counts_chunks() -> None:
    reference = "the cats sat here".split()
    exact = meteor_exact_stem(reference, [reference])
    assert exact == pytest.approx(1 - 0.5 * (1 / 4) ** 3)
    assert meteor_exact_stem("the cat sat here".split(), [reference]) == pytest.approx(exact)
    swapped = meteor_exact_stem("sat here the cats".split(), [reference])
    assert swapped == pytest.approx(1 - 0.5 * (2 / 4) ** 3)
    # 1 of 2 words found, 1 of 4 there
    part = 0.5 * 0.25 / (0.9 * 0.5 + 0.1 * 0.25) * 0.5
    assert meteor_exact_stem("the dog".split(), [reference]) == pytest.approx(part)
    assert meteor_exact_stem("the dog".split(), [reference, ["the", "dog"]]) > 0.9


def test_distinct() -> None:
    captions = [["a", "car"], ["a", "car"], ["a", "dog"]]
    assert distinct(captions, 1) == pytest.approx(3 / 6)
    assert distinct(captions, 2) == pytest.approx(2 / 3)
    assert math.isnan(distinct([["a"]], 2))


def test_clip_scores() -> None:
    image = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    caption = torch.tensor([[2.0, 0.0], [-1.0, 0.0]])
    references = [torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[-3.0, 0.0]])]
    assert clip_s(image, caption).tolist() == [2.5, 0.0]
    assert clip_s(image, caption, reference=True).tolist() == [1.0, -1.0]
    best = math.sqrt(0.5)
    expected = [2 * 2.5 * best / (2.5 + best), 0.0]
    assert ref_clip_s(image, caption, references).tolist() == pytest.approx(expected)
    assert ref_clip_s(image, caption, references, reference=True).tolist() == [0.0, 1.0]
    views = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    assert clip_s(views, caption).tolist() == [1.25, 1.25]


PREDICTIONS = ["a red car", "two", "", "a street with trees"]
BATCH = {
    "token": ["t:2", "t:4", "t:6", "t:7"],
    "image_path": ["a.jpg", "a.jpg", "b.jpg", "b.jpg"],
    "query": ["colour", "number", "colour", "place"],
    "references": [["It is red.", "A red car."], ["two", "2"], ["green"], []],
}


def part(*numbers: int) -> tuple[list[str], dict[str, list]]:
    return [PREDICTIONS[n] for n in numbers], {k: [v[n] for n in numbers] for k, v in BATCH.items()}


def metered(*parts: tuple[int, ...]) -> CaptionMeter:
    meter = CaptionMeter()
    for numbers in parts:
        meter.update(*part(*numbers))
    return meter


def test_meter_counts_what_there_is() -> None:
    values = metered((0, 1, 2, 3)).compute()
    assert tuple(values) == CaptionMeter.names
    assert values["exact_match"] == pytest.approx(2 / 3)
    assert values["empty_predictions"] == pytest.approx(1 / 4)
    assert values["avg_pred_length"] == pytest.approx((3 + 1 + 0 + 4) / 4)
    assert values["avg_ref_length"] == pytest.approx((3 + 3 + 1 + 1 + 1) / 5)
    assert not math.isnan(values["human/cider"])
    assert "spice" in UNAVAILABLE
    assert "spice" not in values


def test_every_reference_alone_is_harder_than_all_together() -> None:
    values = metered((0, 1, 2)).compute()
    assert values["single_ref_rows/rouge_l"] < values["rouge_l"]
    rows = metered((0, 1, 2))
    one_by_one = CaptionMeter()
    answers = [(a, text) for a in rows.answers() for text in a.references]
    names = [str(number) for number in range(len(answers))]
    batch = {"token": names, "image_path": names, "query": names, "references": [[t] for _, t in answers]}
    one_by_one.update([a.prediction for a, _ in answers], batch)
    again = one_by_one.compute()
    for name in ("bleu4", "rouge_l", "cider", "bleu4_nltk", "rougeL"):
        assert values[f"single_ref_rows/{name}"] == pytest.approx(again[name])


def test_human_agreement_is_the_first_reference_against_the_others() -> None:
    meter, people = metered((0, 1, 2)), CaptionMeter()
    several = [a for a in meter.answers() if len(a.references) > 1]
    names = [a.token for a in several]
    batch = {"token": names, "image_path": names, "query": names}
    people.update(
        [a.references[0] for a in several], batch | {"references": [a.references[1:] for a in several]}
    )
    values, again = meter.compute(), people.compute()
    for name in ("bleu4", "rouge_l", "cider"):
        assert values[f"human/{name}"] == pytest.approx(again[name])


def test_processes_join_and_doubles_count_once() -> None:
    whole, first, second = metered((0, 1, 2, 3)), metered((0, 2)), metered((1, 3), (0,))
    first.merge([first.state(), second.state()])
    assert {a.token for a in first.answers()} == set(BATCH["token"])
    expected = whole.compute()
    for name, value in first.compute().items():
        assert value == pytest.approx(expected[name], nan_ok=True)


def test_rows_of_samples() -> None:
    rows = metered((0, 1, 2, 3)).per_sample()
    assert [row["token"] for row in rows] == BATCH["token"]
    assert [row["exact_match"] for row in rows] == [True, True, False, None]
    assert rows[0]["rouge_l"] == pytest.approx(1)
    assert rows[2]["words"] == 0
    assert rows[3]["cider"] is None
    assert len({tuple(row) for row in rows}) == 1


def test_without_references_only_the_texts_count() -> None:
    values = metered((3,)).compute()
    assert values["avg_pred_length"] == 4
    assert math.isnan(values["bleu4"])
    assert math.isnan(CaptionMeter().compute()["avg_pred_length"])
    assert np.isnan(values["human/bleu4"])
