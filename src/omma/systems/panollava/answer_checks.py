"""What can be wrong with tokens and answers: one rule a function, on sums over some samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omma.core import ptb
from omma.core.caption_meter import CaptionMeter
from omma.errors import Finding
from omma.systems.panollava.likelihood import Written

Array = NDArray[np.floating]

FEW = 4  # samples below which nothing is said of all of them
SAME = 0.9  # share of answers that stay the same, from which they do not depend on what was changed
GAIN = 0.01  # of the loss, less of which a change does not matter
COLLAPSED_RANK, COLLAPSED_SPREAD = 3.0, 0.02  # a random tower has 19 of 48 and 0.8, constant tokens 1 and 0
CHANCE = 2.0  # times chance, below which tokens do not find their match; a random tower has 3 times
COMMON, VARIED = 0.8, 0.6  # share of one answer among the written ones, and among the expected ones
EMPTY, UNSTOPPED = (0.05, 0.5), (0.2, 0.9)  # from where it is a warning, an error
GUESSED = 0.9  # of the loss of blindly drawn words
EXACT = 1e-6  # difference of losses that is none
OWN, OTHER, GREY, SHUFFLED, QUESTION = (
    "own panorama", "another panorama", "grey views", "shuffled views", "another question",
)  # fmt: skip
CHANGES = (OWN, OTHER, GREY, SHUFFLED, QUESTION)
_METRICS = ("exact_match", "bleu4", "rouge_l", "cider", "single_ref_rows/cider", "human/cider",
            "avg_pred_length", "avg_ref_length", "distinct1")  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True)
class Asked:
    """One question as answered, with its own panorama and question and with others.

    Args:
        token: name of the sample.
        query: the question.
        references: of people.
        directed: whether it speaks of a direction.
        losses: what was changed -> mean loss of the first reference's ids; NaN where it does not apply.
        answers: what was changed -> answer; those of OWN always.
    """

    token: str
    query: str
    references: tuple[str, ...]
    directed: bool
    losses: dict[str, float]
    answers: dict[str, Written]


@dataclass
class Seen:
    """Sums over the samples of a diagnosis.

    Args:
        stage: of the run.
        meter: of the answers.
        views: views of a panorama that are no whole one.
        vocabulary: entries of the language model; 0 in stage vision.
        asked: what was answered; empty in stage vision.
        means: mean token (D,) of each view of a panorama, (views, D) each.
        spreads: of tokens around their mean, over their length.
        retrieval: share of tokens that find their match in the next view.
        chance: the same of guessing.
        cosines: (same place, other place) in neighbouring views.
    """

    stage: str
    meter: CaptionMeter
    views: int
    vocabulary: int = 0
    asked: list[Asked] = field(default_factory=list)
    means: list[Array] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    retrieval: list[float] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    cosines: list[tuple[float, float]] = field(default_factory=list)

    def loss(self, change: str, only: Callable[[Asked], bool] = lambda _: True) -> Array:
        """Losses of the samples that have one with and without the change, (2, N): changed, own."""
        pairs = [(one.losses[change], one.losses[OWN]) for one in self.asked if only(one)]
        both = np.array(pairs, np.float64).reshape(-1, 2)
        return both[np.isfinite(both).all(1)].T

    def kept(self, change: str) -> float:
        """Share of answers that a change leaves as they were; NaN if nothing was changed."""
        pairs = [(one.answers[change].text, one.answers[OWN].text) for one in self.asked
                 if change in one.answers]  # fmt: skip
        return float(np.mean([_words(a) == _words(b) for a, b in pairs])) if pairs else float("nan")

    def truth_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.asked:
            return ["no questions in stage vision"]
        references = [len(one.references) for one in self.asked]
        share, text = common(one.references[0] for one in self.asked if one.references)
        words = [len(text.split()) for one in self.asked for text in one.references]
        return [
            f"{len(self.asked)} questions, {len({one.query for one in self.asked})} different ones, "
            f"{sum(one.directed for one in self.asked)} speak of a direction",
            f"references a question: {np.mean(references):.2f}, at most {max(references)}",
            f"words of a reference: {np.mean(words):.1f}" if words else "no references",
            f"most frequent first reference: {share:.0%}, {text!r}",
        ]

    def found_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.asked:
            return ["no answers in stage vision"]
        answers = [one.answers[OWN] for one in self.asked]
        share, text = common(answer.text for answer in answers)
        return [
            f"different answers: {len({answer.text for answer in answers})} of {len(answers)}",
            f"most frequent answer: {share:.0%}, {text!r}",
            f"empty: {np.mean([not answer.text for answer in answers]):.1%}",
            f"ended by the model: {np.mean([answer.stopped for answer in answers]):.1%}",
            "",
            f"{'':<18}  {'loss':>8}  {'answers kept':>12}",
            *(self._change_line(change) for change in CHANGES),
        ]

    def _change_line(self, change: str) -> str:
        losses, kept = self.loss(change), self.kept(change)
        loss = f"{losses[0].mean():.4f}" if losses.size else "none"
        return f"{change:<18}  {loss:>8}  {'none' if np.isnan(kept) else f'{kept:.1%}':>12}"

    def metric_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.asked:
            return ["no answers in stage vision"]
        values = self.meter.compute()
        return [f"{name}: {values[name]:.4f}" for name in _METRICS if np.isfinite(values[name])]

    def token_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.means:
            return ["the network was not run"]
        views, width = np.concatenate(self.means).shape
        lines = [
            f"effective rank of {views} views' mean tokens: {self.rank():.2f} of {min(views, width)}",
            f"spread of tokens around their mean, over their length: {np.mean(self.spreads):.3f}",
        ]
        if self.retrieval:
            same, other = np.mean(self.cosines, axis=0)
            lines += [
                f"tokens that find their match in the next view: {np.mean(self.retrieval):.1%}, "
                f"guessing {np.mean(self.chance):.1%}",
                f"cosine of tokens that look at the same place {same:.3f}, at others {other:.3f}",
            ]
        return lines

    def rank(self) -> float:
        """Exponential of the entropy of the singular values of all views' mean tokens."""
        values = np.linalg.svd(np.concatenate(self.means), compute_uv=False)
        shares = values / max(float(values.sum()), 1e-12)
        shares = shares[shares > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))


