"""Why a transaction failed: aiokafka tells it in several ways, and at times not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    KafkaTimeoutError,
    ProducerFenced,
)

#: Another producer has the transactional id.
FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)


@contextmanager
def own_error(producer: Any) -> Iterator[None]:
    """Let a transaction that has failed raise what it failed of.

    aiokafka tells whoever begins, sends or commits behind the failure no more than that there is
    no transaction: by an error that is none of Kafka's, or by an assertion.
    """
    try:
        yield
    except (AssertionError, IllegalOperation):
        found = _sender_error(producer) or _transaction_error(producer)
        # With no failure behind it, it is a defect.
        if found is None:
            raise
        raise found from found.__cause__


def _sender_error(producer: Any) -> BaseException | None:
    """What ended the task that sends; nothing of its producer works any more."""
    task = producer._sender.sender_task
    ended = task is not None and task.done() and not task.cancelled()
    return task.exception() if ended else None


def _transaction_error(producer: Any) -> BaseException | None:
    """What the producer's last transaction failed of, while it could still be aborted."""
    waiter = producer._txn_manager._transaction_waiter
    ended = waiter is not None and waiter.done() and not waiter.cancelled()
    return waiter.exception() if ended else None


def root_of(
    exc: KafkaError | TimeoutError | OSError, producer: Any = None
) -> KafkaError | TimeoutError | OSError:
    """What aiokafka's sender met, where it says so in an error that does not.

    Args:
        exc: What a call of the producer raised.
        producer: The one that raised it.
    """
    if isinstance(exc, InvalidTxnState) and producer is not None:
        # Where one partition is refused none is added; what is sent to the others all the same is
        # no part of a transaction to the broker.
        found = _transaction_error(producer)
        return found if isinstance(found, KafkaError) else exc
    if type(exc) is KafkaError and producer is not None:
        # The copies that it gives to those who wait have no cause.
        exc = _sender_error(producer) or exc
    cause = exc.__cause__
    if type(exc) is KafkaError and isinstance(cause, (KafkaError, TimeoutError, OSError)):
        return root_of(cause)
    return exc


def code_of(exc: BaseException) -> Literal["fenced", "outage", "refused"]:
    """Why a transaction failed: in an outage the broker is away, late, or moving something."""
    if isinstance(exc, FENCED):
        return "fenced"
    if isinstance(exc, KafkaError) and not isinstance(exc, KafkaTimeoutError):
        return "outage" if exc.retriable else "refused"
    return "outage"
