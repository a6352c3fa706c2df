from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_judge.embedded.broker import EmbeddedBroker

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker({"updates": 3, "letters": 1} | dict.fromkeys(CODECS, 2))
    await broker.start()
    yield broker
    await broker.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("codec", CODECS)
async def test_records_come_back_as_sent(broker: EmbeddedBroker, codec: str) -> None:
    compression = None if codec == "none" else codec
    bodies = [f"{number} ".encode() * 200 for number in range(20)]
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap, compression_type=compression, acks="all"
    )
    await producer.start()
    try:
        sent = [await producer.send(codec, body, partition=1) for body in bodies]
        assert [(await one).offset for one in sent] == list(range(20))
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(codec, 1)])
        async with asyncio.timeout(20):
            found = [(await consumer.getone()).value for _ in bodies]
    finally:
        await consumer.stop()
    assert found == bodies


@pytest.mark.asyncio(loop_scope="module")
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
