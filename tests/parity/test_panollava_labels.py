"""What of a conversation is learned, against the recommended masking worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fill import load_arrays
from transformers import PreTrainedTokenizerFast

from omma.systems.panollava.config import LanguageSection
from omma.systems.panollava.text import Conversation, load_tokenizer

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "panollava"


def test_answer_and_one_stop_token_are_learned() -> None:
    arrays = load_arrays(CASES / "labels.npz")
    tokenizer = load_tokenizer(LanguageSection(tokenizer=str(CASES / "tiny_tokenizer.json")))
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    conversation = Conversation(tokenizer, max_length=120, placement="prefix")
    assert conversation.stop_ids == [2, 0]
    for index, (query, answer) in enumerate(arrays["rows"]):
        example = conversation.encode(str(query), str(answer))
        assert example.input_ids == arrays[f"target_{index}_input_ids"].tolist()
        assert example.labels == arrays[f"target_{index}_labels"].tolist()
        assert example.cut == 0
        assert example.prompt_ids == example.input_ids[: -example.learned]
