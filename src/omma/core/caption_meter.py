"""Meter of captions: agreement with all references of a question, and with each alone. User: panollava."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from omma.core import ptb
from omma.core.caption_metrics import (
    cider,
    coco_bleu,
    coco_rouge_l,
    distinct,
    meteor_exact_stem,
    nltk_bleu,
    rouge,
)
from omma.core.meter import Meter

UNAVAILABLE = {
    "meteor": "METEOR 1.5 needs Java and NLTK's needs WordNet; meteor_exact_stem is without synonyms",
    "spice": "needs Java and the CoreNLP models",
}
_AGREEMENT = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "meteor_exact_stem")
_PACKAGES = ("bleu4_nltk", "rouge1", "rouge2", "rougeL")
_LENGTHS = (
    "avg_pred_length",
    "avg_ref_length",
    "length_ratio",
    "empty_predictions",
    "distinct1",
    "distinct2",
)
_SINGLE = ("bleu4", "rouge_l", "cider", "bleu4_nltk", "rougeL", "cider_whitespace")
_HUMAN = ("bleu4", "rouge_l", "cider")

Texts = Sequence[str]
Words = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What was written for one question.

    Args:
        token: name of the sample.
        image_path: the panorama's file.
        query: the question.
        prediction: the text that the model wrote, which may be empty.
        references: what people wrote, none where nobody did.
    """

    token: str
    image_path: str
    query: str
    prediction: str
    references: tuple[str, ...]


class CaptionMeter(Meter):
    """Caption metrics of a set; NaN where no sample has references.

    Without prefix all references of a question count together. `single_ref_rows/` takes every reference as a
    sample of its own with the same prediction, as published numbers for QuIC-360 do. `human/` scores the
    first reference of each question against its others, `human_single/` against the second alone: what
    people reach among themselves. bleu, rouge_l, cider and meteor_exact_stem are on COCO's words, the
    rest on the texts as they are.
    """

    names = (
        *_AGREEMENT,
        *_PACKAGES,
        *_LENGTHS,
        "exact_match",
        *(f"single_ref_rows/{name}" for name in _SINGLE),
        *(f"{row}/{name}" for row in ("human", "human_single") for name in _HUMAN),
    )

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def update(self, predictions: Sequence[str], batch: Mapping[str, Any]) -> None:
        """Add one batch.

        Args:
            predictions: B texts.
            batch: token, image_path, query: B texts each; references: B lists of texts.
        """
        columns = (batch[name] for name in ("token", "image_path", "query", "references"))
        for text, token, path, query, references in zip(predictions, *columns, strict=True):
            answer = Answer(token, str(path), query, text.strip(), tuple(references))
            self._answers.setdefault(token, answer)

    def state(self) -> dict[str, Any]:
        """The answers so far."""
        return {"answers": [asdict(answer) for answer in self._answers.values()]}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the answers by those of `states`; of one sample seen twice the first stays."""
        answers = [Answer(**fields) for state in states for fields in state["answers"]]
        self._answers = {}
        for answer in answers:
            self._answers.setdefault(answer.token, answer)

    def compute(self) -> dict[str, float]:
        """The metrics."""
        values = dict.fromkeys(self.names, float("nan")) | _written(list(self._answers.values()))
        known = self._known()
        if known:
            values |= _together([a.prediction for a in known], [a.references for a in known])
            values |= _alone(known)
            values["exact_match"] = float(np.mean([_exact(a) for a in known]))
        several = [a.references for a in known if len(a.references) > 1]
        if several:
            first = [refs[0] for refs in several]
            values |= _human("human", first, [refs[1:] for refs in several])
            values |= _human("human_single", first, [refs[1:2] for refs in several])
        return {name: float(values[name]) for name in self.names}

    def answers(self) -> list[Answer]:
        """Everything that was written, for tables and files of predictions."""
        return list(self._answers.values())

    def per_sample(self) -> list[dict[str, Any]]:
        """token, query, prediction, its number of words, and agreement with the references if there are any.

        CIDEr of a sample depends on the set that it is in.
        """
        known = self._known()
        found, true = _words(known)
        scores = {
            answer.token: {
                "bleu4": float(bleu[-1]),
                "rouge_l": coco_rouge_l(own, refs),
                "cider": float(score),
                "meteor_exact_stem": meteor_exact_stem(own, refs),
                "exact_match": int(_exact(answer)),
            }
            for answer, own, refs, bleu, score in zip(
                known, found, true, coco_bleu(found, true)[1], cider(found, true), strict=True
            )
        }
        none = dict.fromkeys(("bleu4", "rouge_l", "cider", "meteor_exact_stem", "exact_match"))
        return [
            {
                "token": answer.token,
                "query": answer.query,
                "prediction": answer.prediction,
                "words": len(answer.prediction.split()),
                **scores.get(answer.token, none),
            }
            for answer in self._answers.values()
        ]

    def _known(self) -> list[Answer]:
        return [answer for answer in self._answers.values() if answer.references]


@lru_cache(maxsize=1 << 15)
def _cut(text: str) -> Words:
    """COCO's words of a text."""
    return tuple(ptb.words(text))


