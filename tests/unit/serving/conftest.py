"""A small tokenizer and a template for it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def make_tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<image>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(["Text: red mug\nAnswer: Yes\nAnswer: No"] * 5, trainer)
    return made


@pytest.fixture
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture
def template() -> dict[str, str | int]:
    return {
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
        "max_text_tokens": 40,
    }
