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
        self.idle: Idle | None = Idle(1, (number, 0))

    def begin(self, turn: int) -> None:
        assert self.idle is not None
        self.idle = Idle(turn, self.idle.holder)


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
        self.disturbed = asyncio.Event()
        self.lanes = [Lane(number) for number in range(3)]
        self.told: list[Partition] = []
        self.idle: Any = IdleLanes(self.leaders, self.disturbed)  # type: ignore[arg-type]  # all that is asked
        self.idle.assign(self.lanes)

    async def look(self) -> None:
        """Let it look once, behind an outage or for the sake of time."""
        before = self.leaders.asked
        async with asyncio.timeout(1):
            while self.leaders.asked == before:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    made = Bench()
    running = asyncio.create_task(made.idle.run(made.told.append))
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_behind_an_outage_lanes_with_something_open_are_told(bench: Bench) -> None:
    # Of another epoch: a newer owner's, which is at work.
    bench.leaders.open = {(1, 0), (2, 1)}
    bench.disturbed.set()
    await bench.look()
    assert bench.told == [("updates", 1)]
    assert not bench.disturbed.is_set()


async def test_a_lane_that_does_something_meanwhile_is_left_alone(bench: Bench) -> None:
    bench.leaders.open = {(0, 0), (1, 0), (2, 0)}
    bench.lanes[0].idle = None
    bench.leaders.pause.clear()
    bench.disturbed.set()
    await bench.look()
    bench.lanes[1].begin(2)
    bench.leaders.pause.set()
    await asyncio.sleep(0.01)
    assert bench.told == [("updates", 2)]


async def test_a_broker_that_is_out_is_asked_until_all_leaders_have_told(bench: Bench) -> None:
    bench.leaders.failing = [KafkaConnectionError(), TimeoutError()]
    bench.leaders.unknown = frozenset({PLACE})
    bench.disturbed.set()
    for _ in range(3):
        await bench.look()
    assert bench.told == []
    bench.leaders.open, bench.leaders.unknown = {(0, 0)}, frozenset()
    await bench.look()
    assert bench.told == [("updates", 0)]
    asked = bench.leaders.asked
    await asyncio.sleep(0.02)
    assert bench.leaders.asked == asked, "not before the next minute"


async def test_without_an_outage_only_lanes_that_did_something_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.0)
    bench.disturbed.set()
    await bench.look()
    asked = bench.leaders.asked
    await asyncio.sleep(0.02)
    assert bench.leaders.asked == asked
    bench.leaders.open = {(1, 0)}
    bench.lanes[1].begin(2)
    await bench.look()
    assert bench.told[0] == ("updates", 1)
    # What was settled before an outage is asked for behind it.
    bench.lanes[1].idle, bench.leaders.open = None, {(2, 0)}
    bench.told.clear()
    bench.disturbed.set()
    await bench.look()
    assert bench.told[0] == ("updates", 2)


async def test_a_defect_is_not_swallowed(bench: Bench) -> None:
    bench.leaders.failing = [AssertionError("broken")]
    bench.disturbed.set()
    with pytest.raises(AssertionError, match="broken"):
        await bench.idle.run(bench.told.append)
