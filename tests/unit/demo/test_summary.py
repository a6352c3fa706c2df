from __future__ import annotations

import pytest

from stream_judge.demo.readback import Seen
from stream_judge.demo.summary import Summary, summarise
from tests.unit.demo.shop import bad_event, fed, letter, seen, tombstone, truth, unjudgeable

# What comes of an update that ends as it was drawn to.
RIGHT = {
    "judged": [seen(0)],
    "unjudgeable": [unjudgeable(0)],
    "dead_letter": [letter(0), bad_event(0)],
    "tombstone": [tombstone(0)],
}


def one(expect: str, records: list[Seen]) -> Summary:
    return summarise([fed(0)], records, [truth(expect)], 0.0)


def test_a_complete_run() -> None:
    lines = [truth(), truth(relevant=False)]
    summary = summarise([fed(0), fed(1)], [seen(0), seen(1)], lines, 2.0)
    assert summary.delivered
    assert (summary.accuracy, summary.false_publish, summary.false_block) == (0.5, 1, 0)
    assert summary.latency_p50_ms == 100
    # A wrong verdict is an outcome of the right kind.
    assert (summary.expected, summary.unexpected, summary.passed) == (2, (), True)


@pytest.mark.parametrize(
    ("records", "lost", "duplicates", "order_breaks"),
    [
        ([seen(0)], 1, 0, 0),
        ([seen(0), seen(1), seen(1)], 0, 1, 0),
        ([seen(1), seen(0)], 0, 0, 1),
        ([seen(0), seen(1), seen(0)], 0, 1, 1),
    ],
)
def test_what_goes_wrong_is_counted(
    records: list[Seen], lost: int, duplicates: int, order_breaks: int
) -> None:
    summary = summarise([fed(0), fed(1)], records, [truth()] * 2, 0.0)
    assert (summary.lost, summary.duplicates, summary.order_breaks) == (
        lost,
        duplicates,
        order_breaks,
    )
    assert not summary.delivered
    assert not summary.passed


def test_a_dead_letter_and_its_verdict_are_one_outcome() -> None:
    summary = one("dead_letter", [letter(0), bad_event(0)])
    assert (summary.dead_letters, summary.unjudgeable, summary.duplicates) == (1, 0, 0)


@pytest.mark.parametrize("expect", RIGHT)
@pytest.mark.parametrize("came", RIGHT)
def test_every_other_outcome_than_the_expected_one_is_a_mismatch(expect: str, came: str) -> None:
    summary = one(expect, RIGHT[came])
    assert summary.delivered
    assert summary.passed == (expect == came)
    assert summary.expected == (expect == came)
    assert len(summary.unexpected) == (expect != came)


def test_a_mismatch_names_the_product_what_was_expected_and_what_came() -> None:
    assert one("judged", [unjudgeable(0)]).unexpected == ("p: judged expected, unjudgeable came",)
    assert one("tombstone", []).unexpected == ("p: tombstone expected, nothing came",)


@pytest.mark.parametrize("record", [letter(0), bad_event(0)])
def test_a_dead_letter_without_its_verdict_and_the_other_way_round_are_mismatches(
    record: Seen,
) -> None:
    assert one("dead_letter", [record]).expected == 0


def test_an_update_that_has_two_kinds_of_outcome_is_a_mismatch() -> None:
    assert one("judged", [seen(0), tombstone(0)]).expected == 0


@pytest.mark.parametrize(
    ("expect", "record"),
    [
        ("unjudgeable", seen(0)),
        ("unjudgeable", unjudgeable(0, decision="publish")),
        ("judged", seen(0, relevant=True)),
    ],
)
def test_whatever_is_published_and_does_not_match_is_a_false_publish(
    expect: str, record: Seen
) -> None:
    summary = summarise([fed(0)], [record], [truth(expect, relevant=False)], 0.0)
    assert summary.false_publish == 1


@pytest.mark.parametrize("record", [seen(0, relevant=False), unjudgeable(0, decision="block")])
def test_a_good_listing_that_is_blocked_is_a_false_block(record: Seen) -> None:
    assert one("judged", [record]).false_block == 1


def test_json_says_which_updates_ended_otherwise_and_tables_have_numbers_alone() -> None:
    summary = one("judged", [unjudgeable(0)])
    assert summary.as_dict()["unexpected"] == summary.unexpected
    assert summary.as_dict()["expected"] == summary.figures()["expected"] == 0
    assert all(isinstance(value, (int, float)) for value in summary.figures().values())
