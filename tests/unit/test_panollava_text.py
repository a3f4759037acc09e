from __future__ import annotations

import json
import pickle

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from omma.errors import ConfigError
from omma.systems.panollava.config import LanguageSection, TextSection
from omma.systems.panollava.small_tokenizer import ENTRIES, SMALL_TOKENIZER, SPECIALS, train
from omma.systems.panollava.text import (
    CHATML,
    IGNORED,
    PANORAMA,
    PLAIN,
    Conversation,
    build_conversation,
    collate_text,
    load_tokenizer,
)

LLAMA = (
    "{{ '<s>' }}{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(LanguageSection(name="random"))


def other_tokenizer(*specials: str, **options: str) -> PreTrainedTokenizerFast:
    """The small one with other special tokens in the place of ChatML's."""
    content = SMALL_TOKENIZER.read_text(encoding="utf-8")
    for old, new in zip(SPECIALS, specials, strict=True):
        content = content.replace(json.dumps(old), json.dumps(new))
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(content), **options)


class TestSmallTokenizer:
    def test_reads_any_text(self, tokenizer) -> None:
        assert len(tokenizer) == ENTRIES
        text = "Where is the red ball? Äpfel, 日本, \U0001f600\n\ttwo  spaces"
        assert tokenizer.decode(tokenizer(text).input_ids) == text
        assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
        assert len(tokenizer("There is a red ball on the left of the wooden table.").input_ids) < 20
        assert SMALL_TOKENIZER.stat().st_size < 20_000

    def test_answers_of_the_world_are_one_id_a_word(self, tokenizer) -> None:
        for text in ("black", "a blue car and two people", "to the left", "nothing", "yes"):
            assert len(tokenizer(text).input_ids) == len(text.split()), text

    def test_its_file_is_what_its_words_give(self) -> None:
        fresh, shipped = json.loads(train()), json.loads(SMALL_TOKENIZER.read_text(encoding="utf-8"))
        assert fresh["model"]["vocab"] == shipped["model"]["vocab"]


class TestPrompt:
    def test_the_panorama_leads_the_question(self, tokenizer) -> None:
        talk = build_conversation(TextSection(query='What of "{query}"?'), tokenizer)
        ids = talk.prompt("the sky")
        place = ids.index(PANORAMA)
        assert ids.count(PANORAMA) == 1
        before = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        after = '\nWhat of "the sky"?<|im_end|>\n<|im_start|>assistant\n'
        assert tokenizer.decode(ids[:place]) == before
        assert tokenizer.decode(ids[place + 1 :]) == after

    def test_prefix_has_no_place(self, tokenizer) -> None:
        assert PANORAMA not in Conversation(tokenizer, placement="prefix").prompt("sky")

    def test_without_system_message(self, tokenizer) -> None:
        text = tokenizer.decode(Conversation(tokenizer, system="", placement="prefix").prompt("sky"))
        assert text == "<|im_start|>user\nsky<|im_end|>\n<|im_start|>assistant\n"

    def test_a_prompt_without_room_for_an_answer(self, tokenizer) -> None:
        with pytest.raises(ConfigError, match=r"system.text.max_length is 20"):
            Conversation(tokenizer, max_length=20).prompt("sky")

    def test_survives_the_way_to_a_worker(self, tokenizer) -> None:
        talk = Conversation(tokenizer)
        assert pickle.loads(pickle.dumps(talk)).encode("sky", "It is blue.") == talk.encode(
            "sky", "It is blue."
        )


class TestTemplates:
    def test_a_thinking_block_is_left_out(self) -> None:
        tokenizer = other_tokenizer(*SPECIALS, eos_token="<|im_end|>")
        tokenizer.chat_template = CHATML + "{{ '<think>\n\n</think>' }}"
        talk = Conversation(tokenizer)
        assert talk.template == CHATML
        assert talk.stop_ids == [2]

    def test_the_tokenizer_s_own_template_and_stop(self) -> None:
        tokenizer = other_tokenizer("<s>", "</s>", "<pad>", bos_token="<s>", eos_token="</s>")
        tokenizer.chat_template = LLAMA
        talk = Conversation(tokenizer, placement="prefix", system="")
        example = talk.encode("sky", "blue")
        assert tokenizer.decode(example.input_ids) == "<s>[user]sky</s>[assistant]blue</s>"
        assert talk.stop_id == tokenizer.eos_token_id

    def test_plain_lines_where_there_is_none(self) -> None:
        tokenizer = other_tokenizer("<s>", "</s>", "<pad>", eos_token="</s>")
        talk = Conversation(tokenizer, placement="prefix", system="Look.")
        assert talk.template == PLAIN
        example = talk.encode("sky", "blue")
        assert tokenizer.decode(example.input_ids) == "Look.\nsky\nAnswer: blue</s>"
        assert example.learned == len(tokenizer("blue").input_ids) + 1

    def test_no_end_of_text(self) -> None:
        with pytest.raises(ConfigError, match="no end of text"):
            Conversation(other_tokenizer("<s>", "</s>", "<pad>"))


class TestExample:
    def test_answer_and_stop_are_learned(self, tokenizer) -> None:
        example = Conversation(tokenizer).encode("sky", "  It is blue.\n")
        learned = [label for label in example.labels if label != IGNORED]
        assert tokenizer.decode(learned) == "It is blue.<|im_end|>"
        assert example.labels[: len(example.prompt_ids)] == [IGNORED] * len(example.prompt_ids)
        assert example.input_ids[-1] == example.labels[-1] == 2

    def test_a_long_answer_is_cut_at_its_end(self, tokenizer) -> None:
        talk = Conversation(tokenizer, max_length=40)
        example = talk.encode("sky", "blue " * 50)
        assert len(example.input_ids) == 40
        assert example.prompt_ids == talk.prompt("sky")
        assert example.cut > 0
        assert example.labels[-1] != talk.stop_id, "a sentence that was cut does not end"

    def test_decode_leaves_special_tokens_out(self, tokenizer) -> None:
        talk = Conversation(tokenizer)
        ids = tokenizer(" It is blue.").input_ids
        assert talk.decode(torch.tensor([*ids, 2, 0, 0])) == "It is blue."


def test_batches_are_filled_up_on_the_right_sides(tokenizer) -> None:
    talk = Conversation(tokenizer)
    examples = [talk.encode("sky", "blue"), talk.encode("what is the colour of the sky", "It is blue.")]
    batch = collate_text(examples, talk.pad_id)
    short, long = (len(example.input_ids) for example in examples)
    assert batch["input_ids"].shape == (2, long)
    assert batch["input_ids"][0, short:].tolist() == [talk.pad_id] * (long - short)
    assert batch["attention_mask"].sum(1).tolist() == [short, long]
    assert (batch["labels"][0, short:] == IGNORED).all()
    assert batch["prompt_ids"][0, -1] == examples[0].prompt_ids[-1]
    assert batch["prompt_mask"].sum(1).tolist() == [len(example.prompt_ids) for example in examples]
    assert batch["prompt_mask"][0, 0] == 0
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_a_missing_tokenizer_says_what_to_do(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="cannot be had") as error:
        load_tokenizer(LanguageSection(tokenizer=str(tmp_path / "absent")))
    assert "system.language.tokenizer" in str(error.value.hint)
