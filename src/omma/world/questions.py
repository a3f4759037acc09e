"""Questions about a panorama of known content, with exact answers in several wordings.

The first answer is the short one. Questions are put so that the answer cannot be guessed well from the
question alone: every colour, number and direction is about as likely as the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omma.world.panorama import DIRECTIONS, PERSON, VEHICLES, Thing

WHERE = {"front": "in front of you", "right": "to the right", "behind": "behind you", "left": "to the left"}
_YES = 0.62  # share of the questions for somebody's being there, which some panoramas cannot fulfil
NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class Asked:
    """A question.

    Args:
        query: its text.
        answers: wordings that say the same, the shortest first.
    """

    query: str
    answers: tuple[str, ...]


def ask(place: str, things: Sequence[Thing], rng: np.random.Generator) -> list[Asked]:
    """The questions about a panorama.

    Args:
        place: "street" or "room".
        things: what is around the camera.
        rng: draws which of many similar questions are asked.
    """
    asked = [_place(place), _people(things), _somebody(things, rng)]
    if place == "street":
        asked += [_cars(things), *_colours(things), *_where(things, rng)]
        asked.append(_what(things, DIRECTIONS[int(rng.integers(len(DIRECTIONS)))]))
    else:
        asked += _where_is_somebody(things)
    return asked


def _place(place: str) -> Asked:
    return Asked(
        "What kind of place is this?",
        (f"a {place}", f"This is a {place}.", f"The place is a {place}.", f"You are in a {place}."),
    )


def _people(things: Sequence[Thing]) -> Asked:
    return _number("How many people are there?", len(_of(things, PERSON)), "person", "people")


def _cars(things: Sequence[Thing]) -> Asked:
    return _number("How many cars are there?", len(_of(things, "car")), "car", "cars")


def _number(query: str, count: int, one: str, many: str) -> Asked:
    noun, verb = (one, "is") if count == 1 else (many, "are")
    word = NUMBERS[count]
    short = "none" if count == 0 else word
    return Asked(
        query, (short, f"{word} {noun}", f"There {verb} {word} {noun}.", f"{word} {noun} can be seen.")
    )


def _somebody(things: Sequence[Thing], rng: np.random.Generator) -> Asked:
    """Whether somebody is in a direction; yes and no are about equally likely."""
    taken = {thing.direction for thing in _of(things, PERSON)}
    truth = bool(rng.random() < _YES)
    fitting = [d for d in DIRECTIONS if (d in taken) == truth] or list(DIRECTIONS)
    direction = fitting[int(rng.integers(len(fitting)))]
    where, yes = WHERE[direction], direction in taken
    said = f"somebody is {where}" if yes else f"nobody is {where}"
    query = f"Is there a person {where}?"
    if yes:
        return Asked(query, ("yes", f"Yes, {said}.", "Yes, there is."))
    return Asked(query, ("no", f"No, {said}.", "No, there is not."))


def _colours(things: Sequence[Thing]) -> Iterator[Asked]:
    for car in _of(things, "car"):
        where, colour = WHERE[car.direction], str(car.colour)
        yield Asked(
            f"Which colour is the car {where}?",
            (
                colour,
                f"It is {colour}.",
                f"The car {where} is {colour}.",
                f"a {colour} car",
                f"There is a {colour} car {where}.",
            ),
        )


def _where(things: Sequence[Thing], rng: np.random.Generator) -> list[Asked]:
    """Where the only car of a colour is, or the only truck and so on."""
    names = [_name(thing) for thing in things if thing.kind in VEHICLES]
    single = [thing for thing in things if thing.kind in VEHICLES and names.count(_name(thing)) == 1]
    if not single:
        return []
    thing = single[int(rng.integers(len(single)))]
    name = _name(thing)
    return [_direction(f"Where is the {name}?", f"The {name}", thing.direction)]


def _where_is_somebody(things: Sequence[Thing]) -> list[Asked]:
    people = _of(things, PERSON)
    if len(people) != 1:
        return []
    return [_direction("Where is the person?", "The person", people[0].direction)]


def _direction(query: str, subject: str, direction: str) -> Asked:
    where = WHERE[direction]
    return Asked(query, (where, f"It is {where}.", f"{subject} is {where}."))


def _what(things: Sequence[Thing], direction: str) -> Asked:
    """Everything in a quarter of a street."""
    own = [thing for thing in things if thing.direction == direction]
    parts = [f"a {_name(thing)}" for thing in own if thing.kind in VEHICLES]
    people = len(_of(own, PERSON))
    if people:
        parts.append("a person" if people == 1 else f"{NUMBERS[people]} people")
    where = WHERE[direction]
    query = f"What is {where}?"
    if not parts:
        return Asked(
            query, ("nothing", f"Nothing is {where}.", "only the street", f"There is nothing {where}.")
        )
    said = " and ".join(parts)
    plural = len(parts) > 1 or people > 1
    verb = "are" if plural else "is"
    there = "are" if parts[0][0] != "a" else "is"
    return Asked(
        query,
        (
            said,
            f"There {there} {said} {where}.",
            f"{said[0].upper()}{said[1:]} {verb} {where}.",
            f"I see {said}.",
        ),
    )


def _name(thing: Thing) -> str:
    return thing.kind if thing.colour is None else f"{thing.colour} {thing.kind}"


def _of(things: Sequence[Thing], kind: str) -> list[Thing]:
    return [thing for thing in things if thing.kind == kind]
