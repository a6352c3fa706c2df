"""Reading a topic up to its present end: for people's questions, not for judging."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge.connection import ask_any, client_options, connect
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
        """The partitions of a topic, in order; it has one at least.

        Raises:
            ConfigError: There is no such topic.
            KafkaError: The broker does not tell, or this account may not know.
        """
        client = self._consumer._client
        # Whoever only looks must not make a topic; that is the client's default.
        asked = MetadataRequest([topic], allow_auto_topic_creation=False)
        answer = (await ask_any(client, asked)).to_object()
        (found,) = answer["topics"]
        if found["error_code"] == UnknownTopicOrPartitionError.errno:
            raise ConfigError(f"topic {topic} is not there; `stream-judge topics check`")
        if found["error_code"]:
            raise for_code(found["error_code"])(f"topic {topic}")
        # Metadata are kept of topics that were asked for; aiokafka asks only for subscribed ones.
        await client.add_topic(topic)
        return [
            TopicPartition(topic, n) for n in sorted(p["partition"] for p in found["partitions"])
        ]

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
        async for record in self._between(place, offset, last):
            return record if record.offset == offset else None
        return None

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """The offset behind the last committed record of each partition, now.

        Raises:
            ConfigError: There is no such topic.
        """
        ends: dict[TopicPartition, int]
        ends = await self._consumer.end_offsets(await self.partitions(topic))
        return ends

    async def records(
        self,
        topic: str,
        *,
        since_ms: int | None = None,
        ends: Mapping[TopicPartition, int] | None = None,
    ) -> AsyncIterator[Any]:
        """Every committed record of a topic, partition by partition, in order.

        Args:
            topic: The topic.
            since_ms: Leave out what is older, milliseconds since the epoch.
            ends: What an earlier `ends` gave: what was written since is left out.

        Raises:
            ConfigError: There is no such topic.
        """
        until = await self.ends(topic)
        if ends is not None:
            # No further than now: a topic that was made anew meanwhile has fewer.
            until = {tp: min(end, ends.get(tp, 0)) for tp, end in until.items()}
        places = list(until)
        starts = await self._consumer.beginning_offsets(places)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(places, since_ms))
            starts = {tp: found[tp].offset if found.get(tp) else until[tp] for tp in places}
        for place, end in until.items():
            async for record in self._between(place, starts[place], end):
                yield record

    async def _between(self, place: TopicPartition, first: int, end: int) -> AsyncIterator[Any]:
        self._consumer.assign([place])
        self._consumer.seek(place, first)
        # By position, not by record: a log may end in a transaction's marker.
        while await self._consumer.position(place) < end:
            for record in (await self._consumer.getmany(place, timeout_ms=_POLL_MS)).get(place, ()):
                if record.offset < end:
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
