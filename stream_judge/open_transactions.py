"""What a producer has left open in the output topics, as the partitions' leaders know it.

Opening a transactional producer ends what its id had left open. But a lone Apache Kafka 4.3 broker
that died inside a transaction can call it ended, when it is back, without having written its
markers: the records stay open, and the next marker of the same producer decides them together with
its own. The leaders tell which they are (DescribeProducers, KIP-664; brokers from 2.8 on).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from stream_judge.connection import ask_any, client_options, close_apart
from stream_judge.publisher import topics_of
from stream_judge.settings import KafkaSettings

_log = structlog.get_logger(__name__)
_AGAIN_S = 0.1
# A partition that has no leader for so long is out of order: nothing can be written there either.
_PATIENCE_S = 3.0
# A broker that hangs keeps all lanes waiting, and a hook has a deadline.
_REQUEST_MS = 2_000
# An answer names every producer that has written to a partition; a long one is decoded in one go.
_PARTITIONS_AT_A_TIME = 32


class _Response(Response):  # type: ignore[misc]
    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("open_from", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _RequestV0(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 61
    API_VERSION = 0
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeProducers(Request[_RequestV0]):  # type: ignore[misc]
    API_KEY = 61

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        numbers: dict[str, list[int]] = defaultdict(list)
        for tp in partitions:
            numbers[tp.topic].append(tp.partition)
        self._topics: list[Any] = [(topic, found, {}) for topic, found in numbers.items()]

    def build(self, request_struct_class: type[_RequestV0]) -> _RequestV0:
        return request_struct_class(self._topics, {})


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """What a producer has open.

    Attributes:
        places: The first offset of it, in each partition where it has something open.
        unknown: Partitions whose leaders have not told, of any producer.
    """

    places: dict[TopicPartition, int]
    unknown: frozenset[TopicPartition] = frozenset()


@dataclass(slots=True)
class _Answer:
    """Of all leaders: by producer, what it has open, and in which epoch."""

    places: dict[int, dict[TopicPartition, int]] = field(default_factory=lambda: defaultdict(dict))
    holders: set[tuple[int, int]] = field(default_factory=set)
    unknown: frozenset[TopicPartition] = frozenset()


class OpenTransactions:
    """Asks the leaders of the output partitions; one answer serves all lanes that wait for it.

    Args:
        settings: Broker and topics.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin: Any = None
        self._lock = asyncio.Lock()
        # Calls, and how many of them came before the last answer was asked for.
        self._calls = self._served = 0
        self._last = _Answer()

    async def of(self, producer_id: int) -> LeftOpen:
        """What a producer has open; give a deadline.

        What is not open by now, after the producer was opened, is decided. A broker that does not
        know the question, or an account that may not read a topic, leaves it unanswered for good:
        nothing is found there.

        Raises:
            KafkaError: A broker does not tell.
        """
        answer = await self._answer()
        return LeftOpen(dict(answer.places.get(producer_id, {})), answer.unknown)

    async def holders(self) -> tuple[set[tuple[int, int]], frozenset[TopicPartition]]:
        """Id and epoch of every producer that has something open; give a deadline.

        Returns:
            Those, and the partitions whose leaders have not told.

        Raises:
            KafkaError: A broker does not tell.
        """
        answer = await self._answer()
        return answer.holders, answer.unknown

    async def stop(self) -> None:
        """Disconnect."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await close_apart(admin.close())

    async def _answer(self) -> _Answer:
        self._calls += 1
        call = self._calls
        async with self._lock:
            # An answer that was asked for before this call may be older than the producer.
            if self._served < call:
                served = self._calls
                try:
                    self._last = await self._ask()
                except BaseException:
                    # Also where whoever asks is cancelled: its connection may hang.
                    await self.stop()
                    raise
                self._served = served
            return self._last

    async def _ask(self) -> _Answer:
        if self._admin is None:
            self._admin = await self._connected()
        found = _Answer()
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        left: set[TopicPartition] | None = None
        while True:
            late = asyncio.get_running_loop().time() > until
            try:
                leaders, left = await self._leaders(left)
            except KafkaError as exc:
                if late or not exc.retriable:
                    raise
            else:
                for node, partitions in leaders.items():
                    left |= await self._ask_leader(node, partitions, found)
                if not left:
                    break
                if late:
                    _log.warning("open_transactions_unknown", partitions=_named(left))
                    found.unknown = frozenset(left)
                    break
            await asyncio.sleep(_AGAIN_S)
        return found

    async def _leaders(
        self, wanted: set[TopicPartition] | None
    ) -> tuple[dict[int, list[TopicPartition]], set[TopicPartition]]:
        """Partitions by leader, and those that have none; None wants all."""
        topics = sorted(topics_of(self._settings).values())
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        answer = await ask_any(self._admin._client, request)
        self._admin._client.cluster.update_metadata(answer)
        leaders: dict[int, list[TopicPartition]] = defaultdict(list)
        left = set()
        # A topic that is not there has no partitions.
        for topic in answer.to_object()["topics"]:
            for row in topic["partitions"]:
                tp = TopicPartition(topic["topic"], row["partition"])
                if wanted is not None and tp not in wanted:
                    continue
                if row["leader"] < 0:
                    left.add(tp)
                else:
                    leaders[row["leader"]].append(tp)
        return leaders, left

    async def _ask_leader(
        self,
        node: int,
        partitions: Sequence[TopicPartition],
        found: _Answer,
    ) -> set[TopicPartition]:
        """Add to what is found; the partitions that have to be asked for again."""
        again: set[TopicPartition] = set()
        for n in range(0, len(partitions), _PARTITIONS_AT_A_TIME):
            some = partitions[n : n + _PARTITIONS_AT_A_TIME]
            try:
                answer = await self._admin._send_request(_DescribeProducers(some), node)
            except IncompatibleBrokerVersion:
                return set()
            except KafkaError as exc:
                if not exc.retriable:
                    raise
                # It would keep those who wait as long again for each of the others.
                return again | set(partitions[n:])
            again |= _take(answer, found)
        return again

    async def _connected(self) -> Any:
        options = client_options(self._settings)
        admin = AIOKafkaAdminClient(**options, request_timeout_ms=_REQUEST_MS)
        try:
            await admin.start()
        except BaseException:
            await close_apart(admin.close())
            raise
        # A client that follows no topic asks for all of the cluster's, every five minutes.
        admin._client.set_topics([self._settings.verdict_topic])
        return admin


def _take(answer: Any, found: _Answer) -> set[TopicPartition]:
    """Add an answer to what is found; the partitions that have to be asked for again."""
    again, denied = set(), []
    for topic, rows, _ in answer.topics:
        for number, code, _, producers, _ in rows:
            tp = TopicPartition(topic, number)
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                denied.append(tp)
            elif code and error.retriable:
                again.add(tp)
            elif code:
                raise error(f"producers of {tp.topic}/{tp.partition}")
            for producer_id, epoch, *_, open_from, _ in producers or ():
                if open_from >= 0:
                    found.places[producer_id][tp] = open_from
                    found.holders.add((producer_id, epoch))
    if denied:
        _log.warning("open_transactions_unreadable", partitions=_named(denied))
    return again


def _named(partitions: Iterable[TopicPartition]) -> list[str]:
    return sorted(f"{tp.topic}/{tp.partition}" for tp in partitions)
