"""Caption metrics against the packages that define them: NLTK, rouge-score and COCO's evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fill import load_arrays

from omma.core import ptb
from omma.core.caption_meter import CaptionMeter
from omma.core.caption_metrics import cider, coco_bleu, coco_rouge_l, nltk_bleu, rouge

pytestmark = pytest.mark.parity
CASE = load_arrays(Path(__file__).parent / "panollava" / "caption_metrics.npz")
TEXTS = [str(text) for text in CASE["hyps"]]
REFERENCES = {
    "single": [[str(text)] for text in CASE["single_refs"]],
    "multi": json.loads(str(CASE["refs_json"])),
}
WORDS = {"raw": str.split, "ptb": ptb.words}
both = pytest.mark.parametrize("rows", REFERENCES)
forms = pytest.mark.parametrize("form", WORDS)


def close(value, name: str) -> None:
    np.testing.assert_allclose(value, CASE[name], rtol=0, atol=1e-8)


def cut(form: str, rows: str) -> tuple[list[list[str]], list[list[list[str]]]]:
    split = WORDS[form]
    return [split(text) for text in TEXTS], [[split(text) for text in refs] for refs in REFERENCES[rows]]


@both
def test_words_are_those_of_the_stanford_tokenizer(rows: str) -> None:
    found, true = cut("ptb", rows)
    assert [" ".join(words) for words in found] == json.loads(str(CASE[f"ptb_hyps_{rows}_json"]))
    joined = [[" ".join(words) for words in refs] for refs in true]
    assert joined == json.loads(str(CASE[f"ptb_refs_{rows}_json"]))


@both
@forms
def test_coco_metrics(form: str, rows: str) -> None:
    found, true = cut(form, rows)
    together, each = coco_bleu(found, true)
    for size in range(4):
        close(together[size], f"coco_bleu{size + 1}_{form}_{rows}")
        close(each[:, size], f"coco_bleu{size + 1}_{form}_{rows}_per")
    rouges = [coco_rouge_l(own, refs) for own, refs in zip(found, true, strict=True)]
    close(rouges, f"coco_rougeL_{form}_{rows}_per")
    close(np.mean(rouges), f"coco_rougeL_{form}_{rows}")
    scores = cider(found, true)
    close(scores, f"coco_cider_{form}_{rows}_per")
    close(scores.mean(), f"coco_cider_{form}_{rows}")


def test_cider_of_one_sample_is_zero() -> None:
    found, true = cut("ptb", "multi")
    close(cider(found[:1], true[:1]).mean(), "coco_cider_one_sample")


@both
def test_nltk_bleu(rows: str) -> None:
    scores = nltk_bleu(*cut("raw", rows))
    for size in range(4):
        close(scores[size], f"nltk_bleu{size + 1}_{rows}")


def test_rouge_of_the_package() -> None:
    scores = np.array([rouge(text, refs) for text, refs in zip(TEXTS, REFERENCES["single"], strict=True)])
    for column, name in enumerate(("rouge1", "rouge2", "rougeL")):
        close(scores[:, column], f"rs_{name}_single_per")
        close(scores[:, column].mean(), f"rs_{name}_single")
    several = [rouge(text, refs)[-1] for text, refs in zip(TEXTS, REFERENCES["multi"], strict=True)]
    close(several, "rs_rougeL_multi_max_per")


@both
def test_the_meter_reports_them(rows: str) -> None:
    meter = CaptionMeter()
    names = [str(number) for number in range(len(TEXTS))]
    batch = {"token": names, "image_path": names, "query": names, "references": REFERENCES[rows]}
    meter.update(TEXTS, batch)
    values = meter.compute()
    for size in range(1, 5):
        close(values[f"bleu{size}"], f"coco_bleu{size}_ptb_{rows}")
    close(values["rouge_l"], f"coco_rougeL_ptb_{rows}")
    close(values["cider"], f"coco_cider_ptb_{rows}")
    close(values["bleu4_nltk"], f"nltk_bleu4_{rows}")
    if rows == "single":
        close(values["rougeL"], "rs_rougeL_single")
        close(values["single_ref_rows/cider_whitespace"], "coco_cider_raw_single")
