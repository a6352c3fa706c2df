"""The checker is fed with logs that break a promise: it has to say which."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.kafka.chaos.checker import Findings, Outcome, SourceEntry, check, passed_over

SOURCE = [
    SourceEntry((0, 0), b"a", b"1", "verdict"),
    SourceEntry((0, 1), b"b", b"{", "both"),
    SourceEntry((0, 2), b"a", b"2", "verdict"),
    SourceEntry((1, 0), None, None, "letter"),
    SourceEntry((1, 1), b"c", b"3", "verdict"),
]
VERDICTS = [
    Outcome((0, 0), b"a", b"v", 0),
    Outcome((0, 1), b"b", b"v", 1),
    Outcome((0, 2), b"a", b"v", 0),
    Outcome((1, 1), b"c", b"v", 0),
]
LETTERS = [
    Outcome((0, 1), b"b", b"{", 0),
    Outcome((1, 0), None, b"", 0, {"sj-null": b"1"}),
]
COMMITTED = {0: 3, 1: 2}


def broken(found: Findings) -> dict[str, int]:
    names = ("lost", "repeated", "order_breaks", "committed_past", "altered")
    return {name: many for name in names if (many := getattr(found, name))}


def test_a_sound_log_is_sound() -> None:
    found = check(SOURCE, VERDICTS, LETTERS, COMMITTED)
    assert found.sound
    assert broken(found) == {}
    assert (found.dead_letters, found.dead_letters_expected) == (2, 2)


@pytest.mark.parametrize("missing", range(len(VERDICTS)))
def test_one_lost_verdict_is_found_and_so_is_the_offset_behind_it(missing: int) -> None:
    verdicts = VERDICTS[:missing] + VERDICTS[missing + 1 :]
    found = check(SOURCE, verdicts, LETTERS, COMMITTED)
    assert broken(found) == {"lost": 1, "committed_past": 1}
    assert not found.sound


@pytest.mark.parametrize("missing", range(len(LETTERS)))
def test_one_lost_dead_letter_is_found(missing: int) -> None:
    letters = LETTERS[:missing] + LETTERS[missing + 1 :]
    found = check(SOURCE, VERDICTS, letters, {})
    assert broken(found) == {"lost": 1}
    assert found.dead_letters < found.dead_letters_expected


def test_one_repeated_verdict_is_found() -> None:
    assert broken(check(SOURCE, [*VERDICTS, VERDICTS[3]], LETTERS, COMMITTED)) == {"repeated": 1}


def test_a_repeated_verdict_on_another_partition_is_found() -> None:
    strayed = replace(VERDICTS[3], partition=1)
    assert broken(check(SOURCE, [*VERDICTS, strayed], LETTERS, COMMITTED)) == {"repeated": 1}


def test_a_dead_letter_for_a_sound_record_is_found() -> None:
    stray = Outcome((0, 0), b"a", b"1", 0)
    found = check(SOURCE, VERDICTS, [*LETTERS, stray], COMMITTED)
    assert broken(found) == {"repeated": 1}
    assert found.dead_letters == found.dead_letters_expected + 1


def test_an_outcome_of_a_record_that_is_not_there_is_found() -> None:
    stray = Outcome((5, 9), b"z", b"v", 1)
    assert broken(check(SOURCE, [*VERDICTS, stray], LETTERS, COMMITTED)) == {"repeated": 1}


def test_two_verdicts_of_a_product_the_wrong_way_round_are_found() -> None:
    turned = [VERDICTS[2], VERDICTS[1], VERDICTS[0], VERDICTS[3]]
    assert broken(check(SOURCE, turned, LETTERS, COMMITTED)) == {"order_breaks": 1}


def test_verdicts_of_different_products_may_come_in_any_order() -> None:
    turned = [VERDICTS[1], VERDICTS[3], VERDICTS[0], VERDICTS[2]]
    assert check(SOURCE, turned, LETTERS, COMMITTED).sound


def test_an_offset_past_an_outcome_is_found_before_the_log_ends() -> None:
    assert passed_over(SOURCE, VERDICTS[:2], LETTERS[:1], {0: 2}) == 0
    assert passed_over(SOURCE, VERDICTS[:2], LETTERS[:1], {0: 3}) == 1
    assert passed_over(SOURCE, VERDICTS[:2], [], {0: 2}) == 1


@pytest.mark.parametrize("change", [{"value": b"{}"}, {"key": b"x"}, {"value": None}])
def test_a_dead_letter_with_other_bytes_is_found(change: dict[str, bytes | None]) -> None:
    letters = [replace(LETTERS[0], **change), LETTERS[1]]  # type: ignore[arg-type]  # both are bytes
    assert broken(check(SOURCE, VERDICTS, letters, COMMITTED)) == {"altered": 1}


def test_a_value_that_was_left_out_must_be_named_by_its_digest() -> None:
    right = hashlib.sha256(b"{").hexdigest().encode()
    headers = {"sj-value-omitted": b"1", "sj-value-sha256": right}
    named = replace(LETTERS[0], value=None, headers=headers)
    assert check(SOURCE, VERDICTS, [named, LETTERS[1]], COMMITTED).sound
    wrong = replace(named, headers={**headers, "sj-value-sha256": b"0" * 64})
    assert broken(check(SOURCE, VERDICTS, [wrong, LETTERS[1]], COMMITTED)) == {"altered": 1}
