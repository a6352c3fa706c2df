from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiokafka.producer.transaction_manager import TransactionState

from stream_judge.errors import LaneLostError, OffsetError
from stream_judge.offsets import Committed
from stream_judge.progress import Run, places_of
from stream_judge.publisher import Partition, Sink, make_producer, send_run, topics_of
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.transactional_sink import TransactionalSink
from stream_judge.transactions import TransactionalPublisher
from stream_judge.verdict import Outcome, OutputRecord
from tests.kafka.chaos.logs import read_outcomes
from tests.kafka.log import committed, send


@pytest.fixture
async def publisher(settings: KafkaSettings) -> AsyncIterator[TransactionalPublisher]:
    publisher = TransactionalPublisher(settings)
    await publisher.start()
    yield publisher
    await publisher.stop()


def run(settings: KafkaSettings, offsets: Sequence[int], partition: int = 0) -> list[Outcome]:
    outcomes = []
    for offset in offsets:
        record = make_record(
            b"{}", key=b"p", topic=settings.topic, partition=partition, offset=offset
        )
        headers = (
            ("sj-source-topic", settings.topic.encode()),
            ("sj-source-partition", str(partition).encode()),
            ("sj-source-offset", str(offset).encode()),
        )
        output = OutputRecord("verdicts", b"p-%d" % offset, b"{}", headers)
        outcomes.append(Outcome(record, "judged", "above_publish", "publish", (output,)))
    return outcomes


def mine(settings: KafkaSettings, *numbers: int) -> list[Partition]:
    return [(settings.topic, number) for number in numbers]


async def places(settings: KafkaSettings) -> list[tuple[int, int]]:
    return sorted(found.place for found in await read_outcomes(settings, settings.verdict_topic))


async def test_a_run_and_its_offset_are_one(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 5)
    sinks = await publisher.open(mine(settings, 0, 1), 3)
    found = await committed(settings)
    assert {p[1]: (c.offset, c.generation) for p, c in found.items()} == {0: (0, 3), 1: (0, 3)}
    sink = sinks[settings.topic, 0]
    await sink.publish(run(settings, [0, 1, 2]))
    await sink.publish(run(settings, [3, 4]))
    assert await places(settings) == [(0, offset) for offset in range(5)]
    assert (await committed(settings))[settings.topic, 0].offset == 5
    for each in sinks.values():
        await each.close()


