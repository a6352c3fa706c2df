"""The byte-level BPE of tiny-llava-re, trained on the texts the catalogue writes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.texts import write_listing
from stream_judge.catalogue.wording import write_instruction, write_sample_instruction
from stream_judge.training.rules import RULES

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
#: Written into the checkpoint; see `stream_judge.serving.prompt` for what each part is.
PROMPT: dict[str, str | int] = {
    "version": 1,
    "bos": "<s>",
    "image": "<image>",
    "before_instruction": "Instruction: ",
    "after_instruction": "\n",
    "before_image": "",
    "after_image": "Text:",
    "text_prefix": " ",
    "after_text": "\nAnswer:",
    "positive": " Yes",
    "negative": " No",
    "after_answer": "\n",
    "max_text_tokens": 768,
}
# Japanese has no spaces: without this whole clauses become entries, and a phrasing that
# training did not have falls into pieces that it did not have either.
_SCRIPTS = r"[\p{Katakana}ー]+|\p{Hiragana}+|\p{Han}+"
_FORMS = ("title", "title", "title", "bullets", "paragraphs", "long", "spec")


def random_product(rng: random.Random) -> Product:
    """A product with every attribute value equally likely."""
    return Product(*(rng.randrange(size) for size in SIZES))


def _corpus(texts: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for number in range(texts):
        language = ("en", "ja")[number % 2]
        form = rng.choice(_FORMS)
        yield " " + write_listing(random_product(rng), form, language, rng).text
        yield "\nAnswer: Yes\nAnswer: No\nText:"
        counts = frozenset(rng.choice(RULES))
        yield "Instruction: " + write_instruction(counts, language, rng)
        yield "Instruction: " + write_sample_instruction(language, rng)


def train_tokenizer(vocabulary: int, seed: int, *, texts: int = 6000) -> Tokenizer:
    """A byte-level BPE of exactly `vocabulary` entries.

    Args:
        vocabulary: Number of entries, special tokens and the 256 bytes included.
        seed: Seed of the texts it is trained on; the same seed gives the same entries.
        texts: How many listings it sees.
    """
    tokenizer = Tokenizer(models.BPE())
    # "Red", "red" and "RED" are one word: titles have capitals wherever a seller likes them.
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SCRIPTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(texts, seed), trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer
