"""Questions that turn with their panoramas: they stay true, and others stay as they are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pano_toy import config, conversation
from pydantic import ValidationError

from omma.data.formats.quic360 import Question
from omma.errors import DataError
from omma.systems.panollava.config import BeginSection, PanoData
from omma.systems.panollava.samples import PanoSamples
from omma.systems.panollava.turns import QuarterTurns, directed
from omma.world.questions import WHERE

WORDS = list(WHERE.values())
VIEWS = {"image_size": (16, 16)}


def question(query: str, *answers: str, image: Path = Path("a.png")) -> Question:
    return Question("a", image, query, answers)


def test_words_turn_with_the_panorama() -> None:
    turn = QuarterTurns(WORDS)
    asked = question("What is to the right?", "a red car", "To the right there is a red car.")
    assert turn(asked, 1).query == "What is in front of you?"
    assert turn(asked, 1).references[1] == "in front of you there is a red car."
    assert turn(asked, -1).query == "What is behind you?"
    assert turn(asked, 4) == turn(asked, 0)


def test_only_questions_in_these_words_fit() -> None:
    turn = QuarterTurns(WORDS)
    assert turn.fits(question("Is there a person behind you?", "no"))
    assert not turn.fits(question("What is to the right?", "a car before a house"))
    assert not turn.fits(question("What stands left of the door?", "a chair"))
    assert not directed(question("How many people are there?", "two"))


def test_there_are_four_words() -> None:
    with pytest.raises(ValidationError, match="at least 4"):
        PanoData(direction_words=["ahead", "behind"])


@pytest.fixture
def samples(tmp_path: Path) -> PanoSamples:
    """A panorama with a colour in each direction, and questions about them."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
    quarters = [np.full((64, 32, 3), colour, np.uint8) for colour in colours.values()]
    picture = np.roll(np.concatenate(quarters, axis=1), 48, axis=1)  # the first one in the middle
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture[:, :, ::-1])
    asked = [
        question(f"What is {where}?", name, image=file) for where, name in zip(WORDS, colours, strict=True)
    ]
    data = config({**VIEWS, "overlap": 0.0}).data.model_copy(update={"direction_words": WORDS})
    return PanoSamples(asked, data, conversation(), augment=True)


def test_answers_stay_true(samples: PanoSamples) -> None:
    seen = set()
    middles = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
    for epoch in range(24):
        for index in range(len(samples)):
            sample = samples[epoch, index]
            where = sample["query"].removeprefix("What is ").removesuffix("?")
            view = sample["views"][WORDS.index(where)]
            assert view[:, 8, 8].tolist() == list(middles[sample["references"][0]])
            seen.add((index, where))
    assert len(seen) == 16


def test_nothing_turns_outside_training(samples: PanoSamples) -> None:
    samples.augment = False
    assert [samples[epoch, 1]["query"] for epoch in range(5)] == ["What is to the right?"] * 5


def test_easier_questions_come_first(samples: PanoSamples) -> None:
    begin = {"queries": "What is to", "epochs": 2}
    data = samples.data.model_copy(
        update={"begin_with": BeginSection.model_validate(begin), "random_yaw": False}
    )
    first = PanoSamples(samples.questions, data, conversation(), augment=True)
    asked = [{first[epoch, index]["query"] for index in range(4)} for epoch in range(3)]
    easy = {"What is to the right?", "What is to the left?"}
    assert asked[:2] == [easy, easy]
    assert len(asked[2]) == 4
    other = BeginSection(queries="Why", epochs=1)
    with pytest.raises(DataError, match="fits none of 4"):
        PanoSamples(samples.questions, data.model_copy(update={"begin_with": other}), None, augment=True)
