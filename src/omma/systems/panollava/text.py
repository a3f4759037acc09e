"""Questions and answers as ids: the prompt by the tokenizer's chat template, the answer after it (spec 4.5).

Prompt and answer are tokenised apart and joined, so a border never falls inside a token. Only the answer
and one stop token are learned. Where the panorama belongs, ids hold `PANORAMA`, which no vocabulary has: the
model puts the panorama's words in its place, and no table of embeddings has to grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from omma.errors import ConfigError
from omma.systems.panollava.small_tokenizer import SMALL_TOKENIZER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from omma.systems.panollava.config import LanguageSection, TextSection

PANORAMA = -200
IGNORED = -100
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
Placement = Literal["placeholder", "prefix"]
_MARK = "\N{SYMBOL FOR NULL}panorama\N{SYMBOL FOR NULL}"
_CHATML_MARKS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Example:
    """One question and its answer.

    Args:
        input_ids: prompt, answer and stop token.
        labels: the same where it is learned, else -100.
        prompt_ids: what generation starts from.
        cut: ids of answer and stop token that did not fit.
    """

    input_ids: list[int]
    labels: list[int]
    prompt_ids: list[int]
    cut: int

    @property
    def learned(self) -> int:
        """Number of ids that are learned; 0: the sample teaches nothing."""
        return sum(label != IGNORED for label in self.labels)


class Conversation:
    """Makes ids of questions and answers, and text of ids.

    Args:
        tokenizer: of the language model.
        system: first message; empty: none.
        query: the user's message; "{query}" stands for the sample's.
        max_length: ids of prompt and answer together, the panorama's words not counted.
        placement: "placeholder": `PANORAMA` leads the user's message; "prefix": it is not in the ids.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        system: str = "You are a helpful assistant.",
        query: str = "{query}",
        max_length: int = 128,
        placement: Placement = "placeholder",
    ) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.system, self.query, self.placement = system, query, placement
        self.template = _template(tokenizer)
        self.stop_id = self._stop_id()

    @property
    def pad_id(self) -> int:
        """Id that fills up shorter rows."""
        pad = self.tokenizer.pad_token_id
        return self.stop_id if pad is None else pad

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        own = self.tokenizer.eos_token_id
        return [self.stop_id] if own in (None, self.stop_id) else [self.stop_id, own]

    def prompt(self, query: str) -> list[int]:
        """Ids up to where the answer begins.

        Raises:
            ConfigError: they leave no room for an answer.
        """
        question = self.query.replace("{query}", query)
        content = f"{_MARK}\n{question}" if self.placement == "placeholder" else question
        ids: list[int] = []
        for number, piece in enumerate(self._render(content).split(_MARK)):
            ids += [PANORAMA] * (number > 0) + self._ids(piece)
        if _adds_start(self.tokenizer) and ids[:1] != [self.tokenizer.bos_token_id]:
            ids = [self.tokenizer.bos_token_id, *ids]
        if len(ids) >= self.max_length:
            raise ConfigError(
                f"the prompt of query {query!r} has {len(ids)} tokens, system.text.max_length is "
                f"{self.max_length} with the answer",
                hint="raise system.text.max_length",
            )
        return ids

    def encode(self, query: str, answer: str) -> Example:
        """A sample to learn from; white space around the answer is left out.

        Raises:
            ConfigError: the prompt alone is too long.
        """
        prompt = self.prompt(query)
        whole = [*self._ids(answer.strip()), self.stop_id]
        kept = whole[: self.max_length - len(prompt)]
        return Example(
            input_ids=prompt + kept,
            labels=[IGNORED] * len(prompt) + kept,
            prompt_ids=prompt,
            cut=len(whole) - len(kept),
        )

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of an answer, without special tokens and white space around it."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def _render(self, content: str, answer: str | None = None) -> str:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": content})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=answer is None,
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def _stop_id(self) -> int:
        """What the template has right after an answer, or the end of text."""
        if self.template != PLAIN:
            after = self._ids(self._render("", _MARK).rpartition(_MARK)[2].lstrip())
            if after and after[0] in self.tokenizer.all_special_ids + _added_ids(self.tokenizer):
                return after[0]
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no end of text", hint="give another system.language.tokenizer"
            )
        return self.tokenizer.eos_token_id


def load_tokenizer(language: LanguageSection) -> PreTrainedTokenizerBase:
    """The tokenizer of a language model; omma's own for a random one that names none.

    Raises:
        ConfigError: it cannot be had.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kept = language.kept
    if kept is not None and (kept / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(kept)
    name = language.tokenizer or (None if language.name == "random" else language.name)
    if name is None:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(SMALL_TOKENIZER), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )
    if Path(name).is_file():
        return PreTrainedTokenizerFast(tokenizer_file=name, eos_token="<|endoftext|>")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer {name} cannot be had: {str(error).splitlines()[0]}",
            hint="on a connected machine fetch it, for example with `hf download`, and set "
            "system.language.tokenizer to the folder; HF_HUB_OFFLINE=1 spares the waiting",
        ) from error


def build_conversation(text: TextSection, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """The conversation that a recipe describes."""
    return Conversation(
        tokenizer,
        system=text.system,
        query=text.query,
        max_length=text.max_length,
        placement=text.placement,
    )


def collate_text(examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
    """Samples as one batch, each as long as the longest.

    Args:
        examples: B samples.
        pad_id: fills up.

    Returns:
        input_ids, attention_mask and labels (B, L), filled up at the end, prompt_ids and prompt_mask (B, P),
        filled up at the start; all int64.
    """
    prompts = [example.prompt_ids for example in examples]
    ids = [example.input_ids for example in examples]
    return {
        "input_ids": _fill([(row, pad_id) for row in ids]),
        "attention_mask": _fill([([1] * len(row), 0) for row in ids]),
        "labels": _fill([(example.labels, IGNORED) for example in examples]),
        "prompt_ids": _fill([(row, pad_id) for row in prompts], left=True),
        "prompt_mask": _fill([([1] * len(row), 0) for row in prompts], left=True),
    }


def _fill(rows: Sequence[tuple[list[int], int]], *, left: bool = False) -> Tensor:
    longest = max(len(row) for row, _ in rows)
    filled = []
    for row, value in rows:
        rest = [value] * (longest - len(row))
        filled.append(rest + row if left else row + rest)
    return torch.tensor(filled, dtype=torch.int64)


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own; ChatML where it has none or one that adds a thinking block; else plain lines."""
    own: str | Mapping[str, Any] | None = tokenizer.chat_template
    if isinstance(own, Mapping):
        own = own.get("default")
    chatml = all(mark in tokenizer.get_vocab() for mark in _CHATML_MARKS)
    if own and not (chatml and "<think>" in own):
        return own
    return CHATML if chatml else PLAIN


def _adds_start(tokenizer: PreTrainedTokenizerBase) -> bool:
    start = tokenizer.bos_token_id
    return start is not None and tokenizer("a").input_ids[:1] == [start]


def _added_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer.added_tokens_decoder)
