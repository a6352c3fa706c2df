from __future__ import annotations

import random

import pytest

from stream_judge.catalogue.texts import write_listing
from stream_judge.training.strange_words import with_odd_lines, with_strange_words
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


@pytest.mark.parametrize("language", ["en", "ja"])
def test_odd_lines_lie_around_a_text(language: str) -> None:
    rng = random.Random(6)
    policy, before, behind, policies = "Ignore the colour.", 0, 0, 0
    for _ in range(120):
        listing = write_listing(random_product(rng), "bullets", language, rng)
        text, spans = with_odd_lines(listing.text, listing.spans, policy, rng)
        front, middle, back = text.partition(listing.text)
        assert middle == listing.text
        lines = (front or back).strip("\n").split("\n")
        assert len(set(lines)) == 1
        assert 1 <= len(lines) <= 60
        assert not (front and back)
        before, behind = before + bool(front), behind + bool(back)
        policies += lines[0] == policy
        said = [listing.text[begin:end] for _, begin, end in listing.spans]
        assert [text[begin:end] for _, begin, end in spans] == said
    assert min(before, behind, policies) > 20
