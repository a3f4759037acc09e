"""Files of what a model answered: a table for people, and JSON lines with what was expected."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from omma.core.caption_meter import Answer
from omma.engine.task import Prediction

COLUMNS = ("url", "query", "prediction", "references")


def answers_csv(answers: Sequence[Answer]) -> str:
    """A table with a row for each question; references are a JSON list in one field."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(
        (a.image_path, a.query, a.prediction, json.dumps(a.references, ensure_ascii=False)) for a in answers
    )
    return text.getvalue()


def answers_jsonl(answers: Sequence[Answer], stage: str) -> str:
    """A JSON object a line: sample_index, stage, token, image_path, query, prediction, references, words."""
    lines = [
        {
            "sample_index": index,
            "stage": stage,
            "token": answer.token,
            "image_path": answer.image_path,
            "query": answer.query,
            "prediction": answer.prediction,
            "references": list(answer.references),
            "prediction_words": len(answer.prediction.split()),
            "reference_words": [len(text.split()) for text in answer.references],
        }
        for index, answer in enumerate(answers)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def answer_file(prediction: Prediction) -> Mapping[str, bytes]:
    """One answer for `omma predict`: token, image_path, query, references, views and answer as JSON."""
    return {".json": (json.dumps(prediction.meta, ensure_ascii=False, indent=1) + "\n").encode()}
