from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher, OffsetResetStrategy
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    OffsetOutOfRangeError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v3
from faust.exceptions import AlreadyConfiguredWarning
from faust.transport.drivers import aiokafka as driver

from stream_judge import connection
from stream_judge.app import build_app
from stream_judge.connection import end_for_certain
from stream_judge.errors import OffsetError
from stream_judge.settings import KafkaSettings
from stream_judge.source import Hooks, SourceThread, heed_errors, install

FAR, START, NEW = places = [TopicPartition("t", number) for number in range(3)]


class Broker:
    """A client, as aiokafka's fetcher sees it: every partition's log goes from 5 to 9.

    It has no records to give; only a fetch from outside of the log is answered at once.
    """

    _metadata_max_age_ms = 300_000

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = self
        self.first = 5
        self.changed = asyncio.Event()

    def leader_for_partition(self, tp: TopicPartition) -> int:
        return 0

    def lose(self, first: int) -> None:
        """Let the log begin there."""
        self.first = first
        self.changed.set()

    async def send(self, node: int, request: Any) -> Any:
        if not any(offset < self.first for _, found in request.topics for _, offset, _ in found):
            await self.changed.wait()
        return SimpleNamespace(API_VERSION=4, topics=[self._answer(*t) for t in request.topics])

    def _answer(self, topic: str, asked: list[tuple[int, int, int]]) -> tuple[str, list[Any]]:
        def errno(offset: int) -> int:
            return (NoError if offset >= self.first else OffsetOutOfRangeError).errno

        return topic, [(n, errno(offset), 9, 9, None, b"") for n, offset, _ in asked]


class Bench:
    """The thread's consumer, with aiokafka's own fetcher, and a group's commits."""

    def __init__(self, *, publisher: str = "transactional") -> None:
        self.fatal: list[BaseException] = []
        self.app = make_app(publisher, self.fatal.append)
        self.thread: SourceThread = self.app.consumer._thread
        self.consumer = self.thread._create_consumer(asyncio.get_running_loop())
        self.thread._consumer = self.consumer
        self.broker = Broker()
        self.subscription = self.consumer._subscription
        self.subscription.subscribe({"t"})
        self.fetcher = self.consumer._fetcher = Fetcher(
            self.broker,
            self.subscription,
            prefetch_backoff=0.0,
            auto_offset_reset=self.consumer._auto_offset_reset,
        )
        self.fetcher._proc_offset_request = self._first_offsets
        self.consumer._coordinator = SimpleNamespace(check_errors=lambda: None)
        self.committed: dict[TopicPartition, int | None] = {}
        self.consumer.committed = self._committed

    async def _committed(self, tp: TopicPartition) -> int | None:
        return self.committed[tp]

    async def _first_offsets(self, node: int, asked: Mapping[str, Any]) -> dict[Any, Any]:
        return {
            TopicPartition(t, n): (self.broker.first, -1)
            for t, all_ in asked.items()
            for n, _ in all_
        }

    def assign(self, committed: dict[TopicPartition, int | None]) -> None:
        """What aiokafka does when it gets an assignment."""
        self.committed = committed
        self.subscription.assign_from_subscribed(set(committed))

    def state(self, tp: TopicPartition) -> Any:
        return self.subscription.subscription.assignment.state_value(tp)

    async def fetched(self) -> Any:
        """What the thread gives the event loop, without a thread between the two."""
        fetching = self.thread._fetch_records(self.consumer, set(self.committed), timeout=0.5)
        return await asyncio.wait_for(fetching, 1)

    async def until(self, found: Callable[[], object]) -> None:
        async with asyncio.timeout(1):
            while not found():
                await asyncio.sleep(0)

    async def close(self) -> None:
        self.broker.changed.set()
        await self.fetcher.close()
        self.consumer._closed = True
        # Made with the thread, which was never started.
        self.thread.thread_loop.close()


def make_app(publisher: str, fatal: Callable[[BaseException], None]) -> faust.App:
    settings = KafkaSettings(publisher=publisher)  # type: ignore[arg-type]  # pydantic checks it
    app = build_app(settings)

    async def nothing(*_: Any) -> Any: ...

    hooks = Hooks("t", nothing, nothing, fatal, 1.0, "read_committed", publisher == "plain")
    install(app, hooks)
    return app


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


@pytest.fixture
async def plain() -> AsyncIterator[Bench]:
    bench = Bench(publisher="plain")
    yield bench
    await bench.close()


