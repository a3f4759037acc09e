"""`omma diagnose` of a PanoLLaVA run: its tokens, and answers with other panoramas, views and questions."""

from __future__ import annotations

import re
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
from omma.data.loader import to_device
from omma.engine.diagnosis import NUM_WORST, Diagnosis, Options, choose, visit
from omma.engine.rng import seed_step
from omma.engine.task import Batch
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
from omma.viz.curves import save_figure
from omma.viz.image import Image, save_png
from omma.viz.several import Bars, plot_groups

BY_CHANGE, TOKENS = "changes.png", "tokens.png"
_KEPT_IMAGES = 4  # whose tokens stay in memory
_UNSAFE = re.compile(r"[^\w.-]")


def run(task: PanoTask, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """Look at tokens and answers of some samples, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """
    assert isinstance(data, PanoSamples)
    look = _Look(task, data, collate, options)
    with torch.no_grad():
        look.count()
        look.judge()
        look.draw()
    return look.result


class _Look:
    """One pass over the samples; see `run`."""

    def __init__(self, task: PanoTask, data: PanoSamples, collate: Collate, options: Options) -> None:
        self.task, self.data, self.collate, self.options = task, data, collate, options
        self.chosen = choose(len(data), options.num_samples, options.seed)
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
        self.readable: list[int] = []
        self.result = Diagnosis()

    def count(self) -> None:
        """Sums over the samples; one that cannot be read is a finding, and the others still count."""
        self.result.data += visit(self.chosen, self._add, self.options)

    def _add(self, index: int) -> None:
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
        return encode_views(self.task, self._batch(index)).float()

    def _batch(self, index: int) -> Batch:
        batch: Batch = to_device(self.collate([self.data[index]]), self.task.device)
        return batch

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
        """Findings and the sections of numbers."""
        seen, total = self.seen, len(self.data)
        head = f"samples: {len(self.readable)} readable of {len(self.chosen)} chosen, {total} in the split"
        self.result.sections = {"config sanity": [head]}
        if self.options.probe_only:
            return
        self.result.model += judge(seen, self.options.run)
        self.result.sections |= {
            "GT distribution": seen.truth_lines(),
            "prediction distribution": seen.found_lines(),
            "metrics": seen.metric_lines(),
            "tokens": seen.token_lines(),
        }

    def draw(self) -> None:
        """What changes do, how alike tokens are, pictures of samples, and of the worst ones."""
        seen = self.seen
        if self.options.probe_only or not seen.means:
            return
        if seen.cosines:
            same, other = np.mean(seen.cosines, axis=0)
            bars = [Bars("", [same, other], None, 0)]
            title = f"cosine of tokens of neighbouring views, {len(seen.cosines)} panoramas"
            self._figure(TOKENS, plot_groups(["same place", "other place"], bars, title=title))
        self._draw_changes()
        drawn = self.readable[: self.options.vis_num]
        for index in drawn:
            self._save(f"{self._stem(index)}.png", self._draw(index))
        losses = {one.token: one.losses[OWN] for one in seen.asked if np.isfinite(one.losses[OWN])}
        ranked = [index for index in self.readable if self.data.name(index) in losses]
        ranked.sort(key=lambda index: -losses[self.data.name(index)])
        for index in ranked[: NUM_WORST if drawn else 0]:
            self._save(f"worst_{self._stem(index)}.png", self._draw(index))

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
            self._figure(BY_CHANGE, plot_groups(CHANGES, bars, title=title, lying=True, size=(6.4, 3.6)))

    def _figure(self, name: str, figure: object) -> None:
        save_figure(figure, self.options.out / name)
        self.result.figures.append(self.options.out / name)

    def _draw(self, index: int) -> Image:
        seed_step(0, index, 0, 0)
        return self.task.predict(self._batch(index)).draw()

    def _stem(self, index: int) -> str:
        """`000012_<token>`, legal as a file name everywhere."""
        return f"{index:06d}_{_UNSAFE.sub('-', self.data.name(index))}"

    def _save(self, name: str, picture: Image) -> None:
        save_png(self.options.out / name, picture)
        self.result.figures.append(self.options.out / name)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
