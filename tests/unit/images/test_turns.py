from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from stream_judge.images.line import Line, Place
from stream_judge.images.turns import Slots, Turn, aside


async def hold(slots: Slots, key: str, seconds: float = 3600.0) -> None:
    async with slots.one(key):
        await asyncio.sleep(seconds)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_slots_are_bounded_in_all_and_for_each_key() -> None:
    slots, now, most = Slots(5, 2), {"a": 0, "b": 0, "c": 0}, [0, 0]

    async def use(key: str) -> None:
        async with slots.one(key):
            now[key] += 1
            most[0], most[1] = max(most[0], sum(now.values())), max(most[1], *now.values())
            await asyncio.sleep(0.001)
            now[key] -= 1

    await asyncio.gather(*(use(key) for key in "abc" * 20))
    assert most == [5, 2]


async def test_a_long_line_of_one_key_holds_no_other_keys_slots() -> None:
    slots = Slots(4, 2)
    line = [asyncio.create_task(hold(slots, "a")) for _ in range(50)]
    await settle()
    async with asyncio.timeout(1), slots.one("b"), slots.one("b"):
        pass
    await cancel(*line)


async def test_keys_are_forgotten() -> None:
    slots = Slots(2, 1)
    tasks = [asyncio.create_task(hold(slots, str(i % 30))) for i in range(60)]
    await settle()
    assert len(slots._lines) == 30
    await cancel(*tasks)
    assert not slots._lines
    async with slots.one("a"), slots.one("b"):
        pass


async def test_waiting_for_a_slot_takes_no_time_of_an_attempt() -> None:
    slots = Slots(1, 1)
    before = asyncio.create_task(hold(slots, "a", 0.3))
    await settle()
    turn = Turn(slots, time_s=0.1, spare_s=10.0)
    async with turn.attempt(), turn.slot("a", own=False):
        pass
    await before


async def test_time_runs_again_once_there_is_a_slot() -> None:
    slots = Slots(1, 1)
    before = asyncio.create_task(hold(slots, "a", 0.2))
    await settle()
    turn = Turn(slots, time_s=0.1, spare_s=10.0)
    with pytest.raises(TimeoutError):
        async with turn.attempt(), turn.slot("a", own=False):
            await asyncio.sleep(5)
    await before


async def test_a_sellers_pictures_wait_for_nothing_only_so_long_in_all() -> None:
    slots = Slots(1, 1)
    before = asyncio.create_task(hold(slots, "a"))
    await settle()
    turn, started = Turn(slots, time_s=0.1, spare_s=0.3), time.monotonic()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with turn.attempt(), turn.slot("a", own=False):
                pass
    assert 0.45 < time.monotonic() - started < 2
    turn.refund()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with turn.attempt(), turn.slot("a", own=False):
            pass
    assert time.monotonic() - started > 0.35
    await cancel(before)


async def test_the_operators_own_pictures_wait_as_long_as_it_takes() -> None:
    slots = Slots(1, 1)
    before = asyncio.create_task(hold(slots, "a", 0.3))
    await settle()
    turn = Turn(slots, time_s=0.1, spare_s=0.0)
    async with turn.attempt(), turn.slot("a", own=True):
        pass
    await before


async def test_whoever_steps_aside_leaves_the_slot_and_waits_for_it_again() -> None:
    slots, steps = Slots(1, 1), []
    stepped, back = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        turn = Turn(slots, time_s=0.2, spare_s=10.0)
        async with turn.attempt(), turn.slot("a", own=False):
            async with aside():
                stepped.set()
                await back.wait()
                # Longer than an attempt.
                await asyncio.sleep(0.3)
            steps.append("first")

    task = asyncio.create_task(first())
    await stepped.wait()
    async with slots.one("a"):
        back.set()
        await asyncio.sleep(0.5)
        steps.append("second")
    await task
    assert steps == ["second", "first"]
    async with asyncio.timeout(1), slots.one("a"):
        pass


