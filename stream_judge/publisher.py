"""Publishing runs of outcomes; of the worker, the only module that imports aiokafka's producer.

A run is what is finished at the head of one partition's lane; a sink takes the runs of one
lane and belongs to it alone. Two publishers make sinks:

- `PlainPublisher`: every record is confirmed, then Faust commits the source offset. After a
  crash or a zombie's waking a run can be published again.
- `TransactionalPublisher`: a run and the source offset behind it are one transaction of a
  producer whose id is that of the partition (`transactions.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError

from stream_judge.connection import client_options, connect
from stream_judge.errors import PublishError
from stream_judge.settings import KafkaSettings
from stream_judge.verdict import Outcome

# In no group's name and in no topic's, so that no two groups have an id in common. "/" is in none
# either, but a broker with ZooKeeper takes no ACL for it.
_SEPARATOR = ":"
#: A topic and the number of one of its partitions.
Partition = tuple[str, int]


class Sink(Protocol):
    """Where the runs of one lane go."""

    async def publish(self, run: Sequence[Outcome]) -> None:
        """Publish a run, in order; returns when the broker has confirmed all of it.

        Raises:
            PublishError: Something was not confirmed; nothing of the lane may follow.
        """
        ...

    async def tend(self) -> None:
        """Look after what was confirmed; nothing of the lane is under way.

        Raises:
            PublishError: As `publish`.
        """
        ...

    async def close(self) -> None:
        """Let go of what the sink holds; what it had not confirmed never will be."""
        ...


class Publisher(Protocol):
    """Makes the sinks of the partitions that a worker owns."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def open(
        self, partitions: Collection[Partition], generation: int
    ) -> Mapping[Partition, Sink]:
        """A sink for each partition of an assignment; former owners are shut out by then.

        Raises:
            PublishError: The broker refuses, or does not answer.
            OffsetError: The group has no usable offset for a partition.
        """
        ...

    async def watch(self, need_tending: Callable[[Partition], None]) -> None:
        """Look after lanes that are idle; returns if there is nothing to look after.

        Args:
            need_tending: Told the partitions whose sinks should `tend`.
        """
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...


def topics_of(settings: KafkaSettings) -> dict[str, str]:
    """The topic of each destination that an output record can have."""
    return {"verdicts": settings.verdict_topic, "dead_letters": settings.dead_letter_topic}


def id_prefix(settings: KafkaSettings) -> str:
    """What the transactional ids of a group begin with, and those of no other group."""
    return f"{settings.application}{_SEPARATOR}"


def transactional_id(settings: KafkaSettings, topic: str, part: int | str) -> str:
    """The transactional id of one partition of a topic.

    Args:
        settings: Group.
        topic: The source topic.
        part: The partition's number; a word for an id that is no partition's.
    """
    return f"{id_prefix(settings)}{topic}{_SEPARATOR}{part}"


def make_producer(settings: KafkaSettings, **more: Any) -> Any:
    """A producer that is not started yet; all replicas confirm what it sends."""
    return AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        max_request_size=settings.max_record_bytes + 10_000,
        **more,
    )


def connections_of(producer: Any, partitions: Iterable[TopicPartition]) -> tuple[Any, ...]:
    """The connections over which a transaction went; each says if it is still `connected`.

    A producer has others, which may be idle and are closed then.

    Args:
        producer: Has sent all of a transaction, and not ended it.
        partitions: Those that it was sent to.
    """
    client = producer.client
    leaders = {client.cluster.leader_for_partition(tp) for tp in partitions}
    coordinators = set(producer._sender._coordinators.values())
    nodes = {ConnectionGroup.DEFAULT: leaders, ConnectionGroup.COORDINATION: coordinators}
    return tuple(c for (node, group), c in client._conns.items() if node in nodes[group])


def partition_of(producer: Any, topic: str, key: bytes) -> int:
    """Where a started producer sends what has a key, once it has `partitions_for` the topic."""
    number: int = producer._partition(topic, None, key, None, key, None)
    return number


