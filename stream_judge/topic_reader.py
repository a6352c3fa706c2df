"""Reading a topic up to its present end: for people's questions, not for judging."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge.connection import ask_any, open_consumer
from stream_judge.errors import BrokerError, ConfigError
from stream_judge.settings import KafkaSettings

_POLL_MS = 500


class TopicReader:
    """A consumer without a group; made by `open_reader`.

    Args:
        consumer: A started aiokafka consumer.
        timeout_s: How long reading may stand still, seconds.
    """

    def __init__(self, consumer: Any, timeout_s: float) -> None:
        self._consumer = consumer
        self._timeout_s = timeout_s

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
        """The record at an offset; None if there is none (gone, or a transaction's marker).

        Raises:
            BrokerError: The broker does not give it out.
        """
        first, last = await self.range(place)
        if not first <= offset < last:
            return None
        async for record in self._between(place, offset, last):
            return record if record.offset == offset else None
        return None

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition that can be read, now.

        What lies behind an open transaction cannot, whoever committed it.

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
            BrokerError: The broker does not give them out.
        """
        until = await self.ends(topic)
        if ends is not None:
            # No further than now: a topic that was made anew meanwhile has fewer.
            until = {tp: min(end, ends.get(tp, 0)) for tp, end in until.items()}
        # aiokafka gives them broker by broker.
        places = sorted(until)
        starts = await self._consumer.beginning_offsets(places)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(places, since_ms))
            starts = {tp: found[tp].offset if found.get(tp) else until[tp] for tp in places}
        for place in places:
            async for record in self._between(place, starts[place], until[place]):
                yield record

    async def _between(self, place: TopicPartition, first: int, end: int) -> AsyncIterator[Any]:
        self._consumer.assign([place])
        self._consumer.seek(place, first)
        position = first
        # By position, not by record: a log may end in a transaction's marker.
        while position < end:
            try:
                async with asyncio.timeout(self._timeout_s):
                    records, position = await self._next(place, position)
            except TimeoutError as exc:
                raise BrokerError(
                    f"{place.topic}/{place.partition}: nothing came from offset {position} on for "
                    f"{self._timeout_s:.0f} s, though the log goes on to offset {end}; "
                    "see that the partition has a leader that can be reached, and ask again"
                ) from exc
            for record in records:
                if record.offset < end:
                    yield record

    async def _next(self, place: TopicPartition, position: int) -> tuple[Sequence[Any], int]:
        """The next records, and the position behind them."""
        # aiokafka only logs a fetch that fails, and tries again for ever.
        while True:
            found = (await self._consumer.getmany(place, timeout_ms=_POLL_MS)).get(place, ())
            behind: int = await self._consumer.position(place)
            if found or behind != position:
                return found, behind


@asynccontextmanager
async def open_reader(
    settings: KafkaSettings,
    *,
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> AsyncIterator[TopicReader]:
    """A reader that sees what transactions have committed.

    Args:
        settings: Broker; how long it may be silent.
        isolation_level: "read_uncommitted" sees what they have not, too.

    Raises:
        BrokerError: No broker answers, or it refuses what is asked in the block.
    """
    consumer = await open_consumer(
        settings, auto_offset_reset="earliest", isolation_level=isolation_level
    )
    try:
        yield TopicReader(consumer, settings.request_timeout_s)
    except KafkaError as exc:
        raise BrokerError(f"the broker does not let this be read: {exc!r}") from exc
    finally:
        await consumer.stop()


async def written_ends(settings: KafkaSettings, *topics: str) -> dict[TopicPartition, int]:
    """The offset behind the last record of each partition, be it of an open transaction or not.

    Where `TopicReader.ends` gives less, something is there that cannot be read yet.

    Raises:
        ConfigError: There is no such topic.
        BrokerError: No broker answers, or it refuses.
    """
    ends: dict[TopicPartition, int] = {}
    async with open_reader(settings, isolation_level="read_uncommitted") as reader:
        for topic in topics:
            ends |= await reader.ends(topic)
    return ends


def not_settled(settings: KafkaSettings) -> str:
    """What to say where `written_ends` are further than what can be read."""
    return (
        "not settled yet: a transaction is open before the end; ask again in about "
        f"{settings.transaction_timeout_s:g} s"
    )