def common(texts: Iterable[str]) -> tuple[float, str]:
    """Share of the most frequent text by its words, and the text as first written."""
    first: dict[tuple[str, ...], str] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        first.setdefault(_words(text), text)
        counts[_words(text)] += 1
    if not counts:
        return 0.0, ""
    words, number = counts.most_common(1)[0]
    return number / counts.total(), first[words]


def _words(text: str) -> tuple[str, ...]:
    return tuple(ptb.words(text))


Rule = Callable[[Seen, str], Finding | None]


def not_finite(seen: Seen, run: str) -> Finding | None:
    """NaN or infinity in tokens or losses."""
    tokens = sum(not np.isfinite(means).all() for means in seen.means)
    losses = sum(bool(one.references) and not np.isfinite(one.losses[OWN]) for one in seen.asked)
    if not tokens + losses:
        return None
    evidence = f"tokens of {tokens} samples, losses of {losses}"
    fix = f"`omma eval {run}@last train.precision=32`; lower optim.lr if that does not help"
    return Finding("error", "tokens or losses are not finite", evidence, fix)


def collapsed(seen: Seen, run: str) -> Finding | None:
    """The tower gives nearly the same for every view."""
    if len(seen.means) < FEW:
        return None
    rank, spread = seen.rank(), float(np.mean(seen.spreads))
    if rank >= COLLAPSED_RANK and spread >= COLLAPSED_SPREAD:
        return None
    evidence = f"effective rank of the views' mean tokens {rank:.2f}, spread over length {spread:.3f}"
    fix = (
        f"the loss paid too little for variance: `omma train {run} system.overlap.variance=50`, lower "
        "optim.lr, fewer epochs; a later stage needs weights from before the collapse"
    )
    return Finding("error", "the image tower's tokens have collapsed", evidence, fix)


