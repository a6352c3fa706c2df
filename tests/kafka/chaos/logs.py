"""Reads the topics and committed offsets of a storm for the checker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NodeNotReadyError, UnknownTopicOrPartitionError

from stream_judge.settings import KafkaSettings
from tests.kafka.chaos.checker import Outcome, SourceEntry
from tests.kafka.chaos.load import EXPECT

_FETCH = 32_000_000
_AGAIN_S = 0.1


async def read_source(settings: KafkaSettings) -> list[SourceEntry]:
    """Every committed record of the source topic."""
    records = await _read(settings, settings.topic)
    return [
        SourceEntry(
            (record.partition, record.offset),
            record.key,
            record.value,
            (headers.get(EXPECT) or b"verdict").decode(),
            headers,
        )
        for record in records
        for headers in [dict(record.headers)]
    ]


async def read_outcomes(
    settings: KafkaSettings, topic: str, ends: Mapping[int, int] | None = None
) -> list[Outcome]:
    """Every committed record of an output topic; nothing where the topic is not there.

    Args:
        settings: The broker.
        topic: The topic.
        ends: Up to which offset of each partition, whatever is open before it: waits until
            that is decided. None reads as far as can be read now.
    """
    return [
        Outcome(
            (
                int(headers["sj-source-partition"]),
                int(headers["sj-source-offset"]),
            ),
            record.key,
            record.value,
            record.partition,
            headers,
        )
        for record in await _read(settings, topic, ends)
        for headers in [dict(record.headers)]
    ]


async def read_committed(settings: KafkaSettings) -> dict[int, int]:
    """The group's committed offset of each source partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        await admin.start()
        found = await admin.list_consumer_group_offsets(settings.application)
    finally:
        await admin.close()
    return {
        tp.partition: offset.offset
        for tp, offset in found.items()
        if tp.topic == settings.topic and offset.offset >= 0
    }


async def started(reader: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """The reader, connected; closed if that fails, or if whoever waits is cancelled."""
    try:
        await reader.start()
        # Its inner task must have begun before it can be stopped without an error.
        await asyncio.sleep(0)
    except BaseException:
        with contextlib.suppress(asyncio.CancelledError):
            await reader.stop()
        raise
    return reader


async def _read(
    settings: KafkaSettings, topic: str, until: Mapping[int, int] | None = None
) -> list[Any]:
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH,
        fetch_max_bytes=_FETCH,
    )
    await started(reader)
    try:
        numbers = await known_partitions(reader, topic)
        missing = sorted(set(until or ()).difference(numbers))
        if missing:
            # Whoever knows where they end has seen them: a broker that wakes does not name all yet.
            raise UnknownTopicOrPartitionError(f"{topic}: {missing}")
        places = [TopicPartition(topic, n) for n in numbers if until is None or n in until]
        if not places:
            return []
        reader.assign(places)
        if until is None:
            ends = await reader.end_offsets(places)
        else:
            ends = {tp: until[tp.partition] for tp in places}
        found: list[Any] = []
        # By position, not by record: a log may end in a transaction's marker.
        while any([await reader.position(tp) < ends[tp] for tp in places]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                found += records
        return found
    finally:
        await reader.stop()


async def known_partitions(reader: AIOKafkaConsumer, topic: str) -> list[int]:
    """The numbers of a topic's partitions; none where it is not there after two seconds."""
    # A reader without a subscription has to be told which topics to ask about.
    await reader._client.add_topic(topic)
    for _ in range(20):
        numbers = reader.partitions_for_topic(topic)
        if numbers:
            return sorted(numbers)
        await asyncio.sleep(_AGAIN_S)
    if reader._client.get_random_node() is None:
        # A broker that has just woken names none, not even itself; its topics are all there.
        raise NodeNotReadyError("the cluster names no broker")
    return []
