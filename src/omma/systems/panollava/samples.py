"""Samples of panoramas: views as uint8, with the ids of a question and its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Sample, Samples
from omma.data.formats.quic360 import Question
from omma.data.io import read_image_reduced
from omma.errors import DataError
from omma.systems.panollava.config import BeginSection, PanoData, ViewsSection
from omma.systems.panollava.text import IGNORED, Example, collate_text
from omma.systems.panollava.turns import QuarterTurns, directed
from omma.systems.panollava.views import ViewCutter

Picture = NDArray[np.uint8]

ASPECT = 2.0
ASPECT_TOLERANCE = 0.02  # of the aspect
_TRIES = 50


class Talk(Protocol):
    """Makes ids of questions and answers; see text.Conversation."""

    @property
    def pad_id(self) -> int:
        """Id that fills up shorter rows."""

    def prompt(self, query: str) -> list[int]:
        """Ids up to where the answer begins."""

    def encode(self, query: str, answer: str) -> Example:
        """A sample to learn from."""


class PanoSamples(Samples):
    """One question about one panorama a sample, or one panorama where there is no conversation.

    A sample holds views (V, 3, h, w) uint8 RGB; yaw_deg () float32, how far to the right of the panorama's
    front the views start; token, image_path and query text; references list of text; and with a conversation
    example, ids and labels of the question and its first reference.

    In training an unreadable or partial panorama is replaced by another complete sample, drawn from the
    sample's own generator; `bad` tells which, in all worker processes. Elsewhere it is an error.

    Args:
        questions: what is asked of which panorama.
        data: how the views are made.
        talk: makes ids; none for stage vision.
        augment: training.
        tables: files that the questions are from.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        data: PanoData,
        talk: Talk | None,
        *,
        augment: bool,
        tables: Sequence[Path] = (),
    ) -> None:
        self.questions, self.data, self.talk, self.augment = list(questions), data, talk, augment
        self.tables = list(tables)
        self.cutter = ViewCutter(data.views)
        self.turns = None if data.direction_words is None else QuarterTurns(data.direction_words)
        self.easy = _easy(self.questions, data.begin_with) if augment else []
        self.images = sorted({question.image for question in questions})
        self._number = {image: number for number, image in enumerate(self.images)}
        # in shared memory, so that worker processes and the main process see the same
        self._bad = torch.zeros(len(self.images), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """See Samples; in the first epochs of `data.begin_with` one of its questions."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        begin = self.data.begin_with
        if self.easy and begin is not None and epoch < begin.epochs:
            key = (epoch, self.easy[index % len(self.easy)])
        return super().__getitem__(key)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.questions[index].token

    def files(self) -> list[Path]:
        """See Samples; panoramas that are missing have no file, and are an error when they are read."""
        return [*self.tables, *(image for image in self.images if image.is_file())]

    @property
    def bad(self) -> list[Path]:
        """Panoramas that were found unreadable or partial and replaced."""
        return [self.images[number] for number in self._bad.nonzero()[:, 0].tolist()]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; an error also names the sample's token."""
        turn = rng.uniform(-180, 180)
        for _ in range(_TRIES):
            question = self.questions[index]
            try:
                panorama = read_panorama(question.image, self.data.views)
            except DataError as error:
                named = DataError(f"{error.message} (sample {question.token})", error.hint)
                if not self.augment:
                    raise named from None
                self._note(question.image, named)
                index = int(rng.integers(len(self)))
            else:
                return self._sample(question, panorama, turn)
        raise named

    def _note(self, image: Path, error: DataError) -> None:
        """Count a bad panorama; raise its error where there are too many."""
        self._bad[self._number[image]] = 1
        bad, allowed = int(self._bad.sum()), self.data.bad_images * len(self.images)
        if bad > allowed:
            ways = "mend or remove them (`omma doctor` lists them), or raise data.bad_images"
            raise DataError(
                f"{error.message}; {bad} of {len(self.images)} panoramas are bad so far, "
                f"data.bad_images={self.data.bad_images:g} allows {int(allowed)}",
                f"{error.hint}; else {ways}" if error.hint else ways,
            ) from None

    def _sample(self, question: Question, panorama: Picture, turn_deg: float) -> Sample:
        yaw_deg, question = self._turned(question, turn_deg)
        views = self.cutter(panorama, turn_deg=yaw_deg)
        sample: Sample = {
            "views": torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2))),
            "yaw_deg": torch.tensor(yaw_deg, dtype=torch.float32),
            "token": question.token,
            "image_path": str(question.image),
            "query": question.query,
            "references": list(question.references),
        }
        if self.talk is not None:
            sample["example"] = self._example(self.talk, question)
        return sample

    def _turned(self, question: Question, turn_deg: float) -> tuple[float, Question]:
        """How far the panorama is turned in training, and the question that is true of it then."""
        if not (self.augment and self.data.random_yaw):
            return 0.0, question
        if not directed(question):
            return turn_deg, question
        if self.turns is None or not self.turns.fits(question):
            return 0.0, question
        quarters = round(turn_deg / 90)
        return 90.0 * quarters, self.turns(question, quarters)

    def _example(self, talk: Talk, question: Question) -> Example:
        if question.references:
            return talk.encode(question.query, question.references[0])
        prompt = talk.prompt(question.query)
        return Example(prompt, [IGNORED] * len(prompt), prompt, 0)


