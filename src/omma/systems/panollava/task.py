"""PanoLLaVA as a task: three stages, their losses, metrics and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.caption_meter import UNAVAILABLE, CaptionMeter
from omma.core.meter import MeanMeter, Meter
from omma.core.view_consistency import consistency
from omma.engine.task import Batch, Prediction, StepInfo, TakenOver, Task
from omma.systems.panollava import clip
from omma.systems.panollava.answers import answer_file, answers_csv, answers_jsonl
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.exports import LANGUAGE_FOLDER, PanoramaWords, write_language
from omma.systems.panollava.handover import TOKENIZER, check_mark, take_over, tokenizer_mark
from omma.systems.panollava.losses import OverlapLoss
from omma.systems.panollava.model import PanoLLaVA, build_model, learning_parts
from omma.systems.panollava.text import build_conversation, collate_text, load_tokenizer
from omma.systems.panollava.views import view_layout
from omma.systems.panollava.viz import draw, view_name

_CONSISTENCY = ("overlap_cosine", "overlap_retrieval", "effective_rank", "token_std")
_EXAMPLE = ("What is behind you?", "A red car.")


class PanoTask(Task):
    """Views of a panorama and a question to an answer; a batch is described at `samples.Collate`."""

    model: PanoLLaVA
    tokenizer: Tensor

    def __init__(self, config: PanoConfig) -> None:
        super().__init__()
        self.config, self.stage = config, config.system.stage
        self.model = build_model(config.system, config.data)
        self.overlap = OverlapLoss.of(config, self.model.grid)
        self.conversation = None
        if self.stage != "vision":
            self.conversation = build_conversation(config.system.text, load_tokenizer(config.system.language))
        tokenizer = self.conversation.tokenizer if self.conversation else None
        self.register_buffer(TOKENIZER, tokenizer_mark(tokenizer))
        self.register_load_state_dict_pre_hook(_check_tokenizer)
        own = ["lm_loss"] if self.conversation else []
        self.train_terms = (*own, *(self.overlap.names if self.overlap else ()))

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss and its weighted terms, which add up to it."""
        terms = self._losses(batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def meters(self) -> dict[str, Meter]:
        """The loss; in stage vision how alike overlapping views are, else, if asked for, the answers."""
        meters: dict[str, Meter] = {"loss": MeanMeter("loss")}
        if self.stage == "vision":
            return meters | {name: MeanMeter(name) for name in _CONSISTENCY}
        if self._writes:
            meters["answers"] = CaptionMeter()
            if self.config.system.generate.clip is not None:
                self._scorer()  # says at once what is wrong with the folder
                meters |= {name: MeanMeter(name) for name in clip.NAMES}
        return meters

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """See Task."""
        size = len(batch["views"])
        if self.conversation is None:
            tokens = self.model.encode(self._normalise(batch))
            assert self.overlap is not None, "stage vision has a loss"
            meters["loss"].update(float(sum(self.overlap(tokens).values())), size)
            measured = consistency(tokens[:, self.overlap.ring], self.overlap.match(tokens))
            for name in _CONSISTENCY:
                meters[name].update(measured[name], size)
            return
        labels = int((batch["labels"] != -100).sum())
        if labels:
            meters["loss"].update(float(sum(self._losses(batch).values())), labels)
        if "answers" in meters:
            self._count(self._answers(batch), batch, meters)

    def score(self, arrays: Mapping[str, np.ndarray], batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with a saved answer: array "answer", a text."""
        if "answers" in meters:
            self._count([str(arrays["answer"])], batch, meters)

    def predict(self, inputs: Batch) -> Prediction:
        """The answer to one question, or in stage vision how its views' tokens are related."""
        views = inputs["views"][0].cpu().numpy()
        meta = {key: inputs[key][0] for key in ("token", "image_path", "query", "references")}
        turn_deg = float(inputs["yaw_deg"][0])
        meta["views"] = [view_name(view, turn_deg) for view in view_layout(self.config.data.views)]
        arrays = {"views": views, "yaw_deg": inputs["yaw_deg"][0].cpu().numpy()}
        if self.conversation is None:
            means = self.model.encode(self._normalise(inputs)).float().mean(2)[0]
            arrays["likeness"] = nn.functional.normalize(means, dim=-1).cpu().numpy()
            arrays["likeness"] = arrays["likeness"] @ arrays["likeness"].T
            return Prediction(arrays, meta, draw)
        meta["answer"] = self._answers(inputs)[0]
        arrays["answer"] = np.array(meta["answer"])
        said = f"{meta['query']} {meta['answer'] or '(nothing)'}"
        return Prediction(arrays, meta, draw, maker=answer_file, summary=said)

    def describe(self) -> list[str]:
        """Stage, what learns, how many words a panorama has, and the views."""
        views = self.config.data.views
        parts = ", ".join(learning_parts(self.config.system))
        lines = [f"stage {self.stage}: {parts} learn; {self.model.num_views} views ({views.name})"]
        if self.conversation is not None:
            lines.append(f"{self.model.words_per_panorama()} words of the language model a panorama")
        if self.overlap is not None:
            lines.append(self.overlap.describe())
        return lines

    def unavailable(self) -> Mapping[str, str]:
        """Of answers what needs other programs or weights."""
        if not self._writes:
            return {}
        return UNAVAILABLE if self.config.system.generate.clip else UNAVAILABLE | clip.UNAVAILABLE

    def result_files(self, meters: Mapping[str, Meter]) -> Mapping[str, str]:
        """The answers as a table, and with what was expected as JSON lines."""
        if "answers" not in meters:
            return {}
        answers = meters["answers"].answers()
        return {
            "predictions.csv": answers_csv(answers),
            "predictions.jsonl": answers_jsonl(answers, self.stage),
        }

    def take_over(self, state: Mapping[str, Tensor]) -> TakenOver:
        """See Task; a stage starts from the one before, adapters from a run without them."""
        return take_over(state, self.state_dict(), self.stage)

    def setting(self) -> str:
        """Views, question and decoding: numbers of other settings do not compare."""
        views, generate = self.config.data.views, self.config.system.generate
        cut = f"{views.name} views of {views.fov_deg:g} degrees, overlap {views.overlap:g}"
        if self.conversation is None:
            return cut
        how = f"temperature {generate.temperature:g}" if generate.temperature else "likeliest words"
        answers = f"{how}, at most {generate.max_new_tokens}"
        told = f"{cut}; {answers}; one answer a panorama and question, all references"
        return f"{told}; clip_s by {Path(generate.clip).name}, mean over the views" if generate.clip else told

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Normalised views, ids, mask and labels; in stage vision the views alone."""
        batch = self.example_batch(1)
        views = self._normalise(batch)
        if self.conversation is None:
            return (views.flatten(0, 1),)
        return views, batch["input_ids"], batch["attention_mask"], batch["labels"]

    def export_module(self) -> nn.Module:
        """From views to words of the language model; in stage vision the tower."""
        return PanoramaWords(self.model) if self.conversation else self.model.vision

    def export_inputs(self) -> tuple[Tensor, ...]:
        """Normalised views."""
        return self.example_inputs()[:1]

    def export_files(self, folder: Path) -> Mapping[str, float]:
        """The language model and its tokenizer as a folder of transformers."""
        if self.conversation is None or self.model.language is None:
            return {}
        tokenizer = self.conversation.tokenizer
        place = folder / LANGUAGE_FOLDER
        return {LANGUAGE_FOLDER: write_language(self.model.language, tokenizer, place)}

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random views with a question."""
        height, width = self.config.data.views.image_size
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, self.model.num_views, 3, height, width)
        batch: dict[str, Any] = {
            "views": torch.randint(0, 256, shape, generator=generator).to(torch.uint8),
            "yaw_deg": torch.zeros(batch_size),
        }
        if self.conversation is not None:
            example = self.conversation.encode(*_EXAMPLE)
            batch |= collate_text([example] * batch_size, self.conversation.pad_id)
        names = [f"example {index}" for index in range(batch_size)]
        texts = {"token": names, "image_path": names, "query": [_EXAMPLE[0]] * batch_size}
        texts |= {"references": [[_EXAMPLE[1]]] * batch_size}
        return {key: value.to(self.device) for key, value in batch.items()} | texts

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Layers of tower and language model."""
        return self.model.checkpoint_blocks()

    def shard_blocks(self) -> list[nn.Module]:
        """The same layers."""
        return self.model.checkpoint_blocks()

    def compile_targets(self) -> list[nn.Module]:
        """The tower: texts have other lengths in each batch."""
        return [self.model.vision]

    @property
    def _writes(self) -> bool:
        """Whether an evaluation writes answers."""
        return self.conversation is not None and self.config.system.generate.answers

    def _count(self, answers: Sequence[str], batch: Batch, meters: Mapping[str, Meter]) -> None:
        meters["answers"].update(answers, batch)
        if clip.NAMES[0] in meters:
            views = batch["views"][:, self._looking or slice(None)]
            for name, scores in self._scorer().scores(views, answers, batch["references"]).items():
                for score in scores:
                    meters[name].update(score)

    def _scorer(self) -> clip.ClipScorer:
        assert self.config.system.generate.clip is not None
        return clip.load_scorer(self.config.system.generate.clip, self.device)

    @property
    def _looking(self) -> list[int]:
        """Views that are no whole panorama."""
        layout = view_layout(self.config.data.views)
        return [index for index, view in enumerate(layout) if view is not None]

    def _normalise(self, batch: Batch) -> Tensor:
        return self.model.vision.normalise(batch["views"])

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms."""
        views = self._normalise(batch)
        if self.conversation is None:
            assert self.overlap is not None, "stage vision has a loss"
            return self.overlap(self.model.encode(views))
        inputs = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        if self.overlap is None:
            return {"lm_loss": self.model(views, *inputs)[0]}
        tokens = self.model.encode(views)
        embeds, mask, labels = self.model.fuse(self.model.words(tokens), *inputs)
        assert self.model.language is not None
        return {"lm_loss": self.model.language(embeds, mask, labels)[0], **self.overlap(tokens)}

    def _answers(self, batch: Batch) -> list[str]:
        assert self.conversation is not None, "stage vision writes nothing"
        prompts = batch["prompt_ids"], batch["prompt_mask"]
        ids = self.model.generate(self._normalise(batch), *prompts, self.config.system.generate)
        return [self.conversation.decode(row) for row in ids]


def _check_tokenizer(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_rest: Any) -> None:
    assert isinstance(module, PanoTask)
    language = module.config.system.language
    check_mark(state.get(f"{prefix}{TOKENIZER}"), module.tokenizer, language.tokenizer or language.name)
