"""`omma diagnose` of a PanoLLaVA run: its tokens, and answers with other panoramas, views and questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.caption_meter import CaptionMeter
from omma.core.overlap_losses import token_matcher
from omma.core.view_consistency import retrieval_accuracy
from omma.data.dataset import Collate, Samples
from omma.engine.diagnosis import Diagnosis, Look, Options
from omma.engine.rng import seed_step
from omma.errors import ConfigError
from omma.systems.panollava.answer_checks import (
    CHANGES,
    GREY,
    OTHER,
    OWN,
    QUESTION,
    SHUFFLED,
    Asked,
    Seen,
    judge,
)
from omma.systems.panollava.likelihood import (
    answer_losses,
    encode_views,
    grey_tokens,
    text_batch,
    write_answers,
)
from omma.systems.panollava.samples import PanoSamples
from omma.systems.panollava.task import PanoTask
from omma.systems.panollava.turns import directed
from omma.systems.panollava.views import view_layout
from omma.viz.several import Bars, plot_groups

BY_CHANGE, TOKENS = "changes.png", "tokens.png"
_KEPT_IMAGES = 4  # whose tokens stay in memory


def run(task: PanoTask, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """Look at tokens and answers of some samples, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """
    assert isinstance(data, PanoSamples)
    return _Look(task, data, collate, options).run()


class _Look(Look):
    """Tokens and answers; see `run`."""

    def __init__(self, task: PanoTask, data: PanoSamples, collate: Collate, options: Options) -> None:
        super().__init__(task, data, collate, options)
        layout = view_layout(task.config.data.views)
        self.ring = [index for index, view in enumerate(layout) if view is not None]
        try:
            self.match = token_matcher(layout, task.model.grid)
        except ConfigError:
            self.match = None  # views that share no place
        language = task.model.language
        vocabulary = 0 if language is None else len(language.lm.get_input_embeddings().weight)
        self.seen = Seen(task.stage, CaptionMeter(), len(self.ring), vocabulary)
        self.images: set[Path] = set()
        self.tokens = lru_cache(_KEPT_IMAGES)(self._tokens)

    def add(self, index: int) -> None:
        if self.options.probe_only:
            self.data[index]
            self.readable.append(index)
            return
        tokens = self.tokens(index)
        image = self.data.questions[index].image
        if image not in self.images:
            self.images.add(image)
            self._add_tokens(tokens)
        if self.task.conversation is not None:
            self._add_answers(index, tokens)
        self.readable.append(index)

    def _tokens(self, index: int) -> Tensor:
        """Of one sample, (1, V, S, D)."""
        return encode_views(self.task, self.batch(index)).float()

    def _add_tokens(self, tokens: Tensor) -> None:
        seen, views = self.seen, tokens[0, self.ring]
        if not len(views):
            views = tokens[0]
        seen.means.append(views.mean(1).cpu().numpy())
        flat = views.flatten(0, 1)
        seen.spreads.append(float((flat - flat.mean(0)).norm() / flat.norm().clamp(min=1e-12)))
        if self.match is None:
            return
        matches = self.match(tokens)
        seen.retrieval.append(retrieval_accuracy(matches))
        seen.chance.append(float(np.mean([1 / first.shape[1] for first, _ in matches])))
        cosines = [
            (float(F.cosine_similarity(a, b, dim=-1).mean()),
             float(F.cosine_similarity(a, b.roll(max(1, b.shape[1] // 2), 1), dim=-1).mean()))
            for a, b in matches
        ]  # fmt: skip
        seen.cosines.append(tuple(np.mean(cosines, axis=0).tolist()))

    def _add_answers(self, index: int, tokens: Tensor) -> None:
        """Losses and answers of one question as it is, and with one thing changed at a time."""
        question = self.data.questions[index]
        order = np.random.default_rng((self.options.seed, index)).permutation(self.ring)
        shuffled = tokens.clone()
        shuffled[:, self.ring] = tokens[:, order.tolist()]
        seen_views = {OWN: tokens, GREY: grey_tokens(self.task, tokens), SHUFFLED: shuffled}
        other = self._other_image(index)
        if other is not None:
            seen_views[OTHER] = self.tokens(other)
        another = self._other_query(index)
        if another is not None:
            seen_views[QUESTION] = tokens
        names = list(seen_views)
        reference = question.references[0] if question.references else ""
        queries = [another if name == QUESTION and another else question.query for name in names]
        batch = text_batch(self.task, [(query, reference) for query in queries])
        if not reference:
            batch["labels"].fill_(-100)
        stacked = torch.cat(list(seen_views.values()))
        losses = answer_losses(self.task.model, stacked, batch).tolist()
        seed_step(0, index, 0, 0)
        answers = write_answers(self.task, stacked, batch)
        self.seen.asked.append(
            Asked(
                question.token,
                question.query,
                question.references,
                directed(question),
                dict.fromkeys(CHANGES, float("nan")) | dict(zip(names, losses, strict=True)),
                dict(zip(names, answers, strict=True)),
            )
        )
        about = {"token": [question.token], "image_path": [question.image], "query": [question.query],
                 "references": [question.references]}  # fmt: skip
        self.seen.meter.update([answers[names.index(OWN)].text], about)

    def _other_image(self, index: int) -> int | None:
        """The next chosen sample of another panorama; None where there is one panorama only."""
        questions = self.data.questions
        place = self.chosen.index(index)
        following = self.chosen[place + 1 :] + self.chosen[:place]
        return next((one for one in following if questions[one].image != questions[index].image), None)

    def _other_query(self, index: int) -> str | None:
        """The next chosen sample's question that differs; None where all are the same."""
        questions = self.data.questions
        place = self.chosen.index(index)
        queries = [questions[one].query for one in self.chosen[place + 1 :] + self.chosen[:place]]
        return next((query for query in queries if query != questions[index].query), None)

    def judge(self) -> None:
        seen = self.seen
        self.result.sections = {"config sanity": [f"samples: {self.samples}"]}
        if self.options.probe_only:
            return
        self.result.model += judge(seen, self.options.run)
        self.result.sections |= {
            "GT distribution": seen.truth_lines(),
            "prediction distribution": seen.found_lines(),
            "metrics": seen.metric_lines(),
            "tokens": seen.token_lines(),
        }

    def draw_sums(self) -> bool:
        seen = self.seen
        if not seen.means:
            return False
        if seen.cosines:
            same, other = np.mean(seen.cosines, axis=0)
            bars = [Bars("", [same, other], None, 0)]
            title = f"cosine of tokens of neighbouring views, {len(seen.cosines)} panoramas"
            self.figure(TOKENS, plot_groups(["same place", "other place"], bars, title=title))
        self._draw_changes()
        return True

    def worst_first(self) -> Sequence[int]:
        losses = {one.token: one.losses[OWN] for one in self.seen.asked if np.isfinite(one.losses[OWN])}
        ranked = [index for index in self.readable if self.data.name(index) in losses]
        return sorted(ranked, key=lambda index: -losses[self.data.name(index)])

    def _draw_changes(self) -> None:
        """Loss of the answers with one thing changed at a time, of questions with and without direction."""
        seen = self.seen
        kinds = {"no direction asked": False, "direction asked": True}
        bars = [
            Bars(name, [_mean(seen.loss(change, lambda one, is_so=is_so: one.directed == is_so)[0])
                        for change in CHANGES], None, place)
            for place, (name, is_so) in enumerate(kinds.items())
        ]  # fmt: skip
        bars = [group for group in bars if np.isfinite(group.values).any()]
        if bars:
            title = f"loss of the expected answer, {len(seen.asked)} questions"
            self.figure(BY_CHANGE, plot_groups(CHANGES, bars, title=title, lying=True, size=(6.4, 3.6)))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
