from __future__ import annotations

import re
import unicodedata
from types import ModuleType

import pytest

from stream_judge.catalogue import wording_en, wording_ja
from stream_judge.catalogue.phrasings import phrasings

MODULES = {"en": wording_en, "ja": wording_ja}
ENDINGS = {"en": ("", "a", "o", "s", "es", "is"), "ja": ("", "a", "o")}
# Sides that a section's lines name, and those that they must not name.
SIDES = {
    "POSITIVE": ({"in"}, {"out", "X"}),
    "NEGATIVE": ({"out"}, {"in", "X"}),
    "BOTH": ({"in", "out"}, {"X"}),
    "ALL": (set(), {"out", "X"}),
    "SAMPLES": (set(), {"in", "out", "X"}),
    "LEADS": (set(), {"in", "out", "X"}),
    "COUNTS": ({"X"}, {"in", "out"}),
    "FREE": ({"X"}, {"in", "out"}),
    "REST_COUNTS": (set(), {"in", "out", "X"}),
    "REST_FREE": (set(), {"in", "out", "X"}),
}
WHOLE = ("POSITIVE", "NEGATIVE", "BOTH", "ALL", "SAMPLES", "LEADS")


def words(line: str) -> str:
    """What is left of a phrasing without slots, signs and capitals."""
    return re.sub(r"\W+", " ", re.sub(r"\{\w+\}", "#", line.lower())).strip()


@pytest.mark.parametrize("split", ["train", "late", "dev"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_line_names_the_sides_of_its_section_once(language: str, split: str) -> None:
    for section, found in phrasings(language, split).items():
        wanted, unwanted = SIDES[section]
        for line in found:
            slots = re.findall(r"\{(in|out|X)(\w*)\}", line)
            assert line.count("{") == len(slots), line
            assert {ending for _, ending in slots} <= set(ENDINGS[language]), line
            names = [side for side, ending in slots if ending in ("", "a", "o")]
            assert wanted <= set(names), line
            assert not unwanted & {side for side, _ in slots}, line
            assert len(names) == len(set(names)), line


def held_out(language: str) -> set[str]:
    frames: ModuleType = MODULES[language]
    return {
        words(line)
        for kind in WHOLE
        for split in ("test", "wild")
        for line in getattr(frames, kind)[split]
    }


def of_split(language: str, split: str) -> set[str]:
    return {words(line) for found in phrasings(language, split).values() for line in found}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_no_split_has_a_phrasing_of_another(language: str) -> None:
    train = of_split(language, "train") | of_split(language, "late")
    dev, held = of_split(language, "dev"), held_out(language)
    assert not train & dev
    assert not held & (train | dev)


@pytest.mark.parametrize(("language", "least"), [("en", 200), ("ja", 100)])
def test_there_is_much_to_learn_from(language: str, least: int) -> None:
    found = phrasings(language, "train")
    late = phrasings(language, "late")
    assert set(found) == set(SIDES) >= set(late)
    for kind in ("POSITIVE", "NEGATIVE", "BOTH", "COUNTS", "FREE"):
        assert len(set(found[kind])) == len(found[kind]) >= least, kind
        assert len(late[kind]) >= 2 * least, kind
        assert not set(late[kind]) & set(found[kind]), kind


@pytest.mark.parametrize("language", ["en", "ja"])
def test_lines_are_as_the_model_reads_them(language: str) -> None:
    for split in ("train", "late", "dev"):
        for found in phrasings(language, split).values():
            for line in found:
                assert line == unicodedata.normalize("NFKC", line).strip()


def test_a_split_without_files_has_no_lines() -> None:
    assert phrasings("en", "test") == {}