async def test_outside_an_attempt_nobody_has_to_step_aside() -> None:
    async with aside():
        pass


class Full:
    """A place with no room until it is told so."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    def has_room(self) -> bool:
        return self.free.is_set()

    async def room(self) -> None:
        await self.free.wait()


async def test_a_wait_for_room_holds_no_slot_and_takes_no_time() -> None:
    slots, full = Slots(1, 1), Full()
    turn = Turn(slots, time_s=0.01, spare_s=0.0, place=cast(Place, full))
    entered = asyncio.Event()

    async def download() -> None:
        async with turn.attempt(), turn.slot("a", own=False):
            entered.set()

    waiting = asyncio.create_task(download())
    await settle()
    async with asyncio.timeout(1), slots.one("a"):
        await asyncio.sleep(0.02)
    assert not entered.is_set()
    full.free.set()
    await waiting
    assert entered.is_set()


class Traveller:
    """A download that steps aside for a lookup, and notes where it is."""

    def __init__(self, slots: Slots, place: Place) -> None:
        self.looked_up = asyncio.Event()
        self.steps: list[str] = []
        self._turn = Turn(slots, time_s=60.0, spare_s=60.0, place=place)

    async def go(self) -> None:
        async with self._turn.attempt(), self._turn.slot("a", own=False):
            self.steps.append("began")
            async with aside():
                await self.looked_up.wait()
            self.steps.append("came back")


async def come_back_to_no_room(slots: Slots, full: Full) -> tuple[Traveller, asyncio.Task[None]]:
    """One who stepped aside while there was room, and is back."""
    full.free.set()
    traveller = Traveller(slots, cast(Place, full))
    task = asyncio.create_task(traveller.go())
    await settle()
    full.free.clear()
    traveller.looked_up.set()
    await settle()
    assert traveller.steps == ["began"]
    return traveller, task


async def test_whoever_stepped_aside_waits_for_room_again_and_holds_no_slot_meanwhile() -> None:
    slots, full = Slots(1, 1), Full()
    traveller, task = await come_back_to_no_room(slots, full)
    async with asyncio.timeout(1), slots.one("a"):
        pass
    full.free.set()
    await task
    assert traveller.steps == ["began", "came back"]


async def test_a_cancel_while_room_is_waited_for_again_leaves_no_slot_taken() -> None:
    slots, full = Slots(1, 1), Full()
    traveller, task = await come_back_to_no_room(slots, full)
    await cancel(task)
    assert traveller.steps == ["began"]
    assert not slots._lines


async def test_the_first_in_line_comes_back_however_full_it_is() -> None:
    slots, line = Slots(1, 1), Line(1, 10)
    with line.place() as first, line.place() as second:
        traveller = Traveller(slots, first)
        traveller.looked_up.set()
        async with second.turn(10):
            assert not second.has_room()
            async with asyncio.timeout(1):
                await traveller.go()


async def test_lookups_let_no_more_downloads_begin_than_there_is_room_for() -> None:
    slots, line, may_decode = Slots(2, 2), Line(1, 10), asyncio.Event()
    downloaded: list[int] = []

    async def load(number: int) -> None:
        with line.place() as place:
            turn = Turn(slots, time_s=60.0, spare_s=60.0, place=place)
            async with turn.attempt(), turn.slot(f"{number}.example", own=False):
                async with aside():
                    await asyncio.sleep(0)
                downloaded.append(number)
                await asyncio.sleep(0)
            async with place.turn(10):
                await may_decode.wait()

    tasks = [asyncio.create_task(load(number)) for number in range(30)]
    for _ in range(10):
        await settle()
    # Those that were under way when the first ten bytes waited, as many as there are slots.
    assert len(downloaded) <= 2
    # Some give up, the first in line too: nobody waits in a circle all the same.
    await cancel(*tasks[::3])
    may_decode.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(not task.cancelled() for task in tasks) == 20
    assert set(downloaded) >= {number for number in range(30) if number % 3}
    assert not slots._lines
    assert line._bytes == 0
