"""The checker is fed with logs that break a promise: it has to say which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.kafka.chaos.checker import Findings, Outcome, SourceEntry, Terms, check, passed_over


def update(product: str, revision: int) -> bytes:
    return orjson.dumps({"id": product, "revision": revision})


def verdict(product: str, revision: int | None, outcome: str = "judged") -> bytes:
    return orjson.dumps({"product_id": product, "revision": revision, "outcome": outcome})


SOURCE = [
    SourceEntry((0, 0), b"a", update("a", 1), "verdict"),
    SourceEntry((0, 1), b"b", b"{", "both", {"trace": b"1"}),
    SourceEntry((0, 2), b"a", update("a", 2), "verdict"),
    SourceEntry((1, 0), None, None, "letter"),
    SourceEntry((1, 1), None, update("c", 3), "verdict"),
    SourceEntry((1, 2), b"d", None, "tombstone"),
]
VERDICTS = [
    Outcome((0, 0), b"a", verdict("a", 1), 0),
    Outcome((0, 1), b"b", verdict("b", None, "unjudgeable"), 1),
    Outcome((0, 2), b"a", verdict("a", 2), 0),
    Outcome((1, 1), b"c", verdict("c", 3), 0),
    Outcome((1, 2), b"d", None, 1),
]
LETTERS = [
    Outcome((0, 1), b"b", b"{", 0, {"trace": b"1", "sj-code": b"bad_event"}),
    Outcome((1, 0), None, b"", 0, {"sj-null": b"1"}),
]
COMMITTED = {0: 3, 1: 3}
# A transaction's marker may stand behind the last record.
ENDS = {0: 3, 1: 4}
TERMS = Terms(max_record_bytes=32_000)


def judge(
    verdicts: Sequence[Outcome] = VERDICTS,
    letters: Sequence[Outcome] = LETTERS,
    *,
    committed: Mapping[int, int] = COMMITTED,
    terms: Terms | None = TERMS,
) -> Findings:
    return check(SOURCE, verdicts, letters, committed, ends=ENDS, terms=terms)


def changed(outcomes: list[Outcome], number: int, **change: Any) -> list[Outcome]:
    """The outcomes, one of them with something else in it."""
    other = replace(outcomes[number], **change)
    return [*outcomes[:number], other, *outcomes[number + 1 :]]


def test_a_sound_log_is_sound() -> None:
    found = judge()
    assert found.sound
    assert found.broken == {}
    assert (found.dead_letters, found.dead_letters_expected) == (2, 2)


@pytest.mark.parametrize("missing", range(len(VERDICTS)))
def test_one_lost_verdict_is_found_and_so_is_the_offset_behind_it(missing: int) -> None:
    found = judge(VERDICTS[:missing] + VERDICTS[missing + 1 :])
    assert found.broken == {"lost": 1, "committed_past": 1}
    assert not found.sound


@pytest.mark.parametrize("missing", range(len(LETTERS)))
def test_one_lost_dead_letter_is_found(missing: int) -> None:
    letters = LETTERS[:missing] + LETTERS[missing + 1 :]
    found = check(SOURCE, VERDICTS, letters, {}, terms=TERMS)
    assert found.broken == {"lost": 1}
    assert found.dead_letters < found.dead_letters_expected


def test_one_repeated_verdict_is_found() -> None:
    assert judge([*VERDICTS, VERDICTS[3]]).broken == {"repeated": 1}


def test_a_repeated_verdict_on_another_partition_is_found() -> None:
    strayed = replace(VERDICTS[2], partition=1)
    assert judge([*VERDICTS, strayed]).broken == {"repeated": 1, "strayed": 1}


def test_a_dead_letter_for_a_sound_record_is_found() -> None:
    stray = Outcome((0, 2), b"a", SOURCE[2].value, 0)
    found = judge(letters=[*LETTERS, stray])
    assert found.broken == {"repeated": 1}
    assert found.dead_letters == found.dead_letters_expected + 1


def test_an_outcome_of_a_record_that_is_not_there_is_found() -> None:
    stray = Outcome((5, 9), b"z", b"v", 1)
    assert judge([*VERDICTS, stray]).broken == {"repeated": 1}


def test_two_verdicts_of_a_product_the_wrong_way_round_are_found() -> None:
    turned = [VERDICTS[number] for number in (2, 1, 0, 3, 4)]
    assert judge(turned).broken == {"order_breaks": 1}


def test_verdicts_of_different_products_the_wrong_way_round_are_found() -> None:
    source = [replace(SOURCE[0], place=(0, n), key=b"%d" % n) for n in range(4)]
    verdicts = [Outcome((0, n), b"%d" % n, b"v", 0) for n in reversed(range(4))]
    assert check(source, verdicts, [], {0: 4}).broken == {"order_breaks": 3}


def test_verdicts_on_different_partitions_may_come_in_any_order() -> None:
    turned = [VERDICTS[number] for number in (4, 1, 3, 0, 2)]
    assert judge(turned).sound


def test_two_verdicts_of_a_product_on_two_partitions_are_found() -> None:
    turned = [replace(VERDICTS[2], partition=1), *VERDICTS[:2], *VERDICTS[3:]]
    assert "strayed" in judge(turned).broken


def test_an_offset_past_an_outcome_is_found_before_the_log_ends() -> None:
    places = [verdict.place for verdict in VERDICTS[:2]]
    assert passed_over(SOURCE, places, [(0, 1)], {0: 2}) == set()
    assert passed_over(SOURCE, places, [(0, 1)], {0: 3}) == {(0, 2)}
    assert passed_over(SOURCE, places, [], {0: 2}) == {(0, 1)}


def test_a_record_that_was_passed_over_for_a_while_is_counted_once() -> None:
    found = check(SOURCE, VERDICTS, LETTERS, COMMITTED, passed=[(0, 2)])
    assert found.broken == {"committed_past": 1}
    lost = check(SOURCE, VERDICTS[:-1], LETTERS, COMMITTED, passed=[(1, 2)])
    assert lost.broken == {"lost": 1, "committed_past": 1}


@pytest.mark.parametrize("committed", [{0: 3}, {0: 3, 1: 2}, {0: 3, 1: 0}, {0: 3, 1: 5}])
def test_an_offset_that_is_not_behind_the_last_record_is_found(committed: dict[int, int]) -> None:
    assert judge(committed=committed).broken == {"misplaced": 1}


def test_an_offset_behind_a_marker_is_sound() -> None:
    assert judge(committed={0: 3, 1: 4}).sound


def test_an_update_that_was_not_judged_is_found() -> None:
    verdicts = changed(VERDICTS, 0, value=verdict("a", 1, "unjudgeable"))
    assert judge(verdicts).broken == {"unjudged": 1}
    assert judge(verdicts, terms=None).sound


def test_an_update_that_could_not_be_judged_has_to_be_unjudgeable() -> None:
    source = [replace(SOURCE[0], expect="unjudgeable")]
    ends = {"committed": {0: 1}, "ends": {0: 1}, "terms": TERMS}

    def judge_one(value: bytes) -> Findings:
        return check(source, [Outcome((0, 0), b"a", value, 0)], [], **ends)

    assert judge_one(verdict("a", 1, "unjudgeable")).sound
    assert judge_one(verdict("a", 1)).broken == {"mistaken": 1}
    assert judge_one(verdict("a", 2, "unjudgeable")).broken == {"mistaken": 1}
    assert check(source, [], [], **ends).broken == {"lost": 1, "committed_past": 1}


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"value": verdict("c", 1)}),
        (0, {"value": verdict("a", 2)}),
        (0, {"value": b"v"}),
        (0, {"value": None}),
        (1, {"value": None}),
        (1, {"value": verdict("b", None)}),
        (1, {"key": b"x", "value": verdict("x", None, "unjudgeable")}),
        (3, {"key": None}),
        (4, {"value": verdict("d", None)}),
        (4, {"key": b"x"}),
    ],
    ids=[
        "another product",
        "another revision",
        "no JSON",
        "a tombstone for an update",
        "a tombstone for a dead letter",
        "judged, of a dead letter",
        "another key",
        "no key",
        "a verdict for a tombstone",
        "another tombstone",
    ],
)
def test_a_verdict_that_is_not_of_its_record_is_found(number: int, change: dict[str, Any]) -> None:
    verdicts = changed(VERDICTS, number, **change)
    assert judge(verdicts).broken == {"mistaken": 1}
    assert judge(verdicts, terms=None).sound


@pytest.mark.parametrize(
    "change", [{"value": b"{}"}, {"key": b"x"}, {"value": None}, {"headers": {"trace": b"2"}}]
)
def test_a_dead_letter_with_other_bytes_is_found(change: dict[str, Any]) -> None:
    assert judge(letters=changed(LETTERS, 0, **change)).broken == {"altered": 1}


def omitted(value: bytes) -> dict[str, bytes]:
    digest = hashlib.sha256(value).hexdigest().encode()
    return {"sj-value-omitted": b"1", "sj-value-sha256": digest}


def test_a_value_that_was_left_out_must_be_named_by_its_digest() -> None:
    value = b"{" * 32_000
    source = [SourceEntry((0, 0), b"b", value, "both")]
    verdicts = [Outcome((0, 0), b"b", verdict("b", None, "unjudgeable"), 0)]
    named = Outcome((0, 0), b"b", None, 0, omitted(value))
    assert check(source, verdicts, [named], {0: 1}, terms=TERMS).sound
    wrong = replace(named, headers=omitted(b"{"))
    assert check(source, verdicts, [wrong], {0: 1}, terms=TERMS).broken == {"altered": 1}


def test_a_value_that_was_left_out_without_need_is_found() -> None:
    letters = changed(LETTERS, 0, value=None, headers={"trace": b"1", **omitted(b"{")})
    assert judge(letters=letters).broken == {"altered": 1}
    assert judge(letters=letters, terms=None).sound
