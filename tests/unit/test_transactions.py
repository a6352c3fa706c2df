from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from stream_judge import transactional_sink, transactions
from stream_judge.errors import BrokenInvariantError, LaneLostError, PublishError
from stream_judge.metrics import Metrics
from stream_judge.offsets import Committed, metadata_of
from stream_judge.open_transactions import LeftOpen
from stream_judge.outage import Outages
from stream_judge.progress import Run, State
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.transactional_sink import Shared, TransactionalSink
from stream_judge.transactions import TransactionalPublisher
from stream_judge.verdict import Outcome, OutputRecord

SETTINGS = KafkaSettings()


class Connection:
    def __init__(self) -> None:
        self.stands = True

    def connected(self) -> bool:
        return self.stands


class Client:
    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.nodes = 1
        self._conns = {("bootstrap", 0): Connection()}
        # The leader's, the coordinators', and those to brokers that have no part in it.
        self._conns |= {place: Connection() for place in ((1, 0), (2, 1), (3, 0), (1, 1))}
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: 1)

    def get_random_node(self) -> int | None:
        return self.nodes or None

    def set_topics(self, topics: Iterable[str]) -> None:
        self.topics = set(topics)


class Producer:
    """Commits offsets, or fails, as its broker says."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.client = Client()
        self.added: list[TopicPartition] = []
        self._txn_manager = SimpleNamespace(
            maybe_add_partition_to_txn=self.added.append, producer_id=1000, producer_epoch=0
        )
        self._sender = SimpleNamespace(sender_task=None, _coordinators={0: 2, 1: 2})

    async def start(self) -> None: ...

    async def partitions_for(self, topic: str) -> set[int]:
        self.broker.seen.append(topic)
        if topic in self.broker.missing:
            raise UnknownTopicOrPartitionError(topic)
        return {0}

    def _partition(self, topic: str, *_: Any) -> int:
        return 0

    async def begin_transaction(self) -> None:
        self.broker.tried += 1
        if self.broker.problem is not None:
            raise self.broker.problem

    async def send(self, topic: str, **_: Any) -> asyncio.Future[Any]:
        self.broker.sent.append(topic)
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(topic=topic, partition=0, offset=self.broker.tried))
        return sent

    async def send_offsets_to_transaction(self, offsets: dict[Any, Any], group: str) -> None:
        self.broker.metadata = [found.metadata for found in offsets.values()]
        self.broker.offsets += [found.offset for found in offsets.values()]

    async def commit_transaction(self) -> None:
        self.broker.end(self, "commit")
        self.broker.on_commit()

    async def abort_transaction(self) -> None:
        self.broker.end(self, "abort")


class Broker:
    """What one partition's transactions meet."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.out: str | None = None
        self.producers: list[Producer] = []
        self.ids: list[str] = []
        self.tried = 0
        self.seen: list[str] = []
        self.sent: list[str] = []
        self.missing: set[str] = set()
        self.metadata: list[str] = []
        self.offsets: list[int] = []
        self.on_commit: Callable[[], None] = lambda: None
        # Where transactions are open, of which source offset; and how some of them were ended.
        self.left_open: dict[TopicPartition, tuple[int, int]] = {}
        self.ended: list[tuple[str, list[TopicPartition]]] = []
        self.unknown: frozenset[TopicPartition] = frozenset()

    async def committed(self) -> dict[Partition, Committed]:
        return {(SETTINGS.topic, number): Committed(5, 1) for number in range(2)}

    async def of(self, producer_id: int) -> LeftOpen:
        assert producer_id == 1000
        return LeftOpen({tp: o for tp, (o, _) in self.left_open.items()}, self.unknown)

    async def source_offsets(
        self, places: dict[TopicPartition, int], source: Partition
    ) -> dict[TopicPartition, int]:
        assert source == (SETTINGS.topic, 0)
        return {tp: self.left_open[tp][1] for tp in places}

    def end(self, producer: Producer, how: str) -> None:
        if producer.added:
            self.ended.append((how, sorted(producer.added)))
        for tp in producer.added:
            del self.left_open[tp]
        producer.added.clear()

    def open(self, *_: Any, transactional_id: str = "", **__: Any) -> Producer:
        self.ids.append(transactional_id)
        self.producers.append(Producer(self))
        return self.producers[-1]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    async def throw_away(*_: Any) -> None: ...

    broker = Broker()
    monkeypatch.setattr(transactional_sink, "make_producer", broker.open)
    monkeypatch.setattr(transactional_sink, "throw_away", throw_away)
    monkeypatch.setattr(transactional_sink, "_FIRST_PAUSE_S", 0.0)
    return broker