async def test_a_producer_whose_broker_is_well_is_kept(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    assert isinstance(sink, TransactionalSink)
    producer = sink._producer
    for offset in range(20):
        await sink.publish(run(settings, [offset]))
        if offset % 5 == 0:
            # Its client learns of new leaders so, and drops the connection it began with.
            await producer.client.force_metadata_update()
    assert sink._producer is producer
    assert not sink.in_doubt
    assert len(sink._connections) > 1, "a coordinator's, and a leader's"
    await sink.close()


async def test_of_two_owners_only_one_writes(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 5)
    old: Sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    await old.publish(run(settings, [0]))
    new: Sink = (await publisher.open(mine(settings, 0), 2))[settings.topic, 0]
    await new.publish(run(settings, [1, 2]))
    # A zombie wakes up with what it held.
    with pytest.raises(LaneLostError):
        await old.publish(run(settings, [1]))
    # Its new producer has shut the owner out, which finds its own offset and goes on.
    await new.publish(run(settings, [3, 4]))
    assert await places(settings) == [(0, offset) for offset in range(5)]
    await old.close()
    await new.close()


async def test_what_a_former_owner_left_open_is_aborted(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 2)
    old = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    producer = old._producer  # type: ignore[attr-defined]
    await producer.begin_transaction()
    await (await producer.send(settings.verdict_topic, b"half", key=b"p"))
    new = (await publisher.open(mine(settings, 0), 2))[settings.topic, 0]
    await new.publish(run(settings, [0, 1]))
    assert await places(settings) == [(0, 0), (0, 1)]
    await old.close()
    await new.close()


async def leave_open(settings: KafkaSettings, producer: Any, outcomes: list[Outcome]) -> list[Any]:
    """Send in a transaction that the client takes for ended; the leaders know better."""
    await producer.begin_transaction()
    sent = [await future for future in await send_run(producer, topics_of(settings), outcomes)]
    producer._txn_manager._transition_to(TransactionState.ABORTING_TRANSACTION)
    producer._txn_manager.complete_transaction()
    return sent


@pytest.mark.parametrize(("confirmed", "left"), [(2, [(0, 0), (0, 1)]), (0, [])])
async def test_what_a_broker_left_open_is_committed_only_if_it_was_confirmed(
    settings: KafkaSettings,
    publisher: TransactionalPublisher,
    confirmed: int,
    left: list[tuple[int, int]],
) -> None:
    sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    assert isinstance(sink, TransactionalSink)
    producer = sink._producer
    await leave_open(settings, producer, run(settings, [0, 1]))
    answer = await publisher._open_transactions.of(producer._txn_manager.producer_id)
    assert list(answer.places.values()) == [0, 0], "two keys, two partitions"
    await sink.settle(Committed(confirmed, 0))
    assert await places(settings) == left
    answer = await publisher._open_transactions.of(producer._txn_manager.producer_id)
    assert (answer.places, answer.unknown) == ({}, set())
    # And it goes on with what is not there.
    await sink.publish(run(settings, [0, 1] if not left else [2]))
    assert await places(settings) == [(0, 0), (0, 1), *([(0, 2)] if left else [])]
    await sink.close()


async def test_what_was_left_open_of_an_idle_lane_is_ended_when_its_connections_were_lost(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    sinks = await publisher.open(mine(settings, 0, 1), 1)
    sink, other = sinks[settings.topic, 0], sinks[settings.topic, 1]
    assert isinstance(sink, TransactionalSink)
    await sink.publish(run(settings, [0, 1]))
    sent = await leave_open(settings, sink._producer, run(settings, [2, 3, 4, 5]))
    # What it was told of it, before the broker went away.
    sink._confirm(6, Run(sink.partition, 2, 6, places_of(sent)))
    await other.publish(run(settings, [0], partition=1))
    assert await places(settings) == [(0, 0), (0, 1)], "nobody gets past what is open"
    told: asyncio.Queue[Partition] = asyncio.Queue()
    watching = asyncio.create_task(publisher.watch(told.put_nowait))
    assert not sink.in_doubt
    for connection in sink._producer.client._conns.values():
        connection.close()
    assert sink.in_doubt
    async with asyncio.timeout(10):
        assert await told.get() == sink.partition
        # The coordinator of this test knows of it, and aborts it for the new producer.
        with pytest.raises(LaneLostError, match="judged again from offset 2 on"):
            await sink.tend()
    assert await places(settings) == [(0, 0), (0, 1), (1, 0)]
    # Where nothing is left the producer stays as it is.
    assert isinstance(other, TransactionalSink)
    before = other.idle
    for connection in other._producer.client._conns.values():
        connection.close()
    async with asyncio.timeout(10):
        while other.in_doubt:
            await asyncio.sleep(0.1)
    assert (told.empty(), other.idle) == (True, before)
    await other.publish(run(settings, [1], partition=1))
    assert await places(settings) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    watching.cancel()
    await other.close()


async def test_an_answer_that_was_lost_is_found_in_the_offset(
    settings: KafkaSettings, publisher: TransactionalPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 2)
    sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    producer = sink._producer  # type: ignore[attr-defined]
    commit = producer.commit_transaction

    async def commit_and_lose() -> None:
        await commit()
        raise TimeoutError

    monkeypatch.setattr(producer, "commit_transaction", commit_and_lose)
    await sink.publish(run(settings, [0, 1]))
    assert await places(settings) == [(0, 0), (0, 1)]
    assert (await committed(settings))[settings.topic, 0].offset == 2
    await sink.close()


async def test_a_first_start_that_was_cut_off_is_repeated(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    await send(settings, [(b"p", b"{}", 0), (b"p", b"{}", 1)])
    # Cut off between the commits of two partitions: nothing has been judged.
    await (await publisher.open(mine(settings, 0), 1))[settings.topic, 0].close()
    sinks = await publisher.open(mine(settings, 0, 1), 2)
    assert {p[1]: c.offset for p, c in (await committed(settings)).items()} == {0: 0, 1: 0}
    for sink in sinks.values():
        await sink.close()


async def test_a_partition_of_a_known_group_without_an_offset_is_an_operators_case(
    settings: KafkaSettings, publisher: TransactionalPublisher
) -> None:
    await send(settings, [(b"p", b"{}", 0), (b"p", b"{}", 1)])
    first = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    await first.publish(run(settings, [0]))
    await first.close()
    with pytest.raises(OffsetError, match="on_missing_offset"):
        await publisher.open(mine(settings, 1), 2)
    decided = TransactionalPublisher(settings.model_copy(update={"on_missing_offset": "latest"}))
    await decided.start()
    sinks = await decided.open(mine(settings, 1), 2)
    assert (await committed(settings))[settings.topic, 1].offset == 1
    await sinks[settings.topic, 1].close()
    await decided.stop()


def fail_once(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    """Let the next transaction fail before anything is sent."""

    async def failing() -> None:
        raise TimeoutError

    producer = sink._producer  # type: ignore[attr-defined]
    monkeypatch.setattr(producer, "begin_transaction", failing)


async def test_outcomes_that_were_confirmed_and_lost_are_judged_again(
    settings: KafkaSettings, publisher: TransactionalPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 5)
    sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    await sink.publish(run(settings, [0, 1]))
    producer = sink._producer  # type: ignore[attr-defined]
    # What a broker does that calls a prepared transaction complete and ends it another way.
    monkeypatch.setattr(producer, "commit_transaction", producer.abort_transaction)
    await sink.publish(run(settings, [2, 3]))
    fail_once(monkeypatch, sink)
    with pytest.raises(LaneLostError, match="judged again from offset 2 on"):
        await sink.publish(run(settings, [4]))
    again = TransactionalPublisher(settings)
    await again.start()
    sink = (await again.open(mine(settings, 0), 2))[settings.topic, 0]
    await sink.publish(run(settings, [2, 3, 4]))
    assert await places(settings) == [(0, offset) for offset in range(5)]
    await sink.close()
    await again.stop()


async def test_outcomes_behind_another_open_transaction_are_waited_for(
    settings: KafkaSettings, publisher: TransactionalPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(settings, [(b"p", b"{}", 0)] * 3)
    sink = (await publisher.open(mine(settings, 0), 1))[settings.topic, 0]
    other = make_producer(settings, transactional_id=f"{settings.application}-other")
    await other.start()
    await other.begin_transaction()
    for partition in (0, 1):
        await (await other.send(settings.verdict_topic, b"", key=b"q", partition=partition))
    await sink.publish(run(settings, [0, 1]))
    fail_once(monkeypatch, sink)
    publishing = asyncio.create_task(sink.publish(run(settings, [2])))
    await asyncio.sleep(1.0)
    assert not publishing.done()
    await other.abort_transaction()
    await publishing
    assert await places(settings) == [(0, offset) for offset in range(3)]
    await sink.close()
    await other.stop()
