from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_judge.errors import BrokerError, ConfigError
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import TopicReader, open_reader
from tests.unit.memory_log import MemoryConsumer, MemoryLog

SETTINGS = KafkaSettings()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    made = MemoryLog()
    made.install(monkeypatch)
    return made


async def test_looking_for_a_topic_makes_none(log: MemoryLog) -> None:
    async with open_reader(SETTINGS) as reader:
        with pytest.raises(ConfigError, match="topic typo is not there"):
            await reader.partitions("typo")
    assert log.topics == {}


async def test_one_record_is_read_without_the_others(log: MemoryLog) -> None:
    for number in range(20):
        log.add("t", value=b"%d" % number)
    async with open_reader(SETTINGS) as reader:
        await reader.partitions("t")
        record = await reader.record(TopicPartition("t", 0), 7)
        assert await reader.record(TopicPartition("t", 0), 20) is None
    assert record is not None
    assert record.value == b"7"
    assert log.given_out <= 2


async def test_a_topic_is_read_partition_by_partition(log: MemoryLog) -> None:
    for number in range(12):
        log.add("t", partition=number % 3)
    async with open_reader(SETTINGS) as reader:
        read = [(record.partition, record.offset) async for record in reader.records("t")]
    assert read == sorted(read)
    assert len(read) == 12


async def test_the_partitions_come_in_their_order_whatever_the_brokers_is(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = MemoryConsumer.end_offsets

    async def turned(
        self: MemoryConsumer, places: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return dict(reversed((await ends(self, places)).items()))

    monkeypatch.setattr(MemoryConsumer, "end_offsets", turned)
    for number in (2, 0, 1):
        log.add("t", partition=number)
    async with open_reader(SETTINGS) as reader:
        assert [record.partition async for record in reader.records("t")] == [0, 1, 2]


async def test_a_second_reading_ends_where_the_first_did(log: MemoryLog) -> None:
    for _ in range(3):
        log.add("t")
    async with open_reader(SETTINGS) as reader:
        ends = await reader.ends("t")
        log.add("t")
        log.add("t", partition=1)
        again = [(r.partition, r.offset) async for r in reader.records("t", ends=ends)]
    assert again == [(0, 0), (0, 1), (0, 2)]


async def test_a_topic_that_was_made_anew_is_read_to_its_own_end(log: MemoryLog) -> None:
    log.add("t")
    async with open_reader(SETTINGS) as reader:
        ends = {TopicPartition("t", 0): 500}
        assert len([record async for record in reader.records("t", ends=ends)]) == 1


class Leaderless(MemoryConsumer):
    """Gives out two records, then nothing, as where every fetch fails."""

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[Any, Any]:
        if self._log.given_out < 2:
            return await super().getmany(*places, timeout_ms=timeout_ms)
        await asyncio.sleep(0.001)
        return {}


async def test_a_reading_that_stands_still_says_where_instead_of_hanging(log: MemoryLog) -> None:
    for _ in range(5):
        log.add("t")
    reader = TopicReader(Leaderless(log), timeout_s=0.02)
    with pytest.raises(BrokerError, match=r"t/0: nothing came from offset 2 on .* to offset 5"):
        async with asyncio.timeout(10):
            assert [record async for record in reader.records("t")] == []


async def test_who_takes_records_slowly_is_not_the_brokers_fault(log: MemoryLog) -> None:
    for _ in range(3):
        log.add("t")
    reader = TopicReader(MemoryConsumer(log), timeout_s=0.02)
    read = 0
    async for _ in reader.records("t"):
        await asyncio.sleep(0.03)
        read += 1
    assert read == 3