def no_match(seen: Seen, run: str) -> Finding | None:
    """Tokens of neighbouring views that look at the same place are no more alike than others."""
    if not seen.retrieval:
        return None
    found, chance = float(np.mean(seen.retrieval)), float(np.mean(seen.chance))
    if found >= min(CHANCE * chance, (1 + chance) / 2):
        return None
    same, other = np.mean(seen.cosines, axis=0)
    evidence = (
        f"{found:.1%} of the tokens find their match, guessing finds {chance:.1%}; cosine {same:.3f} at the "
        f"same place, {other:.3f} elsewhere"
    )
    severity = "error" if seen.stage == "vision" else "warning"
    fix = (
        f"`omma doctor {run} --out DIR`: do the views follow one another to the right? with "
        "system.overlap.pairing=geometry they are matched by direction"
    )
    return Finding(severity, "overlapping views are no more alike than chance", evidence, fix)


def untrained(seen: Seen, run: str) -> Finding | None:
    """Expected answers are no likelier than words drawn blindly."""
    losses = [one.losses[OWN] for one in seen.asked if np.isfinite(one.losses[OWN])]
    if len(losses) < FEW or np.mean(losses) < GUESSED * np.log(seen.vocabulary):
        return None
    evidence = f"loss {np.mean(losses):.2f}; drawing blindly from {seen.vocabulary} words has "
    evidence += f"{np.log(seen.vocabulary):.2f}"
    fix = (
        f"nothing was learned yet, or the language model's own weights are missing: `omma show {run}` has "
        "system.language.name, `omma report` the loss"
    )
    return Finding("error", "expected answers are no likelier than blindly drawn words", evidence, fix)


def order_unused(seen: Seen, run: str) -> Finding | None:
    """Shuffling the views changes nothing."""
    if seen.views < 2:
        return None
    every = seen.loss(SHUFFLED)
    if every.shape[1] >= FEW and np.abs(every[0] - every[1]).max() < EXACT:
        evidence = f"losses of {every.shape[1]} answers are the same to {EXACT:g} with shuffled views"
        fix = "set system.projector.position=direction and system.projector.stitch=views, and train again"
        return Finding("error", "the order of the views does not reach the language model", evidence, fix)
    directed = seen.loss(SHUFFLED, lambda one: one.directed)
    if directed.shape[1] < FEW or directed[0].mean() > (1 + GAIN) * directed[1].mean():
        return None
    evidence = (
        f"loss {directed[1].mean():.4f}, with shuffled views {directed[0].mean():.4f}, of "
        f"{directed.shape[1]} answers that speak of a direction"
    )
    fix = (
        "directions are learned late: train longer, with system.projector.position=direction; "
        "data.random_yaw must not turn such panoramas (`omma doctor` counts them)"
    )
    return Finding("warning", "answers about directions do not use the order of the views", evidence, fix)


def picture_unused(seen: Seen, run: str) -> Finding | None:
    """Another panorama, or none, gives the same answers."""
    both = seen.loss(OTHER)
    if both.shape[1] < FEW:
        return None
    kept = min(seen.kept(OTHER), seen.kept(GREY))
    gain = both[0].mean() / both[1].mean() - 1
    if kept < SAME and gain > GAIN:
        return None
    evidence = (
        f"loss {both[1].mean():.4f} with the own panorama, {both[0].mean():.4f} with another one; "
        f"{seen.kept(OTHER):.0%} of the answers stay the same, {seen.kept(GREY):.0%} with grey views"
    )
    fix = (
        f"does it learn at all? `omma train {run} --overfit 8 train.length=400` must come near loss 0; then "
        "train longer, or let more learn: system.train, panollava/lora"
    )
    both_say = kept >= SAME and gain <= GAIN
    return Finding("error" if both_say else "warning", _title(both_say, "picture"), evidence, fix)


