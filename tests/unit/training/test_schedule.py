from __future__ import annotations

import pytest

from stream_judge.training.schedule import ENDING, OPENING, SHORT, WHOLE, Schedule

SCHEDULE = Schedule(steps=3_000, opening=300)


def test_rates_rise_hold_and_fall_to_nothing() -> None:
    assert SCHEDULE.rate(0) == pytest.approx(0.01)
    assert SCHEDULE.rate(99) == SCHEDULE.rate(300) == 1.0
    assert SCHEDULE.rate(1_650) == pytest.approx(0.5)
    assert 0 < SCHEDULE.rate(2_999) < 0.001
    assert SCHEDULE.rate(3_000) == 0


def test_the_matrices_rate_falls_behind_the_opening() -> None:
    assert all(SCHEDULE.muon_rate(step) == SCHEDULE.rate(step) for step in (0, 50, 300))
    assert SCHEDULE.muon_rate(450) == pytest.approx(0.3 * SCHEDULE.rate(450))
    assert SCHEDULE.muon_rate(2_000) == pytest.approx(0.3 * SCHEDULE.rate(2_000))


def test_titles_come_first_and_whole_pictures_last() -> None:
    mixes = [SCHEDULE.mix(step) for step in (0, 299, 300, 1_499, 1_500, 2_999)]
    assert mixes == [OPENING, OPENING, SHORT, SHORT, WHOLE, WHOLE]
    assert all(kind.sparse for _, kind, _ in (*OPENING, *SHORT))
    assert sum(weight for weight, _, _ in WHOLE) == pytest.approx(1.0)


def test_plain_instructions_give_way_to_a_share() -> None:
    assert SCHEDULE.simple(0) == SCHEDULE.simple(300) == 1.0
    assert SCHEDULE.simple(750) == pytest.approx(0.5)
    assert SCHEDULE.simple(2_999) == pytest.approx(0.3)


def test_an_ending_rises_again_and_changes_nothing_before_it() -> None:
    longer = Schedule(steps=3_500, opening=300, ending=500)
    for step in (0, 99, 300, 1_499, 1_500, 2_999):
        assert longer.rate(step) == SCHEDULE.rate(step)
        assert longer.muon_rate(step) == SCHEDULE.muon_rate(step)
        assert longer.mix(step) is SCHEDULE.mix(step)
        assert longer.asks_words(step) == SCHEDULE.asks_words(step)
        assert not longer.late(step)
    assert longer.late(3_000)
    assert longer.mix(3_000) is longer.mix(3_499) is ENDING
    assert 0 < longer.rate(3_000) < longer.rate(3_024) == pytest.approx(0.3 * 476 / 500)
    assert longer.muon_rate(3_250) == pytest.approx(0.3 * longer.rate(3_250))
    assert 0 < longer.rate(3_499) < 0.001
    assert longer.rate(3_500) == 0


def test_the_ending_has_all_that_was_there_and_listings_behind_titles() -> None:
    assert sum(weight for weight, _, _ in ENDING) == pytest.approx(1.0)
    assert {kind.form for _, kind, _ in ENDING} == {kind.form for _, kind, _ in WHOLE}
    assert all(kind.late and kind.odd for _, kind, _ in ENDING)
    assert {kind.form for _, kind, _ in ENDING if kind.titles} == {
        "bullets",
        "paragraphs",
        "long",
        "spec",
    }
