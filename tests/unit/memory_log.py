"""Topics in memory, below `TopicReader`: what an aiokafka consumer would see of a broker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge import connection

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Record:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class MemoryLog:
    """A broker that makes topics for whoever asks for one that is not there."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[int, list[Record]]] = {}
        self.given_out = 0

    def add(
        self,
        topic: str,
        *,
        key: bytes | None = b"k",
        value: bytes | None = b"v",
        headers: Iterable[tuple[str, bytes | None]] = (),
        partition: int = 0,
        timestamp: int = 0,
    ) -> None:
        records = self.topics.setdefault(topic, {}).setdefault(partition, [])
        records.append(
            Record(topic, partition, len(records), timestamp, key, value, tuple(headers))
        )

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever opens a reader reads this."""
        monkeypatch.setattr(connection, "AIOKafkaConsumer", lambda **_: MemoryConsumer(self))

    def hold_back(self, monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
        """From now on a topic's last records lie behind an open transaction."""
        monkeypatch.setattr(
            connection,
            "AIOKafkaConsumer",
            lambda **made: _HeldBack(self, topic, made["isolation_level"]),
        )


class MemoryConsumer:
    """What `TopicReader` uses of a consumer, and of the client inside it."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._client = self
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def cluster(self) -> Any:
        return SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=0)])

    async def send(self, node: int, request: MetadataRequest) -> Any:
        (name,) = request._topics or []
        if request._allow_auto_topic_creation is not False:
            await self.add_topic(name)
        partitions = [{"partition": number} for number in self._log.topics.get(name, {})]
        topic = {"error_code": 0 if partitions else 3, "topic": name, "partitions": partitions}
        return SimpleNamespace(to_object=lambda: {"topics": [topic]})

    async def add_topic(self, name: str) -> None:
        self._log.topics.setdefault(name, {0: []})

    def partitions_for_topic(self, name: str) -> set[int]:
        return set(self._log.topics.get(name, ()))

    def _records(self, place: TopicPartition) -> list[Record]:
        return self._log.topics[place.topic][place.partition]

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self._records(place)) for place in places}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[Any, Any]:
        return {
            place: next((r for r in self._records(place) if r.timestamp >= since), None)
            for place, since in times.items()
        }

    def assign(self, places: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places, 0)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    async def getmany(self, *_: TopicPartition, timeout_ms: int) -> dict[Any, list[Record]]:
        found = {}
        for place, position in self._positions.items():
            records = self._records(place)[position : position + 2]
            self._positions[place] = position + len(records)
            self._log.given_out += len(records)
            if records:
                found[place] = records
        return found


class _HeldBack(MemoryConsumer):
    """One that does not see the last record of a topic, unless it reads all that is written."""

    def __init__(self, log: MemoryLog, topic: str, isolation_level: str) -> None:
        super().__init__(log)
        self._hidden = topic if isolation_level == "read_committed" else ""

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        ends = await super().end_offsets(places)
        return {tp: end - 1 if tp.topic == self._hidden else end for tp, end in ends.items()}