async def test_every_partition_is_read_again_from_its_commit_also_from_0(plain: Bench) -> None:
    bench = plain
    bench.broker.first = 0
    bench.assign({FAR: 7, START: 0, NEW: None})
    for tp in places:
        # What aiokafka fetched before the hooks were through.
        bench.state(tp).reset_to(8)
    bench.broker.changed.set()
    committed = await bench.thread._seek_to_committed()
    assert committed == {FAR: 7, START: 0, NEW: None}
    assert [bench.state(tp).position for tp in places] == [7, 0, 0]


async def test_a_look_at_positions_waits_for_none(plain: Bench) -> None:
    bench = plain
    assert await bench.thread._positions() == {}
    bench.assign({FAR: 7, NEW: None})
    assert await bench.thread._positions() == {("t", 0): None, ("t", 2): None}
    await bench.thread._seek_to_committed()
    assert await bench.thread._positions() == {("t", 0): 7, ("t", 2): 5}


async def test_partitions_without_a_commit_wait_for_one_fetch_together(plain: Bench) -> None:
    bench = plain
    asked: list[tuple[TopicPartition, ...]] = []

    async def seek_to_beginning(*found: TopicPartition) -> None:
        asked.append(found)

    bench.consumer.seek_to_beginning = seek_to_beginning
    bench.assign(dict.fromkeys(places))
    await bench.thread._seek_to_committed()
    assert [set(found) for found in asked] == [set(places)]
    bench.assign(dict.fromkeys(places, 7))
    # Without partitions it would mean all.
    await bench.thread._seek_to_committed()
    assert len(asked) == 1


async def test_an_offset_that_goes_out_of_range_is_fatal_and_moves_nothing(bench: Bench) -> None:
    bench.assign({FAR: 7})
    await bench.thread._seek_to_committed()
    bench.broker.lose(8)
    with pytest.raises(OffsetError, match=r"partition=0\): 7.*kafka\.on_missing_offset"):
        await bench.fetched()
    assert bench.state(FAR).position == 7


async def test_before_the_seek_of_an_assignment_nothing_out_of_range_counts(bench: Bench) -> None:
    bench.assign({FAR: 7})
    await bench.thread._seek_to_committed()
    # Another assignment; its start is about to be committed anew, as the operator decided.
    bench.broker.lose(8)
    bench.assign({FAR: 8})
    bench.state(FAR).reset_to(7)
    await bench.until(lambda: FAR in bench.fetcher._records)
    assert await bench.fetched() == {}
    assert await bench.thread._seek_to_committed() == {FAR: 8}
    assert bench.state(FAR).position == 8
    assert bench.fetcher._records == {}


async def test_a_partition_that_nobody_has_committed_yet_is_no_error(bench: Bench) -> None:
    bench.assign({NEW: None})
    await bench.until(lambda: bench.state(NEW)._committed_futs)
    bench.state(NEW).update_committed(SimpleNamespace(offset=-1))
    await bench.until(lambda: NEW in bench.fetcher._records)
    assert await bench.fetched() == {}


async def test_behind_the_hook_it_is_one_and_nothing_is_read_from_the_beginning(
    bench: Bench,
) -> None:
    bench.assign({NEW: None})
    await bench.thread._seek_to_committed()
    await bench.until(lambda: bench.state(NEW)._committed_futs)
    bench.state(NEW).update_committed(SimpleNamespace(offset=-1))
    await bench.until(lambda: NEW in bench.fetcher._records)
    with pytest.raises(OffsetError, match="NoOffsetForPartition"):
        await bench.fetched()
    assert bench.state(NEW)._position is None


class Coordinator:
    """aiokafka's, as far as it asks for offsets."""

    group_id = "g"
    _do_fetch_commit_offsets = GroupCoordinator._do_fetch_commit_offsets

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.dead = 0

    async def _send_req(self, request: Any) -> Any:
        return self.answers.pop(0)

    def coordinator_dead(self) -> None:
        self.dead += 1