def _words(answers: Sequence[Answer]) -> tuple[list[Words], list[list[Words]]]:
    found = [_cut(answer.prediction) for answer in answers]
    return found, [[_cut(text) for text in answer.references] for answer in answers]


def _exact(answer: Answer) -> bool:
    """Whether the prediction has the same words as a reference."""
    own = _cut(answer.prediction)
    return bool(own) and any(own == _cut(text) for text in answer.references)


def _together(texts: Texts, references: Sequence[Texts]) -> dict[str, float]:
    """All metrics of predictions with references."""
    found, true = [_cut(text) for text in texts], [[_cut(r) for r in refs] for refs in references]
    bleu, _ = coco_bleu(found, true)
    rouges = np.mean([rouge(text, refs) for text, refs in zip(texts, references, strict=True)], axis=0)
    values = {f"bleu{size}": bleu[size - 1] for size in range(1, 5)}
    values |= {"rouge_l": _rouge_l(found, true), "cider": cider(found, true).mean()}
    meteors = [meteor_exact_stem(own, refs) for own, refs in zip(found, true, strict=True)]
    values |= {"meteor_exact_stem": np.mean(meteors), "bleu4_nltk": _nltk(texts, references)}
    values |= dict(zip(("rouge1", "rouge2", "rougeL"), rouges.tolist(), strict=True))
    own_length = np.mean([len(text.split()) for text in texts])
    true_length = np.mean([len(text.split()) for refs in references for text in refs])
    ratio = own_length / true_length if true_length else np.nan
    return values | {"avg_ref_length": true_length, "length_ratio": ratio}


def _written(answers: Sequence[Answer]) -> dict[str, float]:
    """What needs no references."""
    if not answers:
        return {}
    found = [_cut(answer.prediction) for answer in answers]
    return {
        "avg_pred_length": float(np.mean([len(answer.prediction.split()) for answer in answers])),
        "empty_predictions": float(np.mean([not answer.prediction for answer in answers])),
        "distinct1": distinct(found, 1),
        "distinct2": distinct(found, 2),
    }


def _alone(answers: Sequence[Answer]) -> dict[str, float]:
    """Every reference as a sample of its own."""
    rows = [(answer.prediction, [text]) for answer in answers for text in answer.references]
    texts, references = [text for text, _ in rows], [refs for _, refs in rows]
    found, true = [_cut(text) for text in texts], [[_cut(r) for r in refs] for refs in references]
    raw = [text.split() for text in texts], [[r.split() for r in refs] for refs in references]
    values = {
        "bleu4": coco_bleu(found, true)[0][-1],
        "rouge_l": _rouge_l(found, true),
        "cider": cider(found, true).mean(),
        "bleu4_nltk": _nltk(texts, references),
        "rougeL": np.mean([rouge(text, refs)[-1] for text, refs in rows]),
        "cider_whitespace": cider(*raw).mean(),
    }
    return {f"single_ref_rows/{name}": float(value) for name, value in values.items()}


def _human(row: str, texts: Texts, references: Sequence[Texts]) -> dict[str, float]:
    found, true = [_cut(text) for text in texts], [[_cut(r) for r in refs] for refs in references]
    return {
        f"{row}/bleu4": coco_bleu(found, true)[0][-1],
        f"{row}/rouge_l": _rouge_l(found, true),
        f"{row}/cider": cider(found, true).mean(),
    }


def _rouge_l(found: Sequence[Words], true: Sequence[Sequence[Words]]) -> float:
    return float(np.mean([coco_rouge_l(own, refs) for own, refs in zip(found, true, strict=True)]))


def _nltk(texts: Texts, references: Sequence[Texts]) -> float:
    own = [text.split() for text in texts]
    return float(nltk_bleu(own, [[text.split() for text in refs] for refs in references])[-1])
