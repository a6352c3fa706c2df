from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from stream_judge import transactions
from stream_judge.errors import LaneLostError, PublishError
from stream_judge.offsets import Committed, metadata_of
from stream_judge.outage import Outages
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.transactions import (
    Progress,
    TransactionalPublisher,
    _throw_away,
    _TransactionalSink,
)
from stream_judge.verdict import Outcome, OutputRecord

SETTINGS = KafkaSettings()


class Client:
    def __init__(self) -> None:
        self.topics: set[str] = set()

    def set_topics(self, topics: Iterable[str]) -> None:
        self.topics = set(topics)


class Producer:
    """Commits offsets, or fails, as its broker says."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.client = Client()

    async def start(self) -> None: ...

    async def partitions_for(self, topic: str) -> set[int]:
        self.broker.seen.append(topic)
        if topic in self.broker.missing:
            raise UnknownTopicOrPartitionError(topic)
        return {0}

    async def begin_transaction(self) -> None:
        self.broker.tried += 1
        if self.broker.problem is not None:
            raise self.broker.problem

    async def send_offsets_to_transaction(self, offsets: dict[Any, Any], group: str) -> None:
        self.broker.metadata = [found.metadata for found in offsets.values()]

    async def commit_transaction(self) -> None: ...


class Broker:
    """What one partition's transactions meet."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.producers: list[Producer] = []
        self.tried = 0
        self.seen: list[str] = []
        self.missing: set[str] = set()
        self.metadata: list[str] = []

    async def committed(self) -> dict[Partition, Committed]:
        return {(SETTINGS.topic, number): Committed(5, 1) for number in range(2)}

    def open(self, *_: Any, **__: Any) -> Producer:
        self.producers.append(Producer(self))
        return self.producers[-1]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    async def throw_away(producer: Any) -> None: ...

    broker = Broker()
    monkeypatch.setattr(transactions, "make_producer", broker.open)
    monkeypatch.setattr(transactions, "_throw_away", throw_away)
    monkeypatch.setattr(transactions, "_FIRST_PAUSE_S", 0.0)
    return broker


async def make_sink(
    broker: Any, number: int, outages: Outages, settings: KafkaSettings = SETTINGS
) -> _TransactionalSink:
    sink = _TransactionalSink(settings, broker, (settings.topic, number), 1, outages, {})
    await sink.open()
    return sink


def run_of(number: int) -> list[Outcome]:
    record = make_record(b"", key=None, partition=number, offset=5)
    return [Outcome(record, "judged", "above_publish", "publish", ())]


async def tried(broker: Broker) -> None:
    before = broker.tried
    async with asyncio.timeout(1):
        while broker.tried < before + 2:
            await asyncio.sleep(0)


async def test_an_outage_of_one_partition_is_not_ended_by_another(broker: Broker) -> None:
    outages = Outages()
    out, well = [await make_sink(broker, number, outages) for number in range(2)]
    for sink in (out, well):
        await sink.begin_at(5, Committed(5, 1))
    broker.problem = NotEnoughReplicasError()
    publishing = asyncio.create_task(out.publish(run_of(0)))
    await tried(broker)
    assert outages.names == ["kafka"]
    other = Broker()
    well._producer = other.open()
    await well.publish(run_of(1))
    assert outages.names == ["kafka"]
    broker.problem = None
    await asyncio.wait_for(publishing, 1)
    assert outages.names == []


async def test_a_lane_that_ends_while_it_is_out_leaves_no_outage_behind(broker: Broker) -> None:
    outages = Outages()
    sink = await make_sink(broker, 0, outages)
    await sink.begin_at(5, Committed(5, 1))
    broker.problem = NotEnoughReplicasError()
    publishing = asyncio.create_task(sink.publish(run_of(0)))
    await tried(broker)
    assert outages.names == ["kafka"]
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert outages.names == []


async def test_a_refusal_is_no_outage(broker: Broker) -> None:
    outages = Outages()
    sink = await make_sink(broker, 0, outages)
    await sink.begin_at(5, Committed(5, 1))
    broker.problem = TopicAuthorizationFailedError("verdicts")
    with pytest.raises(PublishError, match="3 new producers made no progress"):
        await sink.publish(run_of(0))
    assert broker.tried == 4
    assert outages.names == []


async def test_no_transaction_is_open_while_a_topic_is_waited_for(broker: Broker) -> None:
    outages = Outages()
    sink = await make_sink(broker, 0, outages)
    await sink.begin_at(5, Committed(5, 1))
    broker.missing = {SETTINGS.dead_letter_topic}
    record = make_record(b"", key=None, partition=0, offset=5)
    outputs = tuple(OutputRecord(to, None, b"", ()) for to in ("verdicts", "dead_letters"))
    run = [Outcome(record, "dead_letter", "bad_event", None, outputs)]
    publishing = asyncio.create_task(sink.publish(run))
    async with asyncio.timeout(1):
        while len(broker.seen) < 4:
            await asyncio.sleep(0)
    assert broker.tried == 0
    assert outages.names == ["kafka"]
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)


async def test_an_idle_producer_asks_for_one_topic_and_not_for_all(broker: Broker) -> None:
    await make_sink(broker, 0, Outages())
    assert broker.producers[-1].client.topics == {SETTINGS.verdict_topic}


