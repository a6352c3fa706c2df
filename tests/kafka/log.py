"""Source records and committed offsets for the tests; `chaos.logs` reads the outcomes."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer

from stream_judge.offsets import Committed, GroupOffsets
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings


async def committed(settings: KafkaSettings) -> dict[Partition, Committed]:
    """What the group has committed."""
    offsets = GroupOffsets(settings)
    await offsets.start()
    try:
        return await offsets.committed()
    finally:
        await offsets.stop()


async def send(settings: KafkaSettings, records: list[tuple[bytes, bytes, int]]) -> None:
    """Publish source records: key, value, partition."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for key, value, partition in records:
            await producer.send(settings.topic, key=key, value=value, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()
