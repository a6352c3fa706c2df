"""Reading what came out, with a consumer of its own: nothing is asked of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_judge.demo.feed import Place


@dataclass(frozen=True, slots=True)
class Seen:
    """One record of an output topic.

    Attributes:
        dead_letter: Whether it was on the dead-letter topic.
        place: Source partition and offset, from its headers.
        partition: Partition of the output topic.
        timestamp_ms: When it was published, milliseconds since the epoch.
        verdict: The verdict; None for a tombstone or a dead letter.
    """

    dead_letter: bool
    place: Place
    partition: int
    timestamp_ms: int
    verdict: dict[str, Any] | None


async def read_back(
    bootstrap: str,
    partitions: dict[str, int],
    dead_letter_topic: str,
    *,
    on_seen: Callable[[Seen], None],
) -> None:
    """Read output topics from their beginnings until cancelled."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
        # As a gate reads: what a transaction has not committed does not exist.
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(t, p) for t, n in partitions.items() for p in range(n)])
        async for record in consumer:
            headers = dict(record.headers)
            place = (int(headers["sj-source-partition"]), int(headers["sj-source-offset"]))
            dead = record.topic == dead_letter_topic
            verdict = None if dead or record.value is None else orjson.loads(record.value)
            on_seen(Seen(dead, place, record.partition, record.timestamp, verdict))
            await asyncio.sleep(0)
    finally:
        await consumer.stop()
