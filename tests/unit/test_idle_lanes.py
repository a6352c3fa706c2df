"""Which idle lanes are asked for, when, and which have to tend their sinks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from stream_judge import idle_lanes as module
from stream_judge.idle_lanes import IdleLanes
from stream_judge.publisher import Partition
from stream_judge.transactional_sink import Idle

PLACE = TopicPartition("verdicts", 0)


class Lane:
    """A sink, as far as it is asked."""

    def __init__(self, number: int) -> None:
        self.partition: Partition = ("updates", number)
        self.idle: Idle | None = Idle(1, number, 3)
        self.in_doubt = False

    def trust(self) -> None:
        self.in_doubt = False


class Leaders:
    """What is open, and how often somebody asked."""

    def __init__(self) -> None:
        self.open: set[tuple[int, int]] = set()
        self.unknown: frozenset[TopicPartition] = frozenset()
        self.failing: list[Exception] = []
        self.asked = 0
        self.pause = asyncio.Event()
        self.pause.set()

    async def holders(self) -> tuple[set[tuple[int, int]], frozenset[TopicPartition]]:
        self.asked += 1
        if self.failing:
            raise self.failing.pop()
        await self.pause.wait()
        return self.open, self.unknown


class Bench:
    def __init__(self) -> None:
        self.leaders = Leaders()
        self.lanes = [Lane(number) for number in range(3)]
        self.told: list[Partition] = []
        self.idle: Any = IdleLanes(self.leaders)  # type: ignore[arg-type]  # all that is asked
        self.idle.assign(self.lanes)

    def cut_off(self) -> None:
        for lane in self.lanes:
            lane.in_doubt = True

    async def look(self) -> None:
        """Let it look once."""
        before = self.leaders.asked
        async with asyncio.timeout(1):
            while self.leaders.asked == before:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    made = Bench()
    running = asyncio.create_task(made.idle.run(made.told.append))
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_lanes_that_are_cut_off_and_have_something_open_are_told(bench: Bench) -> None:
    # Of its own epoch, of one before it, and of a newer owner's, who is at work.
    bench.leaders.open = {(0, 3), (1, 2), (2, 4)}
    bench.leaders.pause.clear()
    bench.cut_off()
    await bench.look()
    bench.leaders.pause.set()
    async with asyncio.timeout(1):
        while not bench.told:
            await asyncio.sleep(0)
    assert bench.told[:2] == [("updates", 0), ("updates", 1)]
    assert [lane.in_doubt for lane in bench.lanes] == [True, True, False]


async def test_a_lane_that_does_something_meanwhile_is_left_alone(bench: Bench) -> None:
    bench.leaders.open = {(0, 3), (1, 3)}
    bench.lanes[0].idle = None
    bench.leaders.pause.clear()
    bench.cut_off()
    await bench.look()
    bench.lanes[1].idle = Idle(2, 1, 3)
    bench.lanes[2].idle = None
    bench.leaders.open = set()
    bench.leaders.pause.set()
    await asyncio.sleep(0.01)
    assert bench.told == []
    assert [lane.in_doubt for lane in bench.lanes] == [True, False, True], "1 was asked for again"


async def test_a_broker_that_is_out_is_asked_until_all_leaders_have_told(bench: Bench) -> None:
    bench.leaders.failing = [KafkaConnectionError(), TimeoutError()]
    bench.leaders.unknown = frozenset({PLACE})
    bench.cut_off()
    for _ in range(3):
        await bench.look()
    assert bench.told == []
    assert all(lane.in_doubt for lane in bench.lanes)
    bench.leaders.unknown = frozenset()
    await bench.look()
    assert not any(lane.in_doubt for lane in bench.lanes)


async def test_nobody_is_asked_while_no_lane_is_in_doubt(bench: Bench) -> None:
    await asyncio.sleep(0.02)
    assert bench.leaders.asked == 0
    bench.cut_off()
    await bench.look()
    asked = bench.leaders.asked
    await asyncio.sleep(0.02)
    assert (bench.leaders.asked, bench.told) == (asked, [])


async def test_a_defect_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    bench = Bench()
    bench.leaders.failing = [AssertionError("broken")]
    bench.cut_off()
    with pytest.raises(AssertionError, match="broken"):
        await bench.idle.run(bench.told.append)
