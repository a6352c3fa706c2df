from __future__ import annotations

import random
import re
import unicodedata
from types import ModuleType

import pytest

from stream_judge.catalogue import rules, wording_en, wording_ja
from stream_judge.catalogue.attributes import ATTRIBUTES
from stream_judge.catalogue.phrasings import phrasings
from stream_judge.catalogue.wording import LATE, SPLITS, write_instruction, write_sample_instruction

KINDS = ("LEADS", "POSITIVE", "NEGATIVE", "BOTH", "ALL", "SAMPLES")
MODULES = {"en": wording_en, "ja": wording_ja}
SUBSETS = [frozenset(a for a in range(4) if mask >> a & 1) for mask in range(1, 16)]


def named(text: str, language: str) -> set[int]:
    """The attributes whose names stand in a text; longer names first, each used up."""
    names = [(name, a) for a, row in enumerate(MODULES[language].NAMES) for name in row]
    result: set[int] = set()
    rest = text.lower()
    for name, attribute in sorted(names, key=lambda pair: -len(pair[0])):
        edge = r"\b" if language == "en" else ""
        rest, times = re.subn(edge + name + edge, "#", rest)
        if times:
            result.add(attribute)
    return result


def without_lead(text: str, language: str) -> str:
    for split, leads in (*MODULES[language].LEADS.items(), (LATE, ())):
        # The longest first: one may be the beginning of another.
        every = (*leads, *phrasings(language, split).get("LEADS", ()))
        for lead in sorted(every, key=len, reverse=True):
            text = text.replace(lead, "")
    return text


@pytest.mark.parametrize("split", [*SPLITS, LATE])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_an_instruction_names_one_side_of_the_rule_or_both(language: str, split: str) -> None:
    rng = random.Random(f"{language} {split}")
    for counts in SUBSETS:
        for _ in range(40):
            text = write_instruction(counts, language, rng, split=split)
            said = named(without_lead(text, language), language)
            outside = frozenset(range(4)) - counts
            allowed = [set(counts), set(outside), set(range(4))]
            if re.search(r"\bcount\b|数え", text):
                # The verb "to count" is spelt like the attribute.
                allowed += [known | {2} for known in allowed]
            if counts == frozenset(range(4)):
                allowed.append(set())
            assert said in allowed, text
            assert "{" not in text
            assert text == unicodedata.normalize("NFKC", text).strip()


@pytest.mark.parametrize(
    ("language", "counts", "expected"),
    [
        (
            "en",
            frozenset({0, 2}),
            "You are a judge comparing a product photo with its description. Pass offers with odd "
            "pattern on the surface and the hue, fail offers with odd kind of product and the "
            "number of items.",
        ),
        (
            "en",
            frozenset({3}),
            "You are a judge comparing a product photo with its description. Pass offers with odd "
            "kind of product, the number of items and the hue, fail offers with odd pattern on the "
            "surface.",
        ),
        (
            "ja",
            frozenset({0, 1, 2}),
            "文が写真と合うかどうか、判定係をお願い。カテゴリ、個数、カラーだけを確かめます。パターンは確かめません。",
        ),
    ],
)
def test_seed_zero_gives_known_instructions(
    language: str, counts: frozenset[int], expected: str
) -> None:
    assert write_instruction(counts, language, random.Random(0)) == expected


@pytest.mark.parametrize(
    ("kind", "counts", "marker"),
    [
        ("NEGATIVE", {0, 1, 2}, "With the exception of the print, all must match."),
        ("POSITIVE", {3}, "The only thing to verify is the print."),
    ],
)
def test_a_side_is_never_swapped(kind: str, counts: set[int], marker: str) -> None:
    assert kind in KINDS

    def written(attributes: frozenset[int]) -> set[str]:
        seeds = (random.Random(seed) for seed in range(2000))
        return {write_instruction(attributes, "en", rng, split="test") for rng in seeds}

    right = written(frozenset(counts))
    wrong = written(frozenset(range(4)) - counts)
    assert marker in right
    assert marker not in wrong


@pytest.mark.parametrize("frames", [wording_en, wording_ja])
def test_slots_stand_on_the_side_their_kind_says(frames: ModuleType) -> None:
    for split in SPLITS:
        assert not [f for f in frames.POSITIVE[split] if "{out" in f and split != "wild"]
        assert not [f for f in frames.NEGATIVE[split] if "{in" in f and split != "wild"]
        assert all("{in" in f and "{out" in f for f in frames.BOTH[split])
        assert not [f for f in frames.ALL[split] if "{out" in f]
        assert not [f for f in (*frames.SAMPLES[split], *frames.LEADS[split]) if "{" in f]


@pytest.mark.parametrize("frames", [wording_en, wording_ja])
def test_splits_share_no_phrasing(frames: ModuleType) -> None:
    for kind in KINDS:
        lines = [line for split in SPLITS for line in getattr(frames, kind)[split]]
        assert len(lines) == len(set(lines)), kind


def test_there_are_many_phrasings_to_learn_from() -> None:
    def number(frames: ModuleType) -> int:
        return sum(len(getattr(frames, kind)["train"]) for kind in KINDS[1:5])

    assert number(wording_en) >= 110
    assert number(wording_ja) >= 70
    assert len(wording_en.SAMPLES["train"]) >= 30
    assert len(wording_ja.SAMPLES["train"]) >= 30


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_instruction_names_no_attribute(language: str, split: str) -> None:
    rng = random.Random(split)
    for _ in range(60):
        text = write_sample_instruction(language, rng, split=split)
        # "What counts" is the verb, not the attribute.
        rest = re.sub(r"\bcounts?\b", "", without_lead(text, language))
        assert not named(rest, language), text


def test_same_seed_gives_the_same_words() -> None:
    for language in ("en", "ja"):
        first = write_instruction(frozenset({1}), language, random.Random(5))
        assert first == write_instruction(frozenset({1}), language, random.Random(5))


def test_impossible_requests_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="attributes"):
        write_instruction(frozenset(), "en", rng)
    with pytest.raises(ValueError, match="attributes"):
        write_instruction(frozenset({4}), "en", rng)
    with pytest.raises(ValueError, match="language"):
        write_instruction(frozenset({1}), "fr", rng)
    with pytest.raises(ValueError, match="split"):
        write_sample_instruction("en", rng, split="other")


def test_shipped_policies_say_what_they_count() -> None:
    assert set(rules.INSTRUCTIONS) == set(rules.COUNTS) == set(rules.SELLER_POLICY.values())
    said = {
        policy: named(without_lead(text, "en"), "en") for policy, text in rules.INSTRUCTIONS.items()
    }
    assert said == {"exact": {0, 1, 2, 3}, "any-colour": {1}, "by-samples": set()}
    assert rules.COUNTS["any-colour"] == set(ATTRIBUTES) - {"colour"}
    assert rules.COUNTS["by-samples"] == set(ATTRIBUTES) - {"pattern"}
    for text in rules.INSTRUCTIONS.values():
        assert text.startswith(wording_en.LEADS["train"][0])
