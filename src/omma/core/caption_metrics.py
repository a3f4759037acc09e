"""How well captions agree with references: BLEU, ROUGE, CIDEr and a METEOR without WordNet.

Captions come as lists of words, one hypothesis and several references a sample; every score is 0 to 1 but
CIDEr, which is 0 to 10. Empty hypotheses count and score 0. Two BLEUs and two ROUGE-Ls are in use and differ:
`coco_bleu` and `coco_rouge_l` are those of COCO's evaluation, `nltk_bleu` and `rouge` those of the Python
packages. User: caption_meter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omma.core.porter import stem

Words = Sequence[str]
Values = NDArray[np.float64]
Grams = Counter[tuple[str, ...]]

MOST = 4  # words of the longest n-gram
_TINY, _SMALL = 1e-15, 1e-9  # of COCO's BLEU
_SMOOTHING = 0.1  # NLTK's method1: hits instead of none
_COCO_BETA = 1.2
_CIDER_SIGMA = 6.0
_ALPHA, _BETA, _GAMMA = 0.9, 3.0, 0.5  # of METEOR
_STEMMED = 4  # shorter words stay as they are in ROUGE
_OTHER = re.compile(r"[^a-z0-9]+")


def ngrams(words: Words, size: int) -> Grams:
    """How often each run of `size` words occurs."""
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def coco_bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[Values, Values]:
    """BLEU-1 to 4 as in COCO's evaluation.

    Args:
        hypotheses: N captions.
        references: N lists of captions, none of them empty.

    Returns:
        (4,) of the whole set, from summed counts, and (N, 4) of each sample.
    """
    counts = np.array([_hits(h, refs) for h, refs in zip(hypotheses, references, strict=True)], np.float64)
    counts = counts.reshape(-1, 2 * MOST + 2)
    return _coco_bleu(counts.sum(0, keepdims=True))[0], _coco_bleu(counts)


def _hits(hypothesis: Words, references: Sequence[Words]) -> list[int]:
    """n-grams that occur in a reference, own n-grams, the own length and the closest reference's."""
    hits = []
    for size in range(1, MOST + 1):
        most: Grams = Counter()
        for reference in references:
            most |= ngrams(reference, size)
        hits.append((ngrams(hypothesis, size) & most).total())
    length = len(hypothesis)
    guesses = [max(0, length - size) for size in range(MOST)]
    return [*hits, *guesses, length, _closest(length, references)]


def _closest(length: int, references: Sequence[Words]) -> int:
    return min((len(reference) for reference in references), key=lambda own: (abs(own - length), own))


