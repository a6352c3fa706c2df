"""Whether the broker has records that the worker has not read; a client of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream_judge.connection import open_consumer
from stream_judge.errors import BrokerError
from stream_judge.outage import Outages
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings

_log = structlog.get_logger(__name__)
_EVERY_S = 10.0
_DEADLINE_S = 10.0


class Backlog:
    """Compares where the log ends with where the worker reads.

    What the worker's own consumer believes of the log's end says nothing when that consumer
    is stuck; and committed offsets say too little, since a log may end in the markers of
    transactions, which nobody commits.

    Args:
        settings: Broker and isolation level.
        positions: The next offset that the worker reads, of each partition it owns.
        outages: Told while the broker does not answer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        positions: Callable[[], Awaitable[Mapping[Partition, int]]],
        outages: Outages,
    ) -> None:
        self._settings = settings
        self._positions = positions
        self._outages = outages
        #: Whether there is something to be read, when it was last looked at.
        self.unread = False

    async def run(self) -> None:
        """Look every 10 s, until cancelled."""
        reader: Any = None
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                positions = await self._read_positions()
                try:
                    async with asyncio.timeout(_DEADLINE_S):
                        reader = reader or await open_consumer(
                            self._settings, isolation_level=self._settings.isolation_level
                        )
                        self.unread = await self._look(reader, positions)
                except (BrokerError, KafkaError, OSError, TimeoutError) as exc:
                    _log.warning("backlog_unknown", error=repr(exc))
                    self._outages.begin("kafka")
                    # It would ask the brokers it knows for ever, and all of them may have moved.
                    former, reader = reader, None
                    if former is not None:
                        await former.stop()
                else:
                    self._outages.end("kafka")
        finally:
            if reader is not None:
                await reader.stop()

    async def _read_positions(self) -> Mapping[Partition, int] | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await self._positions()
        except TimeoutError:
            return None
        except KafkaError:
            # Partitions are being moved; there will be an answer next time.
            return {}

    async def _look(self, reader: Any, positions: Mapping[Partition, int] | None) -> bool:
        places = [TopicPartition(*partition) for partition in positions or {}]
        # Also with nothing to compare: whether the broker answers says what a consumer that
        # does not answer suffers from.
        ends = await _ends(reader, places or [TopicPartition(self._settings.topic, 0)])
        if positions is None:
            return True
        if not places:
            return False
        return any(positions[tp.topic, tp.partition] < end for tp, end in ends.items())


async def _ends(reader: Any, places: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
    """Where the logs end, of those partitions that tell; an error if none does."""
    try:
        async with asyncio.timeout(_DEADLINE_S / 3):
            found: Mapping[TopicPartition, int] = await reader.end_offsets(places)
            return found
    except (KafkaError, TimeoutError):
        # One partition without a leader keeps all of them waiting, and is no outage of the broker.
        asking = (_asked(reader, place) for place in places)
        results = await asyncio.gather(*asking, return_exceptions=True)
        ends = {
            tp: end for found in results if isinstance(found, dict) for tp, end in found.items()
        }
        if not ends:
            raise
        return ends


async def _asked(reader: Any, place: TopicPartition) -> dict[TopicPartition, int]:
    async with asyncio.timeout(_DEADLINE_S / 3):
        found: dict[TopicPartition, int] = await reader.end_offsets([place])
        return found