@pytest.mark.parametrize(
    ("committed", "on_missing", "first"),
    [
        # A new group's start; nothing was ever judged.
        (None, None, True),
        # An operator decided: the group is not new, or that does not matter.
        (None, "earliest", False),
        (Committed(2, 1), "latest", False),
    ],
)
async def test_a_start_that_begins_a_group_is_marked(
    broker: Broker, committed: Committed | None, on_missing: Any, first: bool
) -> None:
    settings = KafkaSettings(on_missing_offset=on_missing)
    sink = await make_sink(broker, 0, Outages(), settings)
    await sink.begin_at(5, committed)
    assert broker.metadata == [metadata_of(1, first=first)]
    await sink.publish(run_of(0))
    assert broker.metadata == [metadata_of(1)]


async def test_lanes_open_only_once_their_starts_can_be_read(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (SETTINGS.topic, 0)
    # The marker of the commit comes late: twice the group still has what it had.
    answers = [{place: Committed(5, 1)}] * 3 + [{place: Committed(9, 2)}]
    asked = 0

    async def committed() -> dict[Partition, Committed]:
        nonlocal asked
        asked += 1
        return answers[asked - 1]

    async def ranges(_: object) -> dict[Partition, tuple[int, int]]:
        return {place: (7, 9)}

    monkeypatch.setattr(broker, "committed", committed)
    monkeypatch.setattr(broker, "ranges", ranges, raising=False)
    publisher = TransactionalPublisher(SETTINGS.model_copy(update={"on_missing_offset": "latest"}))
    publisher._offsets = broker  # type: ignore[assignment]  # all that is asked of it
    sinks = await publisher.open([place], 2)
    assert (asked, set(sinks)) == (4, {place})
    # Nothing had to be committed: nothing is waited for.
    asked, answers[:] = 0, [{place: Committed(8, 1)}]
    await publisher.open([place], 3)
    assert asked == 1


@pytest.mark.parametrize(
    ("found", "forgotten"),
    [
        # The lane's own last but one, and what it began behind.
        (Committed(7, 1), True),
        (Committed(5, 0), True),
        # Nothing is missing.
        (Committed(9, 1), False),
        # Somebody else's, or an operator's.
        (Committed(7, 2), False),
        (Committed(6, 0), False),
        (Committed(7, -1), False),
        (None, False),
    ],
)
def test_what_a_broker_forgot_is_told_from_what_another_owner_did(
    found: Committed | None, forgotten: bool
) -> None:
    assert Progress(9, 1, Committed(5, 0)).is_forgotten(found) is forgotten
    assert Progress(9, 1, None).is_forgotten(None)


async def test_a_lane_goes_on_behind_what_was_confirmed_and_forgotten(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (SETTINGS.topic, 0)
    sink = await make_sink(broker, 0, Outages())
    await sink.begin_at(5, Committed(5, 0))
    await sink.publish(run_of(0))
    # The next run meets a broker that comes back without the last offset.
    answer = Committed(5, 0)

    async def committed() -> dict[Partition, Committed]:
        return {place: answer}

    monkeypatch.setattr(broker, "committed", committed)
    await sink.close()
    record = make_record(b"", key=None, partition=0, offset=6)
    await sink.publish([Outcome(record, "judged", "above_publish", "publish", ())])
    # The same offset, as another owner's: then this lane has lost its partition.
    answer = Committed(5, 2)
    await sink.close()
    later = make_record(b"", key=None, partition=0, offset=7)
    with pytest.raises(LaneLostError, match="has committed 5, this worker 7"):
        await sink.publish([Outcome(later, "judged", "above_publish", "publish", ())])


async def test_an_assignment_begins_behind_what_was_confirmed_and_forgotten(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (SETTINGS.topic, 0)
    found = Committed(5, 1)

    async def committed() -> dict[Partition, Committed]:
        return {place: found}

    async def ranges(_: object) -> dict[Partition, tuple[int, int]]:
        return {place: (0, 9)}

    begun: list[int] = []

    class Sink(_TransactionalSink):
        async def begin_at(self, offset: int, committed: Committed | None) -> None:
            nonlocal found
            await super().begin_at(offset, committed)
            begun.append(offset)
            found = Committed(offset, self._generation)

    monkeypatch.setattr(transactions, "_TransactionalSink", Sink)
    monkeypatch.setattr(broker, "committed", committed)
    monkeypatch.setattr(broker, "ranges", ranges, raising=False)
    publisher = TransactionalPublisher(SETTINGS)
    publisher._offsets = broker  # type: ignore[assignment]  # all that is asked of it
    sinks = await publisher.open([place], 1)
    await sinks[place].publish(run_of(0))
    found = Committed(5, 1)
    await publisher.open([place], 2)
    assert begun == [5, 6]
    # Judged by another meanwhile: what this process remembers is of no account.
    found = Committed(8, 3)
    await publisher.open([place], 4)
    assert begun == [5, 6, 8]


class Beyond:
    """A producer that takes all the time there is to stop."""

    def __init__(self) -> None:
        self._txn_manager = SimpleNamespace(_transaction_waiter=None)
        self.closed: list[str] = []
        self._sender = SimpleNamespace(close=partial(self._close, "sender"))
        self.client = SimpleNamespace(close=partial(self._close, "client"))

    async def stop(self) -> None:
        await asyncio.Event().wait()

    async def _close(self, what: str) -> None:
        self.closed.append(what)


async def test_a_lane_that_ends_while_its_producer_stops_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = Beyond()
    stopping = asyncio.create_task(_throw_away(producer))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert producer.closed == ["sender", "client"]
    monkeypatch.setattr(transactions, "_STOP_S", 0.01)
    late = Beyond()
    await _throw_away(late)
    assert late.closed == ["sender", "client"]
