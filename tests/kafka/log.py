"""Reads topics and committed offsets for the tests; asks nothing of what is tested."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_judge.offsets import Committed, GroupOffsets
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Found:
    """A committed record of an output topic.

    Attributes:
        place: Source partition and offset, from its headers.
        key: Key bytes.
        value: Value bytes.
        partition: Partition of the output topic.
    """

    place: tuple[int, int]
    key: bytes | None
    value: bytes | None
    partition: int


async def read_topic(settings: KafkaSettings, topic: str, partitions: int = 2) -> list[Found]:
    """Everything that a `read_committed` reader finds on a topic, up to its present end."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        reader.assign(places)
        ends = await reader.end_offsets(places)
        found = []
        # By position, not by record: a log may end in a transaction's marker.
        while any([await reader.position(tp) < ends[tp] for tp in places]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in records:
                    headers = dict(record.headers)
                    place = (
                        int(headers["sj-source-partition"]),
                        int(headers["sj-source-offset"]),
                    )
                    found.append(Found(place, record.key, record.value, record.partition))
        return found
    finally:
        await reader.stop()


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