def _coco_bleu(counts: Values) -> Values:
    """(N, 4) of counts (N, 10)."""
    hits, guesses = counts[:, :MOST], counts[:, MOST : 2 * MOST]
    precisions = np.cumprod((hits + _TINY) / (guesses + _SMALL), axis=1)
    ratio = (counts[:, -2] + _TINY) / (counts[:, -1] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(precisions ** (1 / np.arange(1, MOST + 1)) * brevity[:, None], np.float64)


def nltk_bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Values:
    """(4,) BLEU-1 to 4 of the whole set as NLTK's corpus_bleu with smoothing method1.

    Args:
        hypotheses: N captions.
        references: N lists of captions, none of them empty.
    """
    counts = np.array([_hits(h, refs) for h, refs in zip(hypotheses, references, strict=True)], np.float64)
    if not len(counts):
        return np.zeros(MOST)
    hits = counts[:, :MOST].sum(0)
    guesses = np.maximum(counts[:, MOST : 2 * MOST], 1).sum(0)
    length, closest = counts[:, -2].sum(), counts[:, -1].sum()
    if hits[0] == 0:
        return np.zeros(MOST)
    precisions = np.where(hits > 0, hits, _SMOOTHING) / guesses
    brevity = min(1.0, math.exp(1 - closest / length))
    means = np.cumsum(np.log(precisions)) / np.arange(1, MOST + 1)
    return np.asarray(brevity * np.exp(means), np.float64)


def common_length(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    places: dict[str, int] = {}
    for place, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << place
    # bits of a number stand for the places of `second`; those that a common subsequence ends at become 0
    full = (1 << len(second)) - 1
    open_places = full
    for word in first:
        hits = open_places & places.get(word, 0)
        open_places = ((open_places + hits) | (open_places - hits)) & full
    return len(second) - open_places.bit_count()


def coco_rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one sample as in COCO's evaluation: best precision and best recall, weighted 1.2."""
    if not hypothesis:
        return 0.0
    common = [common_length(hypothesis, reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(c / max(len(r), 1) for c, r in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    square = _COCO_BETA**2
    return (1 + square) * precision * recall / (recall + square * precision)


def rouge_words(text: str) -> list[str]:
    """Words as the package rouge-score takes them: letters and digits in lower case, longer ones stemmed."""
    found = _OTHER.sub(" ", text.lower()).split()
    return [stem(word) if len(word) >= _STEMMED else word for word in found]


def rouge(hypothesis: str, references: Sequence[str]) -> tuple[float, float, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of one sample as the package rouge-score: F1, of the best reference each.

    Args:
        hypothesis: text.
        references: texts.
    """
    own = rouge_words(hypothesis)
    scores = np.array([_rouge(own, rouge_words(reference)) for reference in references]).max(0)
    return float(scores[0]), float(scores[1]), float(scores[2])


def _rouge(own: Words, reference: Words) -> list[float]:
    scores = []
    for size in (1, 2):
        found, true = ngrams(own, size), ngrams(reference, size)
        scores.append(_f1((found & true).total(), found.total(), true.total()))
    return [*scores, _f1(common_length(own, reference), len(own), len(reference))]


def _f1(common: int, own: int, true: int) -> float:
    return 2 * common / (own + true) if common else 0.0


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Values:
    """(N,) CIDEr-D of each sample as COCO's evaluation calls CIDEr; the set's is their mean.

    Rare n-grams weigh more, and how rare they are is counted on these references: scores of different sets
    do not compare. A single sample scores 0.

    Args:
        hypotheses: N captions.
        references: N lists of captions, none of them empty.
    """
    counted = [[_grams(reference) for reference in refs] for refs in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for refs in counted:
        frequency.update(set().union(*refs))
    weigh = _Weigher(frequency, len(references))
    scores, own, weighed = [], None, None
    for words, refs in zip(hypotheses, counted, strict=True):
        if weighed is None or words != own:  # rows of one hypothesis follow one another
            own, weighed = words, weigh(_grams(words))
        scores.append(np.mean([_similarity(weighed, weigh(reference)) for reference in refs]))
    return 10 * np.array(scores, np.float64)


def _grams(words: Words) -> Grams:
    """n-grams of all lengths."""
    found: Grams = Counter()
    for size in range(1, MOST + 1):
        found.update(zip(*(words[start:] for start in range(size)), strict=False))
    return found


class _Weighed(NamedTuple):
    """n-grams by length, each count times its rarity; the norms by length; the number of pairs."""

    grams: list[dict[tuple[str, ...], float]]
    norms: list[float]
    pairs: int


class _Weigher:
    """Weighs n-grams by the logarithm of the share of samples that have them."""

    def __init__(self, frequency: Grams, samples: int) -> None:
        self._most = math.log(max(samples, 1))
        self._rarity = {gram: self._most - math.log(count) for gram, count in frequency.items()}

    def __call__(self, counts: Grams) -> _Weighed:
        grams: list[dict[tuple[str, ...], float]] = [{} for _ in range(MOST)]
        pairs = 0
        for gram, count in counts.items():
            size = len(gram)
            grams[size - 1][gram] = count * self._rarity.get(gram, self._most)
            pairs += count * (size == 2)
        norms = [math.sqrt(sum(value * value for value in own.values())) for own in grams]
        return _Weighed(grams, norms, pairs)


def _similarity(own: _Weighed, other: _Weighed) -> float:
    """Mean over the lengths of n-grams, less where the numbers of pairs of words differ."""
    total = 0.0
    for size in range(MOST):
        norm = own.norms[size] * other.norms[size]
        if norm:
            mine, yours = own.grams[size], other.grams[size]
            total += sum(min(mine[g], yours[g]) * yours[g] for g in mine.keys() & yours.keys()) / norm
    apart = own.pairs - other.pairs
    return total / MOST * math.exp(-(apart**2) / (2 * _CIDER_SIGMA**2))


def meteor_exact_stem(hypothesis: Words, references: Sequence[Words]) -> float:
    """METEOR of one sample with matches of words and of stems only, the best reference's.

    Weights are NLTK's (0.9, 3, 0.5); without WordNet's synonyms it lies below NLTK's, and it does not compare
    with METEOR 1.5.
    """
    return max(_meteor(hypothesis, reference) for reference in references)


def _meteor(hypothesis: Words, reference: Words) -> float:
    matches = _aligned(hypothesis, reference)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(hypothesis), len(matches) / len(reference)
    mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    breaks = sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(matches))
    return mean * (1 - _GAMMA * ((1 + breaks) / len(matches)) ** _BETA)


def _aligned(hypothesis: Words, reference: Words) -> list[tuple[int, int]]:
    """Pairs of places with the same word, else the same stem; from the end, as in NLTK."""
    own, other = list(enumerate(hypothesis)), list(enumerate(reference))
    pairs: list[tuple[int, int]] = []
    for form in (str, stem):
        for place, word in reversed(own.copy()):
            found = next((spot for spot in reversed(other) if form(spot[1]) == form(word)), None)
            if found is not None:
                pairs.append((place, found[0]))
                own.remove((place, word))
                other.remove(found)
    return sorted(pairs)


def distinct(hypotheses: Sequence[Words], size: int) -> float:
    """Share of different n-grams among all of a set; NaN without any."""
    counts: Grams = Counter()
    for words in hypotheses:
        counts.update(ngrams(words, size))
    return len(counts) / counts.total() if counts else float("nan")
