"""Does an answer change when the panorama is turned, and which views does it come from?"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omma.core import ptb
from omma.core.caption_metrics import coco_rouge_l
from omma.core.panorama import View
from omma.data.dataset import Collate
from omma.data.formats.quic360 import Question
from omma.data.loader import to_device
from omma.engine.evaluate import autocast
from omma.engine.task import Batch
from omma.errors import DataError, UsageError
from omma.systems.panollava.attribution import draw_attribution
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.likelihood import answer_losses, encode_views, grey_tokens, write_answers
from omma.systems.panollava.samples import PanoSamples, read_panorama
from omma.systems.panollava.task import PanoTask
from omma.systems.panollava.turns import directed
from omma.systems.panollava.views import view_layout
from omma.viz.image import Image

TURNS_DEG = (0.0, 22.5, 45.0, 67.5, 90.0, 135.0, 180.0, 225.0, 270.0, 292.5, 315.0, 337.5)
NUM_TURNED, NUM_DROPPED, NUM_DRAWN = 48, 96, 6
ASKED_DEG = {"front": 0.0, "ahead": 0.0, "right": 90.0, "behind": 180.0, "left": -90.0}
SEEN_DEG = 45.0  # from its axis a view of 90 degrees shows a direction
_ASKED = re.compile(rf"\b({'|'.join(ASKED_DEG)})\b", re.IGNORECASE)
_KINDS = {False: "no direction asked", True: "direction asked"}
Found = dict[str, dict[str, Any]]
Row = dict[str, Any]


class Bar(Protocol):
    """Shows how far it is."""

    def update(self, done: int) -> None:
        """So many are done."""


class Console(Protocol):
    """Where lines go."""

    def line(self, text: str) -> None:
        """Write one line."""

    def progress(self, total: int, *, label: str) -> AbstractContextManager[Bar]:
        """A bar."""


def rotation(
    task: PanoTask, config: PanoConfig, data: PanoSamples, collate: Collate, console: Console
) -> Found:
    """Turn panoramas: how likely the expected answer is, and how many written answers stay the same.

    What asks for no direction has the same answer however the panorama is turned. What asks for one has
    another, so there the loss of the old answer must rise.

    Raises:
        UsageError: the run is of stage vision.

    Returns:
        study name -> table or curves, as `omma eval` writes and the report draws them.
    """
    _need_answers(task)
    chosen = _spread(len(data), NUM_TURNED)
    rows: list[Row] = []
    with _evaluating(task, config), console.progress(len(chosen), label="rotation") as bar:
        for done, index in enumerate(chosen, 1):
            rows += _turned(task, data, collate, index)
            bar.update(done)
    return _rotation_found(rows, len(chosen))


def _turned(task: PanoTask, data: PanoSamples, collate: Collate, index: int) -> list[Row]:
    """One row for each turn of one sample."""
    sample, question = data[index], data.questions[index]
    panorama = read_panorama(question.image, data.data.views)
    rows: list[Row] = []
    size = _batch_size(task.config)
    for start in range(0, len(TURNS_DEG), size):
        turns = TURNS_DEG[start : start + size]
        views = [data.cutter(panorama, turn_deg=turn).transpose(0, 3, 1, 2).copy() for turn in turns]
        samples = [sample | {"views": torch.from_numpy(own)} for own in views]
        batch: Batch = to_device(collate(samples), task.device)
        tokens = encode_views(task, batch)
        losses = answer_losses(task.model, tokens, batch).tolist()
        answers = [answer.text for answer in write_answers(task, tokens, batch)]
        rows += [
            {"turn_deg": turn, "loss": _known(loss), "answer": answer}
            for turn, loss, answer in zip(turns, losses, answers, strict=True)
        ]
    straight = ptb.words(rows[0]["answer"])
    about = {"token": question.token, "query": question.query, "directed": directed(question)}
    for row in rows:
        words = ptb.words(row["answer"])
        row |= {"same": words == straight, "overlap": coco_rouge_l(tuple(words), [tuple(straight)])}
    return [about | row for row in rows]


def _rotation_found(rows: Sequence[Row], count: int) -> Found:
    """Means over the turn, as a table and as curves from -180 to 180 degrees."""

    def mean(column: str, turn_deg: float, is_directed: bool) -> float | None:
        own = (row[column] for row in rows
               if row["directed"] == is_directed and (row["turn_deg"] - turn_deg) % 360 == 0)  # fmt: skip
        return _mean(own)

    x = sorted({180 - (180 - turn) % 360 for turn in TURNS_DEG} | {-180.0})

    def curve(title: str, y_label: str, columns: dict[str, str]) -> dict[str, Any]:
        series = {
            f"{name}{kind}": [mean(column, turn, is_directed) for turn in x]
            for column, name in columns.items()
            for is_directed, kind in _KINDS.items()
        }
        kept = {name: values for name, values in series.items() if any(v is not None for v in values)}
        labels = {"x_label": "turned to the right, deg", "y_label": y_label}
        return {"title": f"{title}, {count} questions", **labels, "x": x, "series": kept}

    columns = {"loss": "loss", "same": "same answer"}
    table = [
        {"turn_deg": turn}
        | {
            f"{name}, {kind}": mean(column, turn, is_directed)
            for column, name in columns.items()
            for is_directed, kind in _KINDS.items()
        }
        for turn in x
    ]
    return {
        "rotation": {
            "title": "Answers of turned panoramas",
            "shown": list(table[0]),
            "rows": table,
            "files": {"rotation_answers.csv": _csv(rows)},
        },
        "rotation_loss": curve("Loss of the expected answer", "loss", {"loss": ""}),
        "rotation_same": curve("Answers as of the unturned panorama", "share", {"same": ""}),
    }


def view_drop(
    task: PanoTask, config: PanoConfig, data: PanoSamples, collate: Collate, console: Console
) -> Found:
    """Show each view grey in turn: how much less likely the expected answer becomes.

    Raises:
        DataError: no sample has an answer.
        UsageError: the run is of stage vision.

    Returns:
        study name -> table or curves, as `omma eval` writes and the report draws them, and pictures.
    """
    _need_answers(task)
    answered = [index for index, question in enumerate(data.questions) if question.references]
    if not answered:
        raise DataError("the split has no answers to compare with", "choose one with a column annotation")
    chosen = [answered[place] for place in _spread(len(answered), NUM_DROPPED)]
    drawn = {chosen[place] for place in _spread(len(chosen), NUM_DRAWN)}
    layout, drops = view_layout(config.data.views), []
    files: dict[str, str | Image] = {}
    with _evaluating(task, config), console.progress(len(chosen), label="view_drop") as bar:
        for done, index in enumerate(chosen, 1):
            batch: Batch = to_device(collate([data[index]]), task.device)
            tokens = encode_views(task, batch)
            drops.append(_drops(task, tokens, batch))
            if index in drawn:
                answer = write_answers(task, tokens, batch)[0].text
                name = f"view_drop_{len(files):02d}.png"
                files[name] = _draw(batch, layout, drops[-1], data.questions[index], answer)
            bar.update(done)
    questions = [data.questions[index] for index in chosen]
    return _drop_found(np.array(drops), layout, questions, files, console)


def _drops(task: PanoTask, tokens: Tensor, batch: Batch) -> list[float]:
    """Rise of the loss without each view, of tokens (1, V, S, D)."""
    count = tokens.shape[1]
    grey = grey_tokens(task, tokens)
    left_out = torch.eye(count, dtype=torch.bool, device=tokens.device)
    variants = torch.cat([tokens, torch.where(left_out[:, :, None, None], grey, tokens)])
    names = ("input_ids", "attention_mask", "labels")
    size = _batch_size(task.config)
    losses = torch.cat(
        [
            answer_losses(task.model, part, {name: batch[name].expand(len(part), -1) for name in names})
            for part in variants.split(size)
        ]
    )
    return (losses[1:] - losses[0]).tolist()


def _draw(
    batch: Batch, layout: Sequence[View | None], drops: Sequence[float], question: Question, answer: str
) -> Image:
    views = np.ascontiguousarray(batch["views"][0].cpu().numpy().transpose(0, 2, 3, 1))
    lines = [f"question: {question.query}", f"expected: {question.references[0]}"]
    lines.append(f"answer: {answer or '(nothing)'}")
    return draw_attribution(views, layout, drops, title=question.token, lines=lines)


def _drop_found(
    drops: np.ndarray,
    layout: Sequence[View | None],
    questions: Sequence[Question],
    files: dict[str, str | Image],
    console: Console,
) -> Found:
    """Means by view, and by the angle between where a view looks and where the question asks."""
    most = drops.argmax(1)
    names = ["whole" if view is None else f"{view.yaw_deg:g}/{view.pitch_deg:g}" for view in layout]
    rows = [
        {
            "view": index,
            "yaw/pitch": name,
            "loss_without": float(drops[:, index].mean()),
            "most_important": float((most == index).mean()),
        }
        for index, name in enumerate(names)
    ]
    single = [
        {"token": question.token, "query": question.query, "asked_deg": asked_deg(question.query)}
        | dict(zip(names, own.tolist(), strict=True))
        for question, own in zip(questions, drops, strict=True)
    ]
    found: Found = {
        "view_drop": {
            "title": f"Rise of the loss when a view is grey, {len(drops)} questions",
            "shown": list(rows[0]),
            "rows": rows,
            "files": {"view_drop_questions.csv": _csv(single), **files},
        }
    }
    asked = np.array([row["asked_deg"] is not None for row in single], bool)
    looking = [index for index, view in enumerate(layout) if view is not None]
    if not asked.any() or len(looking) < 2:
        return found
    where = np.array([row["asked_deg"] for row in single if row["asked_deg"] is not None])
    yaws = np.array([layout[index].yaw_deg for index in looking])  # type: ignore[union-attr]
    apart = 180 - (180 - (yaws[None] - where[:, None])) % 360
    own = drops[asked][:, looking]
    hit = np.abs(np.take_along_axis(apart, own.argmax(1)[:, None], 1)) <= SEEN_DEG
    chance = float((np.abs(apart) <= SEEN_DEG).mean())
    console.line(
        f"view_drop: the most important view shows the direction asked for in {hit.mean():.0%} of "
        f"{asked.sum()} questions, chance {chance:.0%}"
    )
    x = np.unique(apart.round(3))
    means = [float(own[np.isclose(apart, angle, atol=1e-2)].mean()) for angle in x]
    found["view_drop_direction"] = {
        "title": f"Rise of the loss by where the grey view looks, {asked.sum()} questions",
        "x_label": "view to the right of the direction asked for, deg",
        "y_label": "rise of the loss",
        "x": x.tolist(),
        "series": {"direction asked": means},
    }
    return found


def asked_deg(query: str) -> float | None:
    """Yaw of the direction that a question names; None if it names none or several."""
    named = {ASKED_DEG[word.lower()] for word in _ASKED.findall(query)}
    return named.pop() if len(named) == 1 else None


def _need_answers(task: PanoTask) -> None:
    if task.conversation is None:
        raise UsageError(
            "a run of stage vision writes no answers to study",
            "`omma eval` of it measures how alike overlapping views are; study a later stage",
        )


def _spread(count: int, number: int) -> list[int]:
    """Some of `count` indices, evenly."""
    return np.unique(np.linspace(0, count - 1, min(number, count)).round().astype(int)).tolist()


@contextmanager
def _evaluating(task: PanoTask, config: PanoConfig) -> Iterator[None]:
    """Without gradients, in eval mode and the recipe's precision."""
    was_training = task.training
    task.eval()
    try:
        with torch.no_grad(), autocast(task.device, config.train.precision):
            yield
    finally:
        task.train(was_training)


def _batch_size(config: PanoConfig) -> int:
    size = config.validation.batch_size or config.train.batch_size
    return size if isinstance(size, int) else 1


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _mean(values: Iterable[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
