from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError

from stream_judge import backlog
from stream_judge.backlog import Backlog
from stream_judge.errors import BrokerError
from stream_judge.outage import Outages
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings

HERE = ("product-updates", 1)


class Reader:
    """A broker whose log ends at 10, or which does not answer."""

    def __init__(self) -> None:
        self.out = False
        self.stopped = 0
        self.leaderless: set[int] = set()
        self.asked: list[TopicPartition] = []

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += places
        if any(tp.partition in self.leaderless for tp in places):
            # aiokafka asks again and again.
            await asyncio.sleep(3600)
        if self.out:
            raise KafkaConnectionError
        return dict.fromkeys(places, 10)

    async def stop(self) -> None:
        self.stopped += 1


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backlog, "_EVERY_S", 0.0)
        monkeypatch.setattr(backlog, "_DEADLINE_S", 0.01)
        self.reader = Reader()
        self.outages = Outages()
        self.positions: Mapping[Partition, int] | Exception | None = {}
        self.backlog = Backlog(KafkaSettings(), self._positions, self.outages)

        async def connected(*_: Any, **__: Any) -> Any:
            self.tries += 1
            if self.closed:
                raise BrokerError("no broker lets us in")
            return self.reader

        self.closed = False
        self.tries = 0
        monkeypatch.setattr(backlog, "open_consumer", connected)

    async def _positions(self) -> Mapping[Partition, int]:
        if self.positions is None:
            await asyncio.sleep(3600)
        if isinstance(self.positions, Exception):
            raise self.positions
        return self.positions or {}

    async def until(self, found: Callable[[], bool]) -> None:
        watching = asyncio.create_task(self.backlog.run())
        async with asyncio.timeout(5):
            while not found():
                assert not watching.done(), watching
                await asyncio.sleep(0)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_what_lies_behind_the_position_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.positions = {HERE: 9}
    await bench.until(lambda: bench.backlog.unread)
    bench.positions = {HERE: 10}
    await bench.until(lambda: not bench.backlog.unread)
    assert bench.outages.names == []


async def test_one_partition_without_a_leader_is_no_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.reader.leaderless = {2}
    bench.positions = {HERE: 9, ("product-updates", 2): 0}
    await bench.until(lambda: bench.backlog.unread)
    assert bench.outages.names == []
    bench.positions = {("product-updates", 2): 0}
    await bench.until(lambda: bench.outages.names == ["kafka"])


async def test_a_consumer_that_does_not_answer_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.positions = None
    await bench.until(lambda: bench.backlog.unread)
    assert bench.outages.names == []


@pytest.mark.parametrize("positions", [{HERE: 9}, {}, None, IllegalStateError("moving")])
async def test_a_broker_that_is_out_is_known_whatever_the_consumer_says(
    monkeypatch: pytest.MonkeyPatch, positions: Any
) -> None:
    bench = Bench(monkeypatch)
    bench.positions = positions
    bench.reader.out = True
    await bench.until(lambda: bench.outages.names == ["kafka"])
    bench.reader.out = False
    await bench.until(lambda: bench.outages.names == [])


async def test_after_an_outage_it_begins_at_the_bootstrap_servers_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.reader.out = True
    # The brokers that a reader has learnt of may be gone for good.
    await bench.until(lambda: bench.tries > 2)
    assert bench.reader.stopped >= bench.tries - 1


async def test_a_broker_that_lets_nobody_in_is_an_outage_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.closed = True
    bench.positions = {HERE: 9}
    await bench.until(lambda: bench.outages.names == ["kafka"] and bench.tries > 2)
    bench.closed = False
    await bench.until(lambda: bench.outages.names == [] and bench.backlog.unread)
