"""Reading a topic up to its present end: for people's questions, not for judging."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_judge.connection import client_options, connect
from stream_judge.errors import ConfigError, PublishError
from stream_judge.settings import KafkaSettings

_POLL_MS = 500


class TopicReader:
    """A consumer without a group; made by `open_reader`.

    Args:
        consumer: A started aiokafka consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic.

        Raises:
            ConfigError: There is no such topic.
        """
        # Metadata are kept of topics that were asked for; aiokafka asks only for subscribed ones.
        await self._consumer._client.add_topic(topic)
        numbers = self._consumer.partitions_for_topic(topic)
        if not numbers:
            raise ConfigError(f"topic {topic} is not there; `stream-judge topics check`")
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    async def range(self, place: TopicPartition) -> tuple[int, int]:
        """First offset that is there, and the one behind the last."""
        first = await self._consumer.beginning_offsets([place])
        last = await self._consumer.end_offsets([place])
        return first[place], last[place]

    async def record(self, place: TopicPartition, offset: int) -> Any | None:
        """The record at an offset; None if there is none (gone, or a transaction's marker)."""
        first, last = await self.range(place)
        if not first <= offset < last:
            return None
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        async for record in self._to_end([place]):
            return record if record.offset == offset else None
        return None

    async def records(self, topic: str, *, since_ms: int | None = None) -> AsyncIterator[Any]:
        """Every committed record of a topic up to its end now, partition by partition.

        Args:
            topic: The topic.
            since_ms: Leave out what is older, milliseconds since the epoch.
        """
        places = await self.partitions(topic)
        self._consumer.assign(places)
        starts = await self._consumer.beginning_offsets(places)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(places, since_ms))
            ends = await self._consumer.end_offsets(places)
            starts = {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in places}
        for place in places:
            self._consumer.seek(place, starts[place])
        async for record in self._to_end(places):
            yield record

    async def _to_end(self, places: list[TopicPartition]) -> AsyncIterator[Any]:
        ends = await self._consumer.end_offsets(places)
        # By position, not by record: a log may end in a transaction's marker.
        while any([await self._consumer.position(tp) < ends[tp] for tp in places]):
            for records in (await self._consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    yield record


@asynccontextmanager
async def open_reader(settings: KafkaSettings) -> AsyncIterator[TopicReader]:
    """A reader that sees what transactions have committed.

    Raises:
        PublishError: No broker answers, or it refuses what is asked in the block.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await connect(consumer, settings)
    try:
        yield TopicReader(consumer)
    except KafkaError as exc:
        raise PublishError(f"the broker does not let this be read: {exc!r}") from exc
    finally:
        await consumer.stop()
