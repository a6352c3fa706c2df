from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_judge.embedded.broker import EmbeddedBroker


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker({"updates": 3, "letters": 1})
    await broker.start()
    yield broker
    await broker.stop()


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_records_come_back_as_sent(broker: EmbeddedBroker, compression: str | None) -> None:
    bodies = [f"{number} ".encode() * 200 for number in range(20)]
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap, compression_type=compression, acks="all"
    )
    await producer.start()
    try:
        sent = [await producer.send("updates", body, partition=1) for body in bodies]
        assert [(await one).offset for one in sent] == list(range(20))
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition("updates", 1)])
        async with asyncio.timeout(20):
            found = [(await consumer.getone()).value for _ in bodies]
    finally:
        await consumer.stop()
    assert found == bodies


async def test_topics_have_the_partitions_asked_for(broker: EmbeddedBroker) -> None:
    consumer = AIOKafkaConsumer("updates", "letters", bootstrap_servers=broker.bootstrap)
    await consumer.start()
    try:
        assert consumer.partitions_for_topic("updates") == {0, 1, 2}
        assert consumer.partitions_for_topic("letters") == {0}
    finally:
        await consumer.stop()


async def test_nothing_listens_after_stop() -> None:
    broker = EmbeddedBroker({"updates": 1})
    await broker.start()
    host, port = broker.bootstrap.split(",")[0].rsplit(":", 1)
    await broker.stop()
    with pytest.raises(OSError):
        await asyncio.open_connection(host, int(port))
