"""Panoramas of the procedural world: geometry, what is around the camera, and true answers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from omma.core.poses import pose
from omma.data.formats.quic360 import find_table, grouped_questions, read_table, single_questions
from omma.data.io import read_image, read_json
from omma.errors import UsageError
from omma.systems.panollava.checks import check_files, check_seams, check_splits, question_only, seam_ratio
from omma.world.build import build
from omma.world.handheld import looking
from omma.world.panorama import (
    COLOURS,
    DIRECTIONS,
    MOST_PEOPLE,
    PERSON,
    VEHICLES,
    PanoramaCamera,
    PanoramaCapture,
    Thing,
    build_place,
)
from omma.world.questions import NUMBERS, WHERE, ask

SIZE = (64, 128)
CLEAR = (96, 192)
STREETS, ROOM = (4, 5), 0


@pytest.fixture(scope="module")
def captures() -> list[PanoramaCapture]:
    """Two panoramas of each of two streets, and one of a room."""
    scenes = {number: build_place(0, number) for number in (*STREETS, ROOM)}
    found = [
        PanoramaCapture(scenes[number], 0, "train", frame, 2.0 * frame, CLEAR)
        for number in STREETS
        for frame in range(2)
    ]
    return [*found, PanoramaCapture(scenes[ROOM], 0, "train", 0, 0.0, CLEAR)]


def around(thing: Thing, capture: PanoramaCapture) -> np.ndarray:
    """Degrees to the right of straight ahead of the pixels of a thing."""
    _, columns = np.nonzero(capture.photo.instance == thing.guest.instance)
    return (columns + 0.5) / CLEAR[1] * 360 - 180


def apart(angles: np.ndarray, middle: float) -> np.ndarray:
    return (angles - middle + 180) % 360 - 180


def test_rays_of_the_camera() -> None:
    # looks along +y, so that right is +x; z is up
    camera = PanoramaCamera.at(pose(looking(np.pi / 2, 0.0, 0.0), (0.0, 0.0, 0.0)), SIZE)
    height, width = SIZE
    points = {
        (width / 2, height / 2): (0, 1, 0),
        (width * 3 / 4, height / 2): (1, 0, 0),
        (width / 4, height / 2): (-1, 0, 0),
        (0, height / 2): (0, -1, 0),
        (width, height / 2): (0, -1, 0),
        (width / 2, 0): (0, 0, 1),
        (width / 2, height): (0, 0, -1),
    }
    ways, _ = camera.rays(np.float32(list(points)).T)
    np.testing.assert_allclose(ways.T, list(points.values()), atol=1e-6)


def test_things_are_where_they_are_said_to_be(captures: list[PanoramaCapture]) -> None:
    kinds = Counter()
    for capture in captures:
        for thing in capture.things:
            angles = around(thing, capture)
            assert len(angles) >= 3
            middle = 90.0 * DIRECTIONS.index(thing.direction)
            widest = np.median if thing.kind == PERSON else np.max  # arms may reach far
            assert widest(np.abs(apart(angles, middle))) < 45
            assert widest(np.abs(apart(angles, thing.azimuth_deg))) < thing.half_deg + 2
            kinds[thing.kind] += 1
    assert kinds["car"] >= 4
    assert kinds[PERSON] >= 4
    assert set(kinds) <= {*VEHICLES, PERSON}


def test_nothing_else_is_in_the_picture(captures: list[PanoramaCapture]) -> None:
    for capture in captures:
        instances = set(np.unique(capture.photo.instance).tolist()) - {0}
        assert instances == {thing.guest.instance for thing in capture.things}


def test_cars_look_the_colour_they_have(captures: list[PanoramaCapture]) -> None:
    hues = {"red": 0, "yellow": 45, "green": 125, "blue": 220}
    looked_at = 0
    for capture in captures:
        pixels = cv2.cvtColor(capture.photo.rgb, cv2.COLOR_RGB2HSV)
        for thing in capture.things:
            own = pixels[capture.photo.instance == thing.guest.instance].astype(float)
            coloured = own[own[:, 1] > 110]
            if thing.colour in hues and len(coloured) > 20:
                off = np.median(apart(2 * coloured[:, 0], hues[thing.colour]))  # glass mirrors the sky
                assert abs(off) < 30, (thing.colour, off)
                looked_at += 1
    assert looked_at >= 3


def test_a_street_has_a_vehicle_a_quarter_at_most(captures: list[PanoramaCapture]) -> None:
    for capture in captures:
        vehicles = [thing.direction for thing in capture.things if thing.kind in VEHICLES]
        assert len(vehicles) == len(set(vehicles))
        assert sum(thing.kind == PERSON for thing in capture.things) <= MOST_PEOPLE


def test_nobody_stands_before_a_vehicle(captures: list[PanoramaCapture]) -> None:
    for capture in captures:
        for thing in capture.things:
            if thing.kind in VEHICLES:
                people = [t.azimuth_deg for t in capture.things if t.kind == PERSON]
                assert (np.abs(apart(np.array(people), thing.azimuth_deg)) > thing.half_deg).all()


def test_edges_join(captures: list[PanoramaCapture]) -> None:
    ratios = [seam_ratio(capture.photo.rgb) for capture in captures]
    assert max(ratios) < 1.5
    assert np.median(ratios) < 0.8


def test_the_same_again(captures: list[PanoramaCapture]) -> None:
    first = captures[0]
    again = replace(first)
    np.testing.assert_array_equal(again.photo.rgb, first.photo.rgb)
    assert [t.azimuth_deg for t in again.things] == [t.azimuth_deg for t in first.things]


def truth(query: str, things: list[dict], place: str) -> str | None:
    """The short answer, worked out from the content alone in another way than the questions are made."""
    words = {text: name for name, text in WHERE.items()}
    people = [thing for thing in things if thing["kind"] == PERSON]
    if query == "What kind of place is this?":
        return f"a {place}"
    if match := re.fullmatch(r"How many (people|cars) are there\?", query):
        count = len(people) if match[1] == "people" else sum(t["kind"] == "car" for t in things)
        return NUMBERS[count] if count else "none"
    if match := re.fullmatch(r"Is there a person (.*)\?", query):
        return "yes" if any(t["direction"] == words[match[1]] for t in people) else "no"
    if match := re.fullmatch(r"Which colour is the car (.*)\?", query):
        (car,) = (t for t in things if t["kind"] == "car" and t["direction"] == words[match[1]])
        return car["colour"]
    if match := re.fullmatch(r"Where is the (?:(\w+) )?(\w+)\?", query):
        (thing,) = (t for t in things if (t["colour"], t["kind"]) == (match[1], match[2]))
        return WHERE[thing["direction"]]
    return None


def named(answer: str) -> Counter:
    """Kinds of things in the answer to "What is ...?"."""
    found = Counter({kind: 1 for kind in VEHICLES if re.search(rf"\b{kind}\b", answer)})
    for number, word in enumerate(NUMBERS):
        found[PERSON] += number * bool(re.search(rf"\b{word} people", answer))
    found[PERSON] += "a person" in answer
    return +found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quic360") / "data"
    build("quic360", out, scenes=2, val_scenes=1, frames=3, seed=5, image_size=(32, 64))
    return out


def test_files_are_read_back(world: Path) -> None:
    tables = {split: read_table(find_table(world, split)) for split in ("train", "val", "test")}
    images = sorted({row.image for table in tables.values() for row in table.rows})
    assert len(images) == 12
    assert read_image(images[0]).shape == (32, 64, 3)
    findings = [*check_files(images), *check_splits(tables)]
    assert {finding.severity for finding in findings} == {"ok"}
    assert [finding.severity for finding in check_seams(images)] == ["ok"]
    assert all(len(q.references) == 1 for q in single_questions(tables["train"].rows))
    assert len(single_questions(tables["train"].rows)) == len(grouped_questions(tables["train"].rows))
    assert min(len(q.references) for q in grouped_questions(tables["test"].rows)) >= 3


def test_answers_are_true(world: Path) -> None:
    content = read_json(world / "content.json")
    checked = 0
    for split in ("train", "val", "test"):
        for question in grouped_questions(read_table(find_table(world, split)).rows):
            around = content[question.image.relative_to(world).as_posix()]
            expected = truth(question.query, around["things"], around["place"])
            if expected is not None:
                assert question.references[0] == expected, question
                checked += 1
                continue
            where = question.query.removeprefix("What is ").removesuffix("?")
            there = Counter(t["kind"] for t in around["things"] if WHERE[t["direction"]] == where)
            for answer in question.references:
                assert named(answer.lower()) == there, (question.query, answer, there)
            colours = {t["colour"] for t in around["things"] if WHERE[t["direction"]] == where} - {None}
            assert {c for c in COLOURS if c in question.references[0]} == colours
    assert checked > 40


def test_every_wording_says_the_same(captures: list[PanoramaCapture]) -> None:
    for capture in captures:
        for asked in ask(capture.place, capture.things, np.random.default_rng(0)):
            short, *others = asked.answers
            key = {"none": "no", "nothing": r"nothing|only the street"}.get(short, re.escape(short))
            assert all(re.search(key, other, re.IGNORECASE) for other in others), asked


def _drawn(rng: np.random.Generator) -> list[Thing]:
    """Content as it is arranged where everything finds room."""
    kinds = [str(rng.choice([*VEHICLES, ""], p=[0.58, 0.07, 0.07, 0.1, 0.18])) for _ in DIRECTIONS]
    found = [
        Thing(kind, str(rng.choice(list(COLOURS))) if kind == "car" else None, direction, 0, 0, 0, None)
        for kind, direction in zip(kinds, DIRECTIONS, strict=True)
        if kind
    ]
    people = int(rng.integers(MOST_PEOPLE + 1))
    return found + [Thing(PERSON, None, str(rng.choice(DIRECTIONS)), 0, 0, 0, None) for _ in range(people)]


def test_questions_cannot_be_answered_without_looking() -> None:
    from omma.data.formats.quic360 import Question

    rng = np.random.default_rng(3)
    asked = [
        Question(f"{number}", Path(f"{number}"), own.query, own.answers)
        for number in range(400)
        for own in ask("street" if rng.random() < 0.65 else "room", _drawn(rng), rng)
    ]
    half = len(asked) // 2
    train = [replace(question, references=question.references[:1]) for question in asked[:half]]
    assert question_only(train, asked[half:]) < 0.4
    colours = [question for question in asked[half:] if question.query.startswith("Which colour")]
    assert question_only(train, colours) < 0.3
    yes_no = [question for question in asked[half:] if question.query.startswith("Is there")]
    assert 0.4 < np.mean([question.references[0] == "yes" for question in yes_no]) < 0.6


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice as wide as high"):
        build("quic360", tmp_path / "data", scenes=1, val_scenes=0, frames=1, image_size=(32, 48))
