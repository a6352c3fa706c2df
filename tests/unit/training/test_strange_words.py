from __future__ import annotations

import random

import pytest

from stream_judge.catalogue.texts import write_listing
from stream_judge.training.strange_words import with_strange_words
from stream_judge.training.tokenizer import random_product


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("form", ["title", "paragraphs", "spec"])
def test_mentions_stay_whole_and_found(form: str, language: str) -> None:
    rng = random.Random(5)
    changed = 0
    for _ in range(60):
        listing = write_listing(random_product(rng), form, language, rng)
        text, spans = with_strange_words(listing.text, listing.spans, language, rng)
        changed += text != listing.text
        before = [listing.text[begin:end] for _, begin, end in listing.spans]
        assert [text[begin:end] for _, begin, end in spans] == before
    assert 5 < changed < 45
