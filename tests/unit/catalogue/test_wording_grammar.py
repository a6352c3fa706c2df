from __future__ import annotations

import random
import re
from types import ModuleType

import pytest

from stream_judge.catalogue import wording_en, wording_ja, wording_parts_en, wording_parts_ja
from stream_judge.catalogue.wording import KINDS, compose_instruction
from stream_judge.catalogue.wording_grammar import compose_frame

PARTS = {"en": wording_parts_en, "ja": wording_parts_ja}
WHOLE = {"en": wording_en, "ja": wording_ja}
SIDES = ("COUNTS", "FREE", "ONLY_COUNTS", "ONLY_FREE")
FILLED = {"POSITIVE": {"in"}, "NEGATIVE": {"ou"}, "BOTH": {"in", "ou"}, "ALL": {"in"}}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_a_clause_names_its_side_once_and_the_rest_names_none(parts: ModuleType) -> None:
    for name in (*SIDES, "NONCE"):
        for clause in getattr(parts, name):
            assert len(re.findall(r"\{X[ao]\}", clause)) == 1, clause
            assert set(re.findall(r"\{(\w+)\}", clause)) <= {
                "Xa",
                "Xo",
                "Xs",
                "Xes",
                "Xis",
                "nonce",
            }
    for name in ("REST_COUNTS", "REST_FREE", "ALL_COUNT"):
        assert not [clause for clause in getattr(parts, name) if "{" in clause]
    everything = [clause for name in (*SIDES, "REST_COUNTS") for clause in getattr(parts, name)]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", FILLED)
def test_frames_have_only_slots_of_the_sides_they_name(kind: str, language: str) -> None:
    rng = random.Random(f"{kind} {language}")
    for _ in range(300):
        frame = compose_frame(kind, language, rng.random)
        sides = {slot[:2] for _, slot in frame if slot}
        assert sides == FILLED[kind] or (kind == "ALL" and not sides)
        text = "".join(literal for literal, _ in frame)
        assert "{" not in text
        assert text.endswith((".", "。"))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_no_whole_frame_of_a_held_out_split_is_put_together(language: str) -> None:
    rng = random.Random(language)
    frames = WHOLE[language]
    held_out = {
        line.rstrip(".。").lower()
        for kind in KINDS[:4]
        for split in ("dev", "test", "wild")
        for line in getattr(frames, kind)[split]
    }
    for kind in FILLED:
        for _ in range(2000):
            frame = compose_frame(kind, language, rng.random)
            text = "".join(part + (f"{{{slot}}}" if slot else "") for part, slot in frame)
            assert text.rstrip(".。").lower() not in held_out


def test_what_an_instruction_mentions_follows_its_kind() -> None:
    rng = random.Random(3)
    counts = frozenset({0, 2})
    outside = frozenset({1, 3})
    expected = {"POSITIVE": counts, "NEGATIVE": outside, "BOTH": counts | outside}
    for _ in range(200):
        made = compose_instruction(counts, rng.choice(["en", "ja"]), rng)
        assert made.mentioned == expected[made.kind]
    assert compose_instruction(frozenset(), "en", rng).kind == "SAMPLES"