@pytest.mark.parametrize(
    ("error", "dead"),
    [
        (GroupLoadInProgressError, 0),
        (GroupCoordinatorNotAvailableError, 1),
        (NotCoordinatorForGroupError, 1),
        (GroupAuthorizationFailedError, 0),
    ],
)
async def test_a_coordinator_that_cannot_tell_is_no_group_without_offsets(
    error: type[KafkaError], dead: int
) -> None:
    sound = OffsetFetchResponse_v3(0, [("t", [(0, 7, "", 0)])], 0)
    cannot = OffsetFetchResponse_v3(0, [], error.errno)
    coordinator = Coordinator(cannot, sound)
    heed_errors(coordinator)
    with pytest.raises(error):
        await coordinator._do_fetch_commit_offsets([FAR])
    assert coordinator.dead == dead
    assert (await coordinator._do_fetch_commit_offsets([FAR]))[FAR].offset == 7


async def stubborn() -> None:
    """A routine that takes the cancellation meant for it for another one's, once."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    await asyncio.sleep(60)


@pytest.mark.parametrize("trouble", ["request", "routine"])
async def test_a_fetcher_that_is_closed_ends_whatever_it_is_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(connection, "_CANCEL_AGAIN_S", 0.01)
    fetcher, plain = bench.fetcher, bench.fetcher.close
    task = asyncio.create_task(asyncio.sleep(60) if trouble == "request" else stubborn())
    await asyncio.sleep(0)
    if trouble == "request":
        fetcher._pending_tasks.add(task)
        # aiokafka's own way ends whoever closes it.
        with pytest.raises(asyncio.CancelledError):
            await plain()
        fetcher._pending_tasks = {asyncio.create_task(asyncio.sleep(60))}
    else:
        await bench.until(fetcher._fetch_task.cancel)
        fetcher._fetch_task = task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(closing := asyncio.create_task(plain())), 0.05)
        closing.cancel()
        fetcher._fetch_task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
    requests, routine = list(fetcher._pending_tasks), fetcher._fetch_task
    end_for_certain(fetcher)
    await asyncio.wait_for(fetcher.close(), 1)
    assert all(found.done() for found in (*requests, routine))


async def test_a_seek_that_a_rebalance_overtook_says_nothing_of_the_new_assignment(
    bench: Bench,
) -> None:
    committed = bench._committed

    async def overtaken(tp: TopicPartition) -> int | None:
        bench.assign({FAR: 8})
        return await committed(tp)

    bench.assign({FAR: 7})
    bench.consumer.committed = overtaken
    await bench.thread._seek_to_committed()
    bench.state(FAR).seek(4)
    await bench.until(lambda: FAR in bench.fetcher._records)
    assert await bench.fetched() == {}


async def test_the_event_loop_learns_of_it_and_gets_no_records(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = OffsetError("gone")

    async def call_thread(*_: Any, **__: Any) -> Any:
        raise problem

    monkeypatch.setattr(bench.thread, "call_thread", call_thread)
    assert await bench.thread.getmany({FAR}, 1.0) == {}
    assert bench.fatal == [problem]


async def test_the_plain_publisher_goes_on_at_what_is_there() -> None:
    bench = Bench(publisher="plain")
    bench.assign({FAR: 7})
    await bench.thread._seek_to_committed()
    bench.broker.lose(8)
    await bench.until(lambda: bench.state(FAR)._position == 8)
    assert bench.fatal == []
    await bench.close()


async def test_a_hook_that_takes_too_long_says_what_to_look_at(bench: Bench) -> None:
    hooks = bench.app.stream_judge
    bench.app.stream_judge = replace(hooks, deadline_s=0.01)
    await bench.app.consumer._guarded(asyncio.sleep(1))
    # What it runs into itself stays what it is.
    inner = TimeoutError("inside")

    async def late() -> None:
        raise inner

    await bench.app.consumer._guarded(late())
    assert str(bench.fatal[0]).startswith("t: giving up or opening partitions took longer than")
    assert bench.fatal[1] is inner


async def test_before_there_is_a_consumer_nothing_lags(bench: Bench) -> None:
    bench.thread._consumer = None
    assert bench.thread.lag({}) == {}
    assert await bench.thread._positions() == {}


async def test_no_assignment_passes_for_another_of_its_generation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, told = bench.app.consumer, []

    async def assign(*given: Any) -> None:
        told.append(given)

    async def nothing(*_: Any) -> None: ...

    bench.app.stream_judge = replace(bench.app.stream_judge, assign=assign)
    monkeypatch.setattr(driver.Consumer, "on_partitions_assigned", nothing)
    carried = []
    for _ in range(2):
        # As the rebalance listener does, in the consumer's thread.
        bench.app.consumer_generation_id = 7
        await consumer.on_partitions_assigned({FAR}, 7)
        carried.append(bench.app.consumer_generation_id)
    assert len(set(carried)) == 2
    assert told == [({FAR.partition}, 7, number) for number in carried]


async def test_how_the_consumer_reads(bench: Bench) -> None:
    # By this Faust would take another assignor.
    with pytest.warns(AlreadyConfiguredWarning):
        bench.app.conf.table_standby_replicas = 0
    consumer = bench.thread._create_consumer(asyncio.get_running_loop())
    consumer._closed = True
    assert consumer._partition_assignment_strategy == [bench.app.assignor]
    assert consumer._isolation_level == "read_committed"
    assert consumer._fetch_max_wait_ms == 250
    assert OffsetResetStrategy.from_str(consumer._auto_offset_reset) == OffsetResetStrategy.NONE


async def test_a_full_queue_takes_no_partition_out_of_the_fetches(bench: Bench) -> None:
    consumer = bench.app.consumer
    consumer._set_active_tps(set(places))
    consumer.on_buffer_full(FAR)
    assert FAR in consumer._get_active_partitions()


def take(bench: Bench, *offsets: int) -> None:
    """Give the thread records, as if they had been fetched."""
    records = [SimpleNamespace(offset=offset) for offset in offsets]

    async def fetched_records(*_: Any, **__: Any) -> Any:
        return {FAR: records}

    bench.fetcher.fetched_records = fetched_records


@pytest.mark.parametrize(
    ("done", "position", "lag"),
    [
        # Nothing is judged yet: all that was taken, and what lies behind it.
        (None, 8, 14),
        (7, 8, 13),
        # All is judged; only the markers of transactions lie between it and the end.
        (8, 20, 0),
        (8, 9, 11),
    ],
)
async def test_lag_is_what_lies_behind_the_last_outcome_but_for_markers(
    bench: Bench, done: int | None, position: int, lag: int
) -> None:
    bench.assign({FAR: 6, NEW: 6})
    await bench.thread._seek_to_committed()
    take(bench, 6, 7)
    await bench.fetched()
    state = bench.state(FAR)
    state.consumed_to(position)
    state.lso, state.highwater = 20, 25
    found = {} if done is None else {FAR: done}
    assert bench.app.consumer.lag(found) == {FAR: lag}


async def test_a_partition_of_which_nothing_was_taken_lags_from_where_it_is_read(
    bench: Bench,
) -> None:
    assert bench.app.consumer.lag({}) == {}
    bench.assign({FAR: 1_000})
    take(bench, 6, 7)
    await bench.fetched()
    await bench.thread._seek_to_committed()
    bench.state(FAR).lso = 1_003
    assert bench.app.consumer.lag({}) == {FAR: 3}


@pytest.mark.parametrize("had", [set(), {FAR}])
async def test_nothing_is_taken_before_a_partition_is_sought_also_by_who_had_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, had: set[TopicPartition]
) -> None:
    consumer, app = bench.app.consumer, bench.app
    held: list[bool] = []

    async def note(*_: Any) -> None:
        held.append(not consumer.flow_active and not app.flow_control.is_active())

    # Of the rest of a rebalance this needs no more than that Faust lets go when it has sought.
    monkeypatch.setattr(driver.Consumer, "on_partitions_assigned", note)
    app.stream_judge = replace(app.stream_judge, assign=note)
    for assigned in (had, {FAR, NEW}):
        consumer.resume_flow()
        app.flow_control.resume()
        await consumer.on_partitions_assigned(assigned, 1)
    assert held == [True] * 4
    assert bench.fatal == []


async def test_a_rebalance_while_it_stops_opens_nothing_and_closes_nothing_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = bench.app.consumer
    asked: list[Any] = []

    async def note(*given: Any) -> None:
        asked.append(given)

    bench.app.stream_judge = replace(bench.app.stream_judge, assign=note)
    # The app begins to stop before the consumer does.
    monkeypatch.setattr(type(bench.app), "should_stop", True)
    await consumer.on_partitions_assigned({FAR}, 2)
    assert asked == []
    monkeypatch.setattr(type(consumer), "should_stop", True)
    # Faust's own, whole: it calls the thread's `close`.
    await consumer.on_partitions_revoked({FAR})
    await consumer.on_partitions_assigned({FAR}, 3)
    assert (asked, bench.fatal) == ([], [])
    # The thread's own stop closes it, in the thread.
    assert bench.consumer._closed is False
