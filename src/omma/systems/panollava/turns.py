"""Turning questions by quarters of a circle, together with their panoramas, so that they stay true."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from omma.data.formats.quic360 import Question

_DIRECTED = re.compile(r"\b(left|right|front|behind|ahead|back|forwards?|backwards?|before)\b", re.IGNORECASE)


def directed(question: Question) -> bool:
    """Whether question or answers speak of a direction, so that turning the panorama makes them untrue."""
    return any(_DIRECTED.search(text) for text in _texts(question))


class QuarterTurns:
    """Replaces the words of directions.

    Args:
        words: what ahead, right, behind and left are called, such as "in front of you" and "to the right".
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [word.lower() for word in words]
        longest_first = sorted(self.words, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(word) for word in longest_first), re.IGNORECASE)

    def fits(self, question: Question) -> bool:
        """Whether the question speaks of directions in these words alone."""
        return not any(_DIRECTED.search(self._pattern.sub("", text)) for text in _texts(question))

    def __call__(self, question: Question, quarters: int) -> Question:
        """The question about the panorama whose front is what was so many quarters to the right."""

        def turned(match: re.Match[str]) -> str:
            return self.words[(self.words.index(match[0].lower()) - quarters) % len(self.words)]

        return replace(
            question,
            query=self._pattern.sub(turned, question.query),
            references=tuple(self._pattern.sub(turned, text) for text in question.references),
        )


def _texts(question: Question) -> tuple[str, ...]:
    return question.query, *question.references
