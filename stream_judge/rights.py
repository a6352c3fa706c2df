"""Which rights (ACLs) a worker needs on a broker that asks for them, and which it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)

from stream_judge.connection import client_options
from stream_judge.publisher import make_producer
from stream_judge.settings import KafkaSettings

_DENIED = (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_DEADLINE_S = 10.0
_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Right:
    """A right that a worker needs.

    Attributes:
        says: What for, in a few words.
        arguments: For `kafka-acls --add --allow-principal User:NAME`.
        probe: Uses it, and changes nothing that anybody reads.
    """

    says: str
    arguments: str
    probe: Callable[[KafkaSettings], Awaitable[None]]


def needed_rights(settings: KafkaSettings) -> list[Right]:
    """Every right that the settings make a worker need, and that can be tried."""
    rights = [
        Right(
            f"read {settings.topic}",
            f"--operation Read --topic {settings.topic}",
            _read_source,
        ),
        Right(
            f"join the group {settings.application}",
            f"--operation Read --group {settings.application}",
            _read_group,
        ),
    ]
    if settings.publisher == "transactional":
        # An id for each source partition: {application}-{topic}-{number}.
        prefix = f"{settings.application}-"
        rights.append(
            Right(
                f"transactional ids that begin with {prefix}",
                "--operation Write --operation Describe --resource-pattern-type prefixed "
                f"--transactional-id {prefix}",
                _open_producer,
            )
        )
        # Without a transaction there is no way to ask but to write.
        for topic in (settings.verdict_topic, settings.dead_letter_topic):
            arguments = f"--operation Write --topic {topic}"
            rights.append(Right(f"write {topic}", arguments, _writer_of(topic)))
    return rights


async def check_rights(settings: KafkaSettings) -> list[tuple[bool, str]]:
    """Whether the worker has each right, with a line that says what to do.

    Whatever a broker without an authorizer allows is there. A right that could not be
    looked at for another reason counts as there: other checks say what is wrong.
    """
    who = settings.sasl_username or "NAME"
    lines = []
    for right in needed_rights(settings):
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await right.probe(settings)
        except _DENIED:
            command = f"kafka-acls --add --allow-principal User:{who} {right.arguments}"
            lines.append((False, f"{right.says}: not allowed; {command}"))
        except (KafkaError, TimeoutError, OSError) as exc:
            lines.append((True, f"{right.says}: could not be looked at ({exc!r})"))
        else:
            lines.append((True, right.says))
    return lines


async def _find(settings: KafkaSettings, topic: str) -> None:
    """Raise what the broker says of a topic: clients wait for one that they may not see."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        for found in await admin.describe_topics([topic]):
            if found["error_code"]:
                raise for_code(found["error_code"])(topic)
    finally:
        await admin.close()


async def _read_source(settings: KafkaSettings) -> None:
    await _find(settings, settings.topic)
    reader = AIOKafkaConsumer(**client_options(settings), group_id=None)
    await reader.start()
    try:
        place = TopicPartition(settings.topic, 0)
        reader.assign([place])
        await reader.seek_to_end(place)
        await reader.getmany(timeout_ms=1000)
    finally:
        await reader.stop()


async def _read_group(settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        # Of one partition: not every broker can be asked for all of a group's.
        place = TopicPartition(settings.topic, 0)
        await admin.list_consumer_group_offsets(settings.application, partitions=[place])
    finally:
        await admin.close()


async def _open_producer(settings: KafkaSettings) -> None:
    async with _producer(settings):
        return


def _writer_of(topic: str) -> Callable[[KafkaSettings], Awaitable[None]]:
    async def probe(settings: KafkaSettings) -> None:
        await _find(settings, topic)
        async with _producer(settings) as producer:
            await producer.begin_transaction()
            # The broker looks at the right when a partition is added; no record is written.
            manager = producer._txn_manager
            place = TopicPartition(topic, 0)
            manager.maybe_add_partition_to_txn(place)
            while place not in manager.txn_partitions:
                if manager._transaction_waiter.done():
                    manager._transaction_waiter.result()
                await asyncio.sleep(_STEP_S)
            await producer.abort_transaction()

    return probe


@asynccontextmanager
async def _producer(settings: KafkaSettings) -> AsyncIterator[Any]:
    producer = make_producer(settings, transactional_id=f"{settings.application}-doctor")
    try:
        await producer.start()
        yield producer
    finally:
        waiter = producer._txn_manager._transaction_waiter
        if waiter is not None:
            # Nobody else asks it how the transaction ended.
            waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        await producer.stop()
