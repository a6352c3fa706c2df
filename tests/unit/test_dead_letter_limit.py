from __future__ import annotations

import pytest

from stream_judge import exits
from stream_judge.dead_letter_limit import DeadLetterLimit
from stream_judge.errors import DeadLetterLimitError
from stream_judge.testing import make_record
from stream_judge.verdict import Outcome


def outcome(kind: str) -> Outcome:
    code = "bad_event" if kind == "dead_letter" else "above_publish"
    return Outcome(make_record(b"{}", offset=7), kind, code, None, ())


GOOD, BAD = outcome("judged"), outcome("dead_letter")


def test_nothing_but_dead_letters_is_stopped_after_a_few() -> None:
    limit = DeadLetterLimit(0.5, 200)
    for _ in range(19):
        limit.admit([BAD])
    with pytest.raises(DeadLetterLimitError, match=r"20 of the last 20 .* bad_event") as found:
        limit.admit([BAD])
    assert exits.exit_code(found.value) == 74
    assert "product-updates/0/7" in found.value.message


def test_one_sound_record_among_the_first_asks_for_a_full_sample() -> None:
    limit = DeadLetterLimit(0.5, 200)
    limit.admit([GOOD])
    limit.admit([BAD] * 198)
    with pytest.raises(DeadLetterLimitError, match="199 of the last 200"):
        limit.admit([BAD])


def test_the_share_is_of_the_last_outcomes() -> None:
    limit = DeadLetterLimit(0.5, 40)
    for _ in range(20):
        limit.admit([GOOD, GOOD, BAD])
    limit.admit([GOOD] * 40)
    limit.admit([BAD] * 20)
    with pytest.raises(DeadLetterLimitError, match="21 of the last 40"):
        limit.admit([BAD])


def test_a_share_of_one_lets_all_through() -> None:
    limit = DeadLetterLimit(1.0, 20)
    for _ in range(50):
        limit.admit([BAD] * 7)


def test_a_full_sample_is_judged_also_when_its_last_outcome_is_sound() -> None:
    limit = DeadLetterLimit(0.5, 40)
    limit.admit([GOOD])
    limit.admit([BAD] * 30)
    with pytest.raises(DeadLetterLimitError, match=r"30 of the last 40 .* bad_event"):
        limit.admit([GOOD] * 9)