async def throw_away(producer: Any) -> None:
    """Close a producer whatever it is at; no task and no socket is left.

    Its own `stop` waits for batches that nobody will confirm any more, and behind them for a
    coordinator, which has no end while there is none.

    Args:
        producer: Made by `make_producer`.
    """
    # Else it would complain that it was not stopped.
    producer._closed = True
    waiter = getattr(producer._txn_manager, "_transaction_waiter", None)
    if waiter is not None:
        # Nobody will ask it any more how the transaction ended.
        waiter.add_done_callback(_ask)
    try:
        await _end_sender(producer._sender.sender_task)
    finally:
        await producer.client.close()


async def _end_sender(sender: asyncio.Task[None] | None) -> None:
    """End the task that sends, with its requests: by itself it would wait for each of them."""
    if sender is None or sender.done():
        return
    requests = tuple(sender.get_coro().cr_frame.f_locals.get("tasks", ()))  # type: ignore[union-attr]
    for task in (sender, *requests):
        task.add_done_callback(_ask)
        task.cancel()
    await asyncio.wait((sender, *requests))


def _ask(done: asyncio.Future[Any]) -> None:
    """Ask for an error that nobody waits for any more; else asyncio complains."""
    if not done.cancelled():
        done.exception()


async def send_run(
    producer: Any, topics: Mapping[str, str], run: Sequence[Outcome]
) -> list[asyncio.Future[Any]]:
    """Hand every output of a run to the producer; the futures of their confirmations."""
    futures = []
    for output in (output for outcome in run for output in outcome.outputs):
        future = await producer.send(
            topics[output.destination],
            key=output.key,
            value=output.value,
            headers=list(output.headers),
        )
        # Whoever waits may be cancelled first; an error that nobody asks for is a warning.
        future.add_done_callback(_ask)
        futures.append(future)
    return futures


def name_run(run: Sequence[Outcome]) -> str:
    """The run in the words of a message."""
    return f"{run[0].record.place} to offset {run[-1].record.offset}"


class PlainPublisher:
    """At-least-once: one producer for all lanes, each record confirmed by all replicas.

    A broker that stays away for longer than the deadline ends the worker: what was sent may be
    there or not, and only a restart from the committed offset repeats all of it in order.

    Args:
        settings: Broker, topics, deadline.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topics = topics_of(settings)
        self._timeout_s = settings.request_timeout_s
        self._settings = settings
        self._producer: Any = None

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: No broker answers.
        """
        milliseconds = int(self._timeout_s * 1000)
        self._producer = make_producer(self._settings, request_timeout_ms=milliseconds, linger_ms=2)
        await connect(self._producer, self._settings)

    async def open(
        self, partitions: Collection[Partition], generation: int
    ) -> Mapping[Partition, Sink]:
        """The publisher itself is every lane's sink."""
        return dict.fromkeys(partitions, self)

    async def publish(self, run: Sequence[Outcome]) -> None:
        """See `Sink.publish`."""
        try:
            async with asyncio.timeout(self._timeout_s + 5):
                futures = await send_run(self._producer, self._topics, run)
                results = await asyncio.gather(*futures, return_exceptions=True)
        except (KafkaError, TimeoutError, OSError) as exc:
            raise self._failed(run, exc) from exc
        for result in results:
            if isinstance(result, BaseException):
                raise self._failed(run, result) from result

    async def tend(self) -> None:
        """See `Sink.tend`; what was confirmed is there."""

    async def close(self) -> None:
        """See `Sink.close`; nothing is held for one lane."""

    async def watch(self, need_tending: Callable[[Partition], None]) -> None:
        """Nothing: no record that was confirmed waits for anything."""

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    def _failed(self, run: Sequence[Outcome], exc: BaseException) -> PublishError:
        return PublishError(f"{name_run(run)}: the broker did not confirm: {exc!r}")