def _easy(questions: Sequence[Question], begin: BeginSection | None) -> list[int]:
    """Numbers of the questions to begin with.

    Raises:
        DataError: there are none.
    """
    if begin is None:
        return []
    found = [number for number, one in enumerate(questions) if re.match(begin.queries, one.query)]
    if not found:
        raise DataError(
            f"data.begin_with.queries={begin.queries} fits none of {len(questions)} questions",
            "write how a question begins, or leave data.begin_with out",
        )
    return found


def read_panorama(image: Path, views: ViewsSection) -> Picture:
    """A panorama (H, W, 3) uint8 RGB; a large JPEG is decoded no larger than the views need.

    Raises:
        DataError: the file is missing, damaged or not twice as wide as high.
    """
    height, width = views.image_size
    shrinks = views.name == "e2p"
    at_least = (round(180 / views.fov_deg * height), round(360 / views.fov_deg * width))
    picture, size = read_image_reduced(image, at_least if shrinks else (1 << 30, 1 << 30))
    check_aspect(image, size)
    return picture


def check_aspect(image: Path, size: tuple[int, int]) -> None:
    """Make sure that a picture of (H, W) is a whole panorama.

    Raises:
        DataError: it is not twice as wide as high.
    """
    height, width = size
    if abs(width / height - ASPECT) > ASPECT_TOLERANCE * ASPECT:
        raise DataError(
            f"{image}: is {width} x {height} pixels, a whole panorama is twice as wide as high",
            "pad a partial panorama to 360 x 180 degrees, or take it out of the table",
        )


class Collate:
    """Joins samples.

    The batch has views (B, V, 3, h, w) uint8, yaw_deg (B,), with a conversation input_ids, attention_mask and
    labels (B, L) and prompt_ids and prompt_mask (B, P), and lists of token, image_path, query and references.

    Args:
        pad_id: fills up ids; none for stage vision.
    """

    def __init__(self, pad_id: int | None) -> None:
        self.pad_id = pad_id

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch."""
        batch: dict[str, Any] = {
            name: torch.stack([sample[name] for sample in samples]) for name in ("views", "yaw_deg")
        }
        names = ("token", "image_path", "query", "references")
        batch |= {name: [sample[name] for sample in samples] for name in names}
        if self.pad_id is not None:
            batch |= collate_text([sample["example"] for sample in samples], self.pad_id)
        return batch