async def make_sink(
    broker: Any,
    number: int,
    outages: Outages,
    settings: KafkaSettings = SETTINGS,
    metrics: Metrics | None = None,
) -> TransactionalSink:
    shared = Shared(settings, broker, broker, broker, outages, metrics or Metrics(), {})
    sink = TransactionalSink(shared, (settings.topic, number), 1)
    await sink.open()
    return sink


def attach(publisher: TransactionalPublisher, broker: Any) -> None:
    """Let a publisher ask the broker all that it asks."""
    publisher._offsets = publisher._outcomes = publisher._open_transactions = broker


def run_of(number: int, offset: int = 5, key: bytes | None = None) -> list[Outcome]:
    record = make_record(b"", key=None, partition=number, offset=offset)
    verdict = OutputRecord("verdicts", key, b"", ())
    return [Outcome(record, "judged", "above_publish", "publish", (verdict,))]


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


@pytest.mark.parametrize("nodes", [0, 1])
async def test_a_cluster_that_names_no_broker_is_out(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    outages = Outages()
    sink = await make_sink(broker, 0, outages)
    await sink.begin_at(5, Committed(5, 1))
    await sink.close()

    async def start(producer: Producer) -> None:
        producer.client.nodes = nodes
        assert broker.out is None, "Did we not perform bootstrap?"

    broker.out = "out"
    monkeypatch.setattr(Producer, "start", start)
    publishing = asyncio.create_task(sink.publish(run_of(0)))
    if nodes:
        # Then it is a defect.
        with pytest.raises(AssertionError, match="bootstrap"):
            await publishing
        return
    async with asyncio.timeout(1):
        while len(broker.producers) < 6:
            await asyncio.sleep(0)
    assert outages.names == ["kafka"]
    broker.out = None
    await asyncio.wait_for(publishing, 1)
    assert broker.offsets == [6]


async def test_a_partitions_producer_has_the_partitions_id(broker: Broker) -> None:
    await make_sink(broker, 3, Outages())
    assert broker.ids == ["stream-judge:product-updates:3"]


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
    assert broker.metadata == [metadata_of(1, sink._lane, first=first)]
    await sink.publish(run_of(0))
    assert broker.metadata == [metadata_of(1, sink._lane)]


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
    attach(publisher, broker)
    sinks = await publisher.open([place], 2)
    assert (asked, set(sinks)) == (4, {place})
    # Nothing had to be committed: nothing is waited for.
    asked, answers[:] = 0, [{place: Committed(8, 1)}]
    await publisher.open([place], 3)
    assert asked == 1


class Memory:
    """What the group's offset and the outcomes of the last run are, when a lane asks."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset: Committed | None = None
        self.states: list[State] = []
        self.asked: list[Run] = []
        monkeypatch.setattr(broker, "committed", self._committed)
        monkeypatch.setattr(broker, "ranges", self._ranges, raising=False)
        monkeypatch.setattr(broker, "look_for", self.look_for, raising=False)

    async def _committed(self) -> dict[Partition, Committed]:
        return {} if self.offset is None else {(SETTINGS.topic, 0): self.offset}

    async def _ranges(self, places: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        return dict.fromkeys(places, (0, 9))

    async def look_for(self, run: Run) -> State:
        self.asked.append(run)
        return self.states.pop(0)


@pytest.fixture
def memory(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(broker, monkeypatch)


def own(sink: TransactionalSink, offset: int) -> Committed:
    """What the group has committed, by a lane itself."""
    return Committed(offset, 1, lane=sink._lane)


async def lane_behind(broker: Broker, *offsets: int) -> TransactionalSink:
    """A lane that has published some records, one after the other, and lost its producer."""
    sink = await make_sink(broker, 0, Outages())
    await sink.begin_at(offsets[0], Committed(offsets[0], 0))
    for offset in offsets:
        await sink.publish(run_of(0, offset))
    await sink.close()
    broker.offsets.clear()
    return sink


async def test_a_lane_goes_on_behind_what_was_confirmed_and_forgotten(
    broker: Broker, memory: Memory
) -> None:
    sink = await lane_behind(broker, 5)
    # A broker comes back without the last offset; the outcomes are there.
    memory.offset, memory.states = Committed(5, 0), ["there"]
    await sink.publish(run_of(0, 6))
    assert broker.offsets == [7]
    assert [(run.begin, run.end) for run in memory.asked] == [(5, 6)]
    # The same offset, as another owner's: then this lane has lost its partition.
    memory.offset = Committed(5, 2)
    await sink.close()
    with pytest.raises(LaneLostError, match="has committed 5, this worker 7; another one owns"):
        await sink.publish(run_of(0, 7))
    assert sink._producer is None


@pytest.mark.parametrize(
    ("stands_at", "turned_back"),
    [
        # All of the transaction was lost: the group stands before it.
        (6, []),
        # Its outcomes alone were.
        (7, [6]),
    ],
)
async def test_a_lane_whose_last_outcomes_were_lost_ends_and_passes_none_over(
    broker: Broker, memory: Memory, stands_at: int, turned_back: list[int]
) -> None:
    sink = await lane_behind(broker, 5, 6)
    memory.offset, memory.states = own(sink, stands_at), ["gone"]
    with pytest.raises(LaneLostError, match="up to offset 7 and lost some.* from offset 6 on"):
        await sink.publish(run_of(0, 7))
    assert broker.offsets == turned_back
    assert sink._producer is None


async def test_a_confirmed_run_waits_for_what_others_have_open_before_it(
    broker: Broker, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional_sink, "_LOOK_AGAIN_S", 0.0)
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), ["open", "open", "there"]
    await sink.publish(run_of(0, 6))
    assert (broker.ended, broker.offsets) == ([], [7])


VERDICTS, LETTERS = TopicPartition("verdicts", 0), TopicPartition("letters", 0)


@pytest.mark.parametrize(
    ("left_open", "states", "ended"),
    [
        # Of a run that was confirmed, and whose markers are missing; the rest of it is there.
        ({VERDICTS: (3, 5)}, ["there"] * 2, [("commit", [VERDICTS])]),
        # Another lane hides the rest, and that one can be waiting for this.
        ({VERDICTS: (3, 5)}, ["open", "there"], [("commit", [VERDICTS])]),
        # Of one that was not: it is sent again.
        ({VERDICTS: (3, 6), LETTERS: (0, 6)}, ["there"], [("abort", [LETTERS, VERDICTS])]),
    ],
)
async def test_what_a_broker_calls_ended_and_left_open_is_ended_before_anything_is_sent(
    broker: Broker, memory: Memory, left_open: Any, states: list[State], ended: Any
) -> None:
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), list(states)
    broker.left_open = dict(left_open)
    await sink.publish(run_of(0, 6))
    assert (broker.ended, broker.offsets, memory.states) == (ended, [7], [])


async def test_what_is_open_of_a_confirmed_run_is_aborted_where_the_rest_is_lost(
    broker: Broker, memory: Memory
) -> None:
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), ["gone"] * 2
    broker.left_open = {VERDICTS: (3, 5)}
    with pytest.raises(LaneLostError, match="judged again from offset 5 on"):
        await sink.publish(run_of(0, 6))
    assert (broker.ended, broker.offsets) == ([("abort", [VERDICTS])], [5])


@pytest.mark.parametrize("key", [None, b"p"])
async def test_nothing_is_sent_where_what_was_left_open_is_not_known(
    broker: Broker, memory: Memory, key: bytes | None
) -> None:
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), ["there"] * 9
    [(place, _)] = sink._progress.run.places  # type: ignore[union-attr]  # it has published
    broker.unknown, sent = frozenset({place}), len(broker.sent)
    tries = broker.tried
    publishing = asyncio.create_task(sink.publish(run_of(0, 6, key=key)))
    async with asyncio.timeout(1):
        while len(broker.producers) < 3:
            await asyncio.sleep(0)
    assert sink._outages.names == ["kafka"]
    # Not even sent: where it is added to a transaction, abortion would decide what is open, too.
    assert (broker.tried, len(broker.sent)) == (tries, sent)
    broker.unknown = frozenset()
    await publishing
    assert (broker.offsets, len(broker.sent)) == ([7], sent + 1)


async def test_a_run_goes_on_where_another_partition_has_not_told(
    broker: Broker, memory: Memory
) -> None:
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), ["there"]
    broker.unknown = frozenset({TopicPartition(SETTINGS.verdict_topic, 1), LETTERS})
    await sink.publish(run_of(0, 6, key=b"p"))
    assert broker.offsets == [7]
    assert sink.in_doubt
    sink.trust()
    assert not sink.in_doubt


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_lane_that_is_idle_ends_what_was_left_open_of_it(
    broker: Broker, memory: Memory, forgotten: bool
) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()
    before = sink.idle
    assert before is not None
    memory.offset, memory.states = (Committed(5, 0) if forgotten else own(sink, 6)), ["there"] * 2
    broker.left_open = {VERDICTS: (3, 5)}
    await sink.tend()
    assert broker.ended == [("commit", [VERDICTS])]
    assert broker.offsets == ([6] if forgotten else [])
    assert sink.idle not in (None, before)
    # And it goes on.
    await sink.publish(run_of(0, 6))
    assert broker.offsets[-1] == 7


@pytest.mark.parametrize("lost", [(1, 0), (2, 1)])
async def test_a_lane_that_was_cut_off_asks_before_it_sends(
    broker: Broker, memory: Memory, lost: tuple[int, int]
) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()
    connections = broker.producers[-1].client._conns
    # Other connections, and the first one of all, say nothing.
    for place in (("bootstrap", 0), (3, 0), (1, 1)):
        connections[place].stands = False
    memory.offset, memory.states = own(sink, 6), ["there"]
    await sink.publish(run_of(0, 6))
    assert len(broker.producers) == 2
    assert not sink.in_doubt
    connections[lost].stands = False
    assert sink.in_doubt
    memory.offset, memory.states = own(sink, 7), ["there"] * 2
    broker.left_open = {VERDICTS: (3, 6)}
    await sink.publish(run_of(0, 7))
    assert len(broker.producers) == 3
    assert (broker.ended, broker.offsets) == ([("commit", [VERDICTS])], [7, 8])
    assert not sink.in_doubt


async def test_a_broker_that_dies_behind_its_answer_leaves_a_doubt(broker: Broker) -> None:
    sink = await make_sink(broker, 0, Outages())
    await sink.begin_at(5, Committed(5, 0))

    def die() -> None:
        # All of it is known before the lane goes on.
        for connection in broker.producers[-1].client._conns.values():
            connection.stands = False

    broker.on_commit = die
    await sink.publish(run_of(0))
    assert sink.in_doubt


async def test_a_connection_that_is_lost_while_a_topic_is_waited_for_is_noticed(
    broker: Broker, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()
    memory.offset, memory.states = own(sink, 6), ["there"]
    await sink.publish(run_of(0, 6))
    first = broker.producers[-1]

    async def partitions_for(topic: str) -> set[int]:
        first.client._conns[1, 0].stands = False
        return {0}

    monkeypatch.setattr(first, "partitions_for", partitions_for)
    memory.offset, sent = own(sink, 7), len(broker.sent)
    memory.states = ["there"]
    await sink.publish(run_of(0, 7))
    assert broker.producers[-1] is not first
    assert (broker.offsets[-1], len(broker.sent)) == (8, sent + 1)


async def test_a_connection_that_is_lost_in_a_transaction_stays_in_doubt(broker: Broker) -> None:
    sink = await make_sink(broker, 0, Outages())
    await sink.begin_at(5, Committed(5, 0))
    await sink.publish(run_of(0))
    connections = broker.producers[-1].client._conns

    def reconnect() -> None:
        # The client sends again by itself, and nobody hears of it.
        connections[1, 0].stands = False
        connections[1, 0] = Connection()

    broker.on_commit = reconnect
    await sink.publish(run_of(0, 6))
    assert sink.in_doubt
    sink.trust()
    assert not sink.in_doubt


async def test_an_idle_lane_whose_outcomes_were_lost_ends(broker: Broker, memory: Memory) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()
    memory.offset, memory.states = own(sink, 6), ["gone"]
    with pytest.raises(LaneLostError, match="product-updates/0 behind offset 5: .* from offset 5"):
        await sink.tend()
    assert broker.offsets == [5]
    assert sink.idle is None


async def test_an_idle_lane_waits_while_the_broker_is_out(broker: Broker, memory: Memory) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()
    memory.offset, memory.states = Committed(5, 0), ["there"] * 9
    broker.problem = KafkaConnectionError()
    tending = asyncio.create_task(sink.tend())
    await tried(broker)
    assert sink._outages.names == ["kafka"]
    assert sink.idle is None
    broker.problem = None
    await tending
    assert sink._outages.names == []
    assert broker.offsets == [6]


async def failed_behind(broker: Broker, memory: Memory) -> TransactionalSink:
    """A lane whose last commit got no answer, and that has no producer any more."""
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = own(sink, 6), ["there"]

    def unanswered() -> None:
        raise TimeoutError

    broker.on_commit = unanswered
    publishing = asyncio.create_task(sink.publish(run_of(0, 6)))
    async with asyncio.timeout(1):
        while sink._producer is not None or sink._progress.attempt is None:
            await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert sink._progress.attempt == sink._memory[SETTINGS.topic, 0].attempt
    broker.on_commit = lambda: None
    broker.offsets.clear()
    memory.asked.clear()
    return sink


@pytest.mark.parametrize(
    ("states", "left_open", "ended"),
    [
        # It was aborted: it comes again.
        (["gone", "there"], {}, []),
        # It was committed, and the group has forgotten that: what is open shares its fate, the
        # offset is committed alone.
        (["there", "there"], {}, []),
        (["there", "there"], {LETTERS: (0, 6)}, [("commit", [LETTERS])]),
        # Others' transactions are open before it for a while.
        (["open", "there", "there"], {}, []),
        # This account may not read them.
        (["unknown", "there"], {}, []),
        # All of it is open: then nobody has decided.
        (["there"], {VERDICTS: (3, 6)}, [("abort", [VERDICTS])]),
    ],
)
@pytest.mark.parametrize("who", ["the lane", "the next lane"])
async def test_a_run_whose_end_is_not_known_is_sent_again_only_if_it_is_not_there(
    broker: Broker,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    states: list[State],
    left_open: Any,
    ended: Any,
) -> None:
    monkeypatch.setattr(transactional_sink, "_LOOK_AGAIN_S", 0.0)
    sink = await failed_behind(broker, memory)
    attempt = sink._progress.attempt
    assert attempt is not None
    # The run's records lie on the topics of this test.
    places = ((VERDICTS, 3), (LETTERS, 0)) if LETTERS in left_open else ((VERDICTS, 3),)
    sink._amend(replace(sink._progress, attempt=replace(attempt, places=places)))
    memory.states, broker.left_open = list(states), dict(left_open)
    there = "there" in states[:-1]
    if who == "the lane":
        await sink.publish(run_of(0, 6))
        assert broker.offsets == [7], "once, alone or with the run"
        assert len(broker.sent) == (2 if there else 3)
    else:
        shared = Shared(SETTINGS, broker, broker, broker, Outages(), Metrics(), sink._memory)  # type: ignore[arg-type]  # all that is asked
        lane = TransactionalSink(shared, (SETTINGS.topic, 0), 2)
        await lane.open()
        await lane.settle(memory.offset)
        assert await lane.resume_at(memory.offset) == (7 if there else 6)
        assert sink._memory[SETTINGS.topic, 0].attempt is None
    assert (broker.ended, memory.states) == (ended, [])


@pytest.mark.parametrize("left_open", [{}, {LETTERS: (0, 6)}])
@pytest.mark.parametrize("who", ["the lane", "the next lane"])
async def test_others_that_hide_a_run_are_waited_for_where_that_holds_nobody_up(
    broker: Broker,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    left_open: Any,
) -> None:
    monkeypatch.setattr(transactional_sink, "_LOOK_AGAIN_S", 0.0)
    sink = await failed_behind(broker, memory)
    attempt = sink._progress.attempt
    assert attempt is not None
    attempt = replace(attempt, places=((VERDICTS, 3), (LETTERS, 0)))
    sink._amend(replace(sink._progress, attempt=attempt))
    memory.states, broker.left_open = ["open"] * 50 + ["there", "there"], dict(left_open)
    await sink.open()
    if who == "the lane":
        patient = await sink._settle(sink._progress, memory.offset, looks=None)
    else:
        await sink.settle(memory.offset)
        patient = sink._memory[SETTINGS.topic, 0]
    waits = who == "the lane" and not left_open
    assert patient.position == (7 if waits else 6)
    assert len(memory.states) == (1 if waits else 27)
    assert broker.ended == ([("abort", [LETTERS])] if left_open else [])


async def test_a_run_that_the_log_has_lost_is_not_waited_for(
    broker: Broker, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ranges(places: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        return dict.fromkeys(places, (0, 1))

    monkeypatch.setattr(broker, "ranges", ranges)
    sink = await lane_behind(broker, 5)
    memory.offset, memory.states = Committed(5, 0), ["open"]
    with pytest.raises(LaneLostError, match="judged again from offset 5 on"):
        await sink.publish(run_of(0, 6))


@pytest.mark.parametrize("state", ["there", "gone"])
async def test_a_run_whose_answer_was_lost_is_looked_for_too(
    broker: Broker, memory: Memory, state: State
) -> None:
    sink = await lane_behind(broker, 5)
    await sink.open()

    def unanswered() -> None:
        broker.on_commit = lambda: None
        memory.offset, memory.states = own(sink, 7), [state]
        raise TimeoutError

    broker.on_commit = unanswered
    if state == "there":
        await sink.publish(run_of(0, 6))
        assert broker.offsets == [7]
    else:
        with pytest.raises(LaneLostError, match="from offset 6 on"):
            await sink.publish(run_of(0, 6))
        assert broker.offsets == [7, 6]
    assert [(run.begin, run.end) for run in memory.asked] == [(6, 7)]


async def test_a_twin_of_the_same_generation_is_another_owner(
    broker: Broker, memory: Memory
) -> None:
    sink = await lane_behind(broker, 5)
    # It has published the very same run.
    memory.offset = Committed(7, 1, lane="twin")
    with pytest.raises(LaneLostError, match="another one owns the partition"):
        await sink.publish(run_of(0, 6))
    assert memory.asked == []
    assert broker.offsets == []


async def test_no_lane_publishes_what_it_has_published(broker: Broker) -> None:
    sink = await make_sink(broker, 0, Outages())
    await sink.begin_at(5, Committed(5, 0))
    await sink.publish(run_of(0))
    with pytest.raises(BrokenInvariantError, match="published up to offset 6 already"):
        await sink.publish(run_of(0))


async def test_an_outage_that_the_sender_wraps_is_one(broker: Broker) -> None:
    outages = Outages()
    sink = await make_sink(broker, 0, outages)
    await sink.begin_at(5, Committed(5, 1))
    wrapped = KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = KafkaError("KafkaConnectionError()")
    wrapped.__cause__.__cause__ = KafkaConnectionError("reset")
    broker.problem = wrapped
    publishing = asyncio.create_task(sink.publish(run_of(0)))
    # More often than refusals are borne.
    for _ in range(4):
        await tried(broker)
    assert outages.names == ["kafka"]
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)


async def test_an_assignment_begins_behind_what_was_confirmed_and_forgotten(
    broker: Broker, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (SETTINGS.topic, 0)
    begun: list[int] = []

    class Sink(TransactionalSink):
        async def begin_at(self, offset: int, committed: Committed | None) -> None:
            await super().begin_at(offset, committed)
            begun.append(offset)
            memory.offset = Committed(offset, self._generation)

    monkeypatch.setattr(transactions, "TransactionalSink", Sink)
    publisher = TransactionalPublisher(SETTINGS)
    attach(publisher, broker)
    memory.offset = Committed(5, 1)
    sinks = await publisher.open([place], 1)
    await sinks[place].publish(run_of(0))
    memory.offset, memory.states = Committed(5, 1), ["there"]
    sinks = await publisher.open([place], 2)
    assert begun == [5, 6]
    # With the outcomes lost as well, they are judged again.
    await sinks[place].publish(run_of(0, 6))
    memory.offset, memory.states = own(sinks[place], 6), ["gone"]
    sinks = await publisher.open([place], 3)
    assert (begun, memory.states) == ([5, 6, 6], [])
    # Judged by another meanwhile: what this process remembers is of no account.
    await sinks[place].publish(run_of(0, 6))
    memory.offset = Committed(8, 4)
    await publisher.open([place], 5)
    assert begun == [5, 6, 6, 8]


async def test_what_this_process_knows_no_better_is_left_as_the_group_has_it(
    broker: Broker, memory: Memory
) -> None:
    place = (SETTINGS.topic, 0)
    begun = memory.offset = Committed(0, 1, first=True)
    publisher = TransactionalPublisher(SETTINGS)
    attach(publisher, broker)
    sinks = await publisher.open([place], 1)
    broker.problem = NotEnoughReplicasError()
    publishing = asyncio.create_task(sinks[place].publish(run_of(0, 0)))
    await tried(broker)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert publisher._memory[place].failed
    # Else a group that has judged nothing yet would look like an old one.
    assert await publisher._remembered({place: begun}, sinks) == {}  # type: ignore[arg-type]
