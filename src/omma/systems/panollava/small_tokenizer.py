"""The tokenizer of random language models: byte-level BPE with ChatML's special tokens, 860 entries.

`python -m omma.systems.panollava.small_tokenizer` makes its file anew from the words below. It reads any
text, for every byte has an entry.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

SMALL_TOKENIZER = Path(__file__).parent / "assets" / "tokenizer.json"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ENTRIES = 860  # each word is one, with and without a space before it

# Common words of scene descriptions, the more often the earlier in the list.
WORDS = """
the a of is there on in and with to are left right front behind back side you can see room wall floor
ceiling window door table chair sofa lamp bed box ball plant shelf picture desk carpet red green blue yellow
white black brown grey orange purple pink cyan large small wide tall round bright dark wooden metal glass
what where how many which color colour object objects kind panorama image view scene place stands lies hangs
next between above below near far around centre middle corner people person man woman walking standing
sitting building buildings street road car cars tree trees sky cloud clouds sun grass water bridge shop
station platform church tower stairs weather sunny cloudy indoors outdoors interior location furniture it
this that they one two three four five six no yes none some several other another has have not please
describe provide detailed concise description answer assistant user system helpful truck bus motorcycle
nothing nobody somebody
""".split()
# Words that begin a sentence; answers begin with any word, and without a space.
FIRST_WORDS = "A The What Where How Which Is Are There It This They One You I No Yes Nothing Describe".split()


def train(entries: int = ENTRIES) -> str:
    """The content of the tokenizer's file, a function of the words above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    often = [f" {word}" for rank, word in enumerate(WORDS) for _ in range(1 + (len(WORDS) - rank) // 20)]
    tokenizer.train_from_iterator([*often, *WORDS, *FIRST_WORDS], trainer)
    return tokenizer.to_str()


def main() -> None:
    """Write the file."""
    SMALL_TOKENIZER.parent.mkdir(exist_ok=True)
    unfinished = SMALL_TOKENIZER.with_suffix(".tmp")
    compact = json.dumps(json.loads(train()), ensure_ascii=False, separators=(",", ":"))
    unfinished.write_text(compact + "\n", encoding="utf-8")
    os.replace(unfinished, SMALL_TOKENIZER)  # noqa: PTH105  replaces on Windows too


if __name__ == "__main__":
    main()
