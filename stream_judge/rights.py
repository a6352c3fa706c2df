"""Which rights (ACLs) a worker needs on a broker that asks for them, and which it lacks.

And whether the broker has the coordinators that some of them are good for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.errors import (
    ConcurrentTransactions,
    GroupCoordinatorNotAvailableError,
    InvalidTransactionTimeout,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from stream_judge.authorized import group_operations, topic_operations
from stream_judge.connection import open_admin
from stream_judge.publisher import id_prefix, transactional_id
from stream_judge.settings import KafkaSettings

_DEADLINE_S = 10.0
_AGAIN_S = 0.1
_TRANSACTION_COORDINATOR = 1
_WITHOUT = "; or set kafka.publisher to plain, which needs no transactions"
_UNREAD = (
    "after its only broker died, a worker cannot see which of the outcomes confirmed to it are "
    "there, and may repeat or lose the last"
)


@dataclass(frozen=True, slots=True)
class Right:
    """A right that a worker needs, or is better off with.

    Attributes:
        says: What for, in a few words.
        arguments: For `kafka-acls --add --allow-principal User:NAME`.
        allowed: Whether the account has it; asked of the broker by an administrative client.
        log: The settings of the broker's log behind its coordinator, for a right that has one.
        tried: Whether `allowed` does what a worker does: what it fails by, a worker fails by.
        lacking: What happens without it, for one without which a worker works all the same.
    """

    says: str
    arguments: str
    allowed: Callable[[Any], Awaitable[bool]]
    log: str | None = None
    tried: bool = False
    lacking: str | None = None


def needed_rights(settings: KafkaSettings) -> list[Right]:
    """Every right that the settings make a worker need, and then those it is better off with."""
    group = settings.application
    rights = [
        Right(
            f"read {settings.topic}",
            f"--operation Read --topic {settings.topic}",
            partial(_on_topic, topic=settings.topic, operation="Read"),
        ),
        Right(
            f"join the group {group}",
            f"--operation Read --group {group}",
            partial(_on_group, group=group, operation="Read"),
            log="offsets.topic.replication.factor",
        ),
    ]
    for topic in (settings.verdict_topic, settings.dead_letter_topic):
        right = partial(_on_topic, topic=topic, operation="Write")
        rights.append(Right(f"write {topic}", f"--operation Write --topic {topic}", right))
    if settings.publisher == "transactional":
        # Every source partition has an id of its own.
        prefix = id_prefix(settings)
        rights.append(
            Right(
                f"transactional ids that begin with {prefix}",
                "--operation Write --operation Describe --resource-pattern-type prefixed "
                f"--transactional-id {prefix}",
                partial(
                    _opens_transactions,
                    # Of no partition: the worker that owns one would be shut out.
                    transactional_id=transactional_id(settings, settings.topic, "doctor"),
                    timeout_s=settings.transaction_timeout_s,
                ),
                log="transaction.state.log.replication.factor and .min.isr",
                tried=True,
            )
        )
        for topic in (settings.verdict_topic, settings.dead_letter_topic):
            right = partial(_on_topic, topic=topic, operation="Read")
            command = f"--operation Read --topic {topic}"
            rights.append(Right(f"read {topic}", command, right, lacking=_UNREAD))
    return rights


async def check_rights(settings: KafkaSettings) -> list[tuple[bool, str]]:
    """Whether the worker has each right, with a line that says what to do.

    Nothing is written and no topic is made. Whatever a broker without an authorizer allows is
    there. A right that the broker does not tell of counts as there, and the line says so; but
    not where a worker could not start either: without a connection, without a coordinator, or
    without the transactions that were tried. One that a worker can do without is no fault where
    it is missing, and the line says what it is for.

    Raises:
        BrokerError: No broker.
    """
    who = settings.sasl_username or "NAME"
    admin = await open_admin(settings)
    lines = []
    try:
        for right in needed_rights(settings):
            try:
                allowed = await _ask(right, admin)
            except (KafkaError, TimeoutError, OSError, NotImplementedError) as exc:
                lines.append(_untold(right, exc))
                continue
            lines.append((True, right.says) if allowed else _missing(right, who))
    finally:
        await admin.close()
    return lines


async def _ask(right: Right, admin: Any) -> bool:
    clock = asyncio.get_running_loop().time
    deadline = clock() + _DEADLINE_S
    async with asyncio.timeout_at(deadline):
        while True:
            try:
                return await right.allowed(admin)
            except KafkaError as exc:
                # A coordinator is being made or moved; a topic will not come by itself. What
                # the broker still says at the end tells more than that the time is over.
                over = clock() + _AGAIN_S >= deadline
                if over or not exc.retriable or isinstance(exc, UnknownTopicOrPartitionError):
                    raise
            await asyncio.sleep(_AGAIN_S)


def _missing(right: Right, who: str) -> tuple[bool, str]:
    """What it means that the account has not a right."""
    command = f"kafka-acls --add --allow-principal User:{who} {right.arguments}"
    if right.lacking:
        return True, f"{right.says}: missing, and not needed, but {right.lacking}; {command}"
    return False, f"{right.says}: missing; {command}"


def _untold(right: Right, exc: Exception) -> tuple[bool, str]:
    """What it means that asking for a right failed."""
    if isinstance(exc, (KafkaConnectionError, NodeNotReadyError)):
        return False, f"{right.says}: unknown, the broker went away ({exc!r})"
    if right.log and isinstance(exc, GroupCoordinatorNotAvailableError):
        says = "the broker gives no coordinator; with fewer than 3 brokers, lower its"
        return False, f"{right.says}: {says} {right.log}{_WITHOUT if right.tried else ''}"
    if isinstance(exc, InvalidTransactionTimeout):
        says = "kafka.transaction_timeout_s is above the broker's transaction.max.timeout.ms"
        return False, f"{right.says}: {says}"
    if right.tried:
        return False, f"{right.says}: this broker opens none ({exc!r}){_WITHOUT}"
    return True, f"{right.says}: the broker does not tell ({exc!r})"


async def _on_topic(admin: Any, *, topic: str, operation: str) -> bool:
    return operation in await topic_operations(admin, topic)


async def _on_group(admin: Any, *, group: str, operation: str) -> bool:
    return operation in await group_operations(admin, group)


async def _opens_transactions(admin: Any, *, transactional_id: str, timeout_s: float) -> bool:
    """Whether ids like this one may be used; the broker forgets it after a week."""
    try:
        node = await admin.find_coordinator(transactional_id, _TRANSACTION_COORDINATOR)
    except TransactionalIdAuthorizationFailed:
        return False
    request = InitProducerIdRequest(transactional_id, int(timeout_s * 1000))
    error = for_code((await admin._send_request(request, node)).error_code)
    if error is TransactionalIdAuthorizationFailed:
        return False
    # Another doctor has just asked: so it may.
    if error not in (NoError, ConcurrentTransactions):
        raise error
    return True
