from __future__ import annotations

from stream_judge.freeze import FreezeTicker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_late_tick_is_a_freeze_for_whatever_began_before() -> None:
    clock = Clock()
    ticker = FreezeTicker(clock)
    before = ticker.now()
    clock.now += 30
    ticker.tick()
    assert ticker.frozen_since(before)
    assert not ticker.frozen_since(ticker.now())


def test_it_is_noticed_although_the_tick_is_still_to_come() -> None:
    clock = Clock()
    ticker = FreezeTicker(clock)
    ticker.start()
    before = ticker.now()
    clock.now += 30
    assert ticker.frozen_since(before)


def test_ticks_in_time_are_no_freeze() -> None:
    clock = Clock()
    ticker = FreezeTicker(clock)
    before = ticker.now()
    for _ in range(100):
        clock.now += 1.5
        ticker.tick()
    assert not ticker.frozen_since(before)


def test_without_ticks_that_are_due_a_long_attempt_is_no_freeze() -> None:
    clock = Clock()
    ticker = FreezeTicker(clock)
    before = ticker.now()
    clock.now += 30
    assert not ticker.frozen_since(before)