def question_unused(seen: Seen, run: str) -> Finding | None:
    """Another question gives the same answers."""
    both = seen.loss(QUESTION)
    if both.shape[1] < FEW:
        return None
    kept, gain = seen.kept(QUESTION), both[0].mean() / both[1].mean() - 1
    if kept < SAME and gain > GAIN:
        return None
    evidence = (
        f"loss {both[1].mean():.4f}, with another question {both[0].mean():.4f}; {kept:.0%} of the answers "
        "stay the same"
    )
    fix = "system.text.query must hold {query}, and system.text.max_length leave room for question and answer"
    both_say = kept >= SAME and gain <= GAIN
    severity = "error" if both_say else "warning"
    return Finding(severity, _title(both_say, "question"), evidence, fix)


def _title(both_say: bool, what: str) -> str:
    return f"answers do not depend on the {what}" if both_say else f"answers hardly gain from the {what}"


def one_answer(seen: Seen, run: str) -> Finding | None:
    """The same answer whatever is asked."""
    if len(seen.asked) < FEW:
        return None
    share, text = common(one.answers[OWN].text for one in seen.asked)
    expected, _ = common(one.references[0] for one in seen.asked if one.references)
    if share < COMMON or expected > VARIED or not text:
        return None
    evidence = f"{share:.0%} of the answers are {text!r}; the most frequent expected one has {expected:.0%}"
    fix = f"the plateau at the start of a training: train longer, or look at the loss: `omma report {run}`"
    return Finding("error", "one answer is given to nearly everything", evidence, fix)


def empty_answers(seen: Seen, run: str) -> Finding | None:
    """Answers without a word."""
    names = [one.token for one in seen.asked if not one.answers[OWN].text]
    share = len(names) / max(1, len(seen.asked))
    if share <= EMPTY[0]:
        return None
    evidence = f"{len(names)} of {len(seen.asked)}, such as {', '.join(names[:_SHOWN])}; they score 0"
    fix = (
        "the stop token comes first: are answers cut off in training (`omma doctor`)? is the tokenizer the "
        "language model's own (system.language.tokenizer)?"
    )
    return Finding("error" if share > EMPTY[1] else "warning", "answers are empty", evidence, fix)


def never_stops(seen: Seen, run: str) -> Finding | None:
    """Answers that only end at the longest length."""
    share = float(np.mean([not one.answers[OWN].stopped for one in seen.asked])) if seen.asked else 0.0
    if share <= UNSTOPPED[0]:
        return None
    words = np.mean([len(text.split()) for one in seen.asked for text in one.references] or [0])
    own = np.mean([len(one.answers[OWN].text.split()) for one in seen.asked])
    evidence = f"{share:.0%} of the answers have no stop token; {own:.0f} words, expected {words:.0f}"
    fix = (
        f"`omma eval {run} system.generate.max_new_tokens=128` if they are cut off; else raise "
        "system.text.max_length, so that training sees the stop token, and train on"
    )
    return Finding("error" if share > UNSTOPPED[1] else "warning", "answers do not stop", evidence, fix)


TOKEN_RULES: tuple[Rule, ...] = (collapsed, no_match)  # cause before effect
ANSWER_RULES: tuple[Rule, ...] = (
    picture_unused,
    order_unused,
    question_unused,
    one_answer,
    empty_answers,
    never_stops,
)


def judge(seen: Seen, run: str) -> list[Finding]:
    """All rules in their order; what is not finite, and answers that were never learned, end it."""
    if (first := not_finite(seen, run)) is not None:
        return [first]
    blind = untrained(seen, run)
    rules = TOKEN_RULES if blind else (*TOKEN_RULES, *ANSWER_RULES)
    found = [finding for rule in rules if (finding := rule(seen, run)) is not None]
    return [*found, blind] if blind else found
