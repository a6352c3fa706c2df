from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import CapturingLogger

from stream_judge import pipeline as pipeline_module
from stream_judge.errors import (
    BrokenInvariantError,
    DeadLetterLimitError,
    LaneLostError,
    PublishError,
)
from stream_judge.events import SourceRecord
from stream_judge.metrics import Metrics
from stream_judge.pipeline import Pipeline
from stream_judge.settings import WindowSettings
from stream_judge.testing import MemoryPublisher, make_record
from stream_judge.verdict import Kind, Outcome


class Bench:
    """A pipeline whose records finish when the test says so."""

    def __init__(self, *, linger_s: float = 0.0, **window: int) -> None:
        self.gates: dict[tuple[int, int], asyncio.Event] = {}
        self.publisher = MemoryPublisher()
        self.metrics = Metrics()
        self.acked: list[tuple[int, int]] = []
        self.fatal: list[BaseException] = []
        self.pipeline = Pipeline(
            self._judge,
            WindowSettings(linger_s=linger_s, **window),  # type: ignore[arg-type]
            self.metrics,
            on_fatal=self.fatal.append,
        )
        self.assign()

    def assign(self, generation: int = 1) -> None:
        sinks = {("product-updates", partition): self.publisher for partition in range(3)}
        self.pipeline.assign(sinks, generation)

    def gate(self, offset: int, partition: int = 0) -> asyncio.Event:
        return self.gates.setdefault((partition, offset), asyncio.Event())

    async def _judge(self, record: SourceRecord) -> Outcome:
        await self.gate(record.offset, record.partition).wait()
        return Outcome(record, "judged", "above_publish", "publish", ())

    async def submit(
        self,
        offset: int,
        *,
        partition: int = 0,
        size: int = 1,
        generation: int = 1,
    ) -> bool:
        record = make_record(b"x" * size, key=None, partition=partition, offset=offset)
        place = (partition, offset)
        return await self.pipeline.submit(record, lambda: self.acked.append(place), generation)

    def published(self) -> list[tuple[int, int]]:
        return [(o.record.partition, o.record.offset) for o in self.publisher.outcomes]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_slow_first_fast_second_keeps_the_order() -> None:
    bench = Bench()
    for offset in range(3):
        await bench.submit(offset)
    bench.gate(1).set()
    bench.gate(2).set()
    await settle()
    assert bench.published() == bench.acked == []
    bench.gate(0).set()
    await settle()
    assert bench.published() == bench.acked == [(0, 0), (0, 1), (0, 2)]
    await bench.pipeline.drain(1)


async def test_partitions_do_not_wait_for_each_other() -> None:
    bench = Bench()
    await bench.submit(0, partition=0)
    await bench.submit(0, partition=1)
    bench.gate(0, 1).set()
    await settle()
    assert bench.acked == [(1, 0)]
    await bench.pipeline.drain(0)


@pytest.mark.parametrize(
    ("window", "size"), [({"max_records": 2}, 1), ({"max_bytes": 10**6}, 5 * 10**5)]
)
async def test_a_full_window_stops_intake(window: dict[str, int], size: int) -> None:
    bench = Bench(**window)
    await bench.submit(0, size=size)
    await bench.submit(1, size=size)
    third = asyncio.create_task(bench.submit(2, size=size))
    await settle()
    assert not third.done()
    bench.gate(0).set()
    assert await asyncio.wait_for(third, 1)
    await bench.pipeline.drain(0)


async def test_one_record_larger_than_the_window_still_passes() -> None:
    bench = Bench(max_bytes=10**6)
    assert await asyncio.wait_for(bench.submit(0, size=3 * 10**6), 1)
    await bench.pipeline.drain(0)


async def test_a_record_of_another_generation_or_partition_is_left_to_its_owner() -> None:
    bench = Bench()
    assert await bench.submit(0, generation=2) is False
    assert await bench.submit(0, partition=7) is False
    assert bench.pipeline.in_flight == 0
    await bench.pipeline.drain(0)


async def test_a_run_waits_a_moment_for_records_under_way() -> None:
    bench = Bench(linger_s=0.05)
    for offset in range(3):
        await bench.submit(offset)
    bench.gate(0).set()
    asyncio.get_running_loop().call_later(0.01, bench.gate(1).set)
    await asyncio.sleep(0.1)
    assert [len(run) for run in bench.publisher.runs] == [2]
    await bench.pipeline.drain(0)


async def test_a_record_that_comes_twice_in_one_assignment_is_fatal_and_not_published() -> None:
    bench = Bench()
    for offset in (5, 7):
        assert await bench.submit(offset)
    # Markers of transactions are offsets, too; and a new assignment begins anew.
    assert await bench.submit(0, partition=1)
    assert bench.fatal == []
    for offset in (5, 6, 7):
        assert await bench.submit(offset) is False
    assert [type(exc) for exc in bench.fatal] == [BrokenInvariantError] * 3
    assert "product-updates/0/5 came behind offset 7" in str(bench.fatal[0])
    for offset in (5, 7):
        bench.gate(offset).set()
    await settle()
    assert bench.published() == [(0, 5), (0, 7)]
    await bench.pipeline.drain(0)
    bench.assign(2)
    assert await bench.submit(5, generation=2)
    await bench.pipeline.drain(0)


async def test_a_lost_lane_is_fatal_unless_its_partition_is_revoked_in_time() -> None:
    bench = Bench()
    bench.publisher.failing = LaneLostError("moved")
    bench.pipeline._lost_grace_s = 0.05
    await bench.submit(0)
    bench.gate(0).set()
    await settle()
    assert bench.fatal == []
    assert await bench.submit(1) is False
    await bench.pipeline.drain(0)
    await asyncio.sleep(0.1)
    assert bench.fatal == []
    bench.assign(2)
    await bench.submit(0, generation=2)
    await asyncio.sleep(0.1)
    assert isinstance(bench.fatal[0], LaneLostError)
    await bench.pipeline.drain(0)


async def test_what_a_lost_lane_holds_is_let_go_at_once() -> None:
    bench = Bench(max_records=3)
    bench.publisher.failing = LaneLostError("moved")
    bench.pipeline._lost_grace_s = 3600
    for offset in range(2):
        await bench.submit(offset)
    await bench.submit(0, partition=1)
    waiting = asyncio.create_task(bench.submit(1, partition=1))
    works = [entry.task for entry in bench.pipeline._lanes["product-updates", 0, 1].entries]
    bench.gate(0).set()
    await settle()
    assert all(work.done() for work in works)
    # Its room is another partition's, and the oldest record in flight, too.
    assert await asyncio.wait_for(waiting, 1)
    assert bench.pipeline.in_flight == 2
    oldest = bench.pipeline.oldest()
    assert oldest is not None
    assert oldest[1] == "product-updates/1/0"
    bench.publisher.failing = None
    for offset in range(2):
        bench.gate(offset, 1).set()
    # No drain waits for what nobody will publish.
    assert await asyncio.wait_for(bench.pipeline.drain(3600), 1) == 0
    assert bench.acked == [(1, 0), (1, 1)]
    assert bench.fatal == []


async def test_positions_are_those_of_the_assignment() -> None:
    bench = Bench()
    await bench.submit(41)
    bench.gate(41).set()
    await settle()
    assert bench.pipeline.positions() == {("product-updates", 0): 42}
    await bench.pipeline.drain(0)
    assert bench.pipeline.positions() == {}
    assert bench.publisher.closed == 3


async def test_a_failed_publication_is_fatal_and_acks_nothing() -> None:
    bench = Bench()
    bench.publisher.failing = PublishError("no")
    await bench.submit(0)
    bench.gate(0).set()
    await settle()
    assert bench.acked == []
    assert isinstance(bench.fatal[0], PublishError)
    await bench.pipeline.drain(0)


async def test_drain_lets_work_finish() -> None:
    bench = Bench()
    await bench.submit(0)
    asyncio.get_running_loop().call_later(0.05, bench.gate(0).set)
    assert await bench.pipeline.drain(5) == 0
    assert bench.acked == [(0, 0)]


async def test_after_a_drain_that_ran_out_nothing_is_published_or_acked() -> None:
    bench = Bench()
    await bench.submit(0)
    await bench.submit(1)
    assert await bench.pipeline.drain(0.01) == 2
    bench.gate(0).set()
    bench.gate(1).set()
    await settle()
    assert bench.published() == bench.acked == []
    assert bench.pipeline.in_flight == 0
    bench.assign(2)
    await bench.submit(0, generation=2)
    await settle()
    assert bench.acked == [(0, 0)]
    await bench.pipeline.drain(1)


async def test_an_error_out_of_the_judge_is_fatal() -> None:
    bench = Bench()

    async def fail(record: SourceRecord) -> Outcome:
        raise MemoryError

    bench.pipeline._judge = fail
    await bench.submit(0)
    await settle()
    assert isinstance(bench.fatal[0], MemoryError)
    await bench.pipeline.drain(0)


async def test_a_record_that_waited_through_a_drain_is_not_taken_in() -> None:
    bench = Bench(max_records=1)
    await bench.submit(0)
    waiting = asyncio.create_task(bench.submit(1))
    await settle()
    assert await bench.pipeline.drain(0.01) == 1
    assert await asyncio.wait_for(waiting, 1) is False
    assert await bench.submit(2) is False
    bench.gate(1).set()
    await settle()
    assert bench.published() == bench.acked == []
    assert bench.pipeline.in_flight == 0
    bench.assign(2)
    assert await bench.submit(0, generation=2) is True
    await bench.pipeline.drain(0)


async def test_a_run_with_too_many_dead_letters_is_not_published() -> None:
    bench = Bench(dead_letter_sample=20)

    async def refuse(record: SourceRecord) -> Outcome:
        return Outcome(record, "dead_letter", "bad_event", None, ())

    bench.pipeline._judge = refuse
    for offset in range(19):
        await bench.submit(offset)
        await settle()
    assert len(bench.acked) == 19
    assert bench.fatal == []
    await bench.submit(19)
    await settle()
    assert isinstance(bench.fatal[0], DeadLetterLimitError)
    assert len(bench.published()) == len(bench.acked) == 19
    await bench.pipeline.drain(0)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("judged", "verdict_published"),
        ("unjudgeable", "verdict_published"),
        ("dead_letter", "record_dead_lettered"),
        ("tombstone", "tombstone_published"),
    ],
)
async def test_an_outcome_is_logged_once_by_its_kind_when_it_is_confirmed(
    kind: Kind, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(pipeline_module, "_log", log)
    bench = Bench()
    confirm = asyncio.Event()

    async def judge(record: SourceRecord) -> Outcome:
        return Outcome(record, kind, "a_code", None, ())

    async def publish(run: object) -> None:
        await confirm.wait()

    monkeypatch.setattr(bench.publisher, "publish", publish)
    bench.pipeline._judge = judge
    await bench.submit(3)
    await settle()
    assert log.calls == []
    confirm.set()
    await settle()
    (call,) = log.calls
    assert (call.method_name, call.args) == ("info", (event,))
    assert (call.kwargs["offset"], call.kwargs["kind"]) == (3, kind)
    await bench.pipeline.drain(0)


@pytest.mark.parametrize(
    ("timestamp_ms", "ages"),
    [
        (1_700_000_000_000, {"count": 1, "sum": 42.5}),
        # By its producer's clock it is still to come.
        (1_700_000_050_000, {"count": 1, "sum": 0}),
        # A record without a timestamp.
        (-1, {"count": 0, "sum": 0}),
    ],
)
async def test_an_events_age_is_counted_when_its_outcome_is_confirmed(
    timestamp_ms: int, ages: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    record = replace(make_record(b"x", key=None), timestamp_ms=timestamp_ms)
    await bench.pipeline.submit(record, lambda: None, 1)
    monkeypatch.setattr(pipeline_module.time, "time", lambda: 1_700_000_000.0)
    await settle()

    def found() -> dict[str, float | None]:
        value = bench.metrics.registry.get_sample_value
        return {name: value(f"stream_judge_event_age_seconds_{name}") for name in ages}

    assert found() == {"count": 0, "sum": 0}
    monkeypatch.setattr(pipeline_module.time, "time", lambda: 1_700_000_042.5)
    bench.gate(0).set()
    await settle()
    assert found() == ages
    await bench.pipeline.drain(0)


async def test_an_outcome_that_is_not_confirmed_has_no_age() -> None:
    bench = Bench()
    bench.publisher.failing = PublishError("no")
    await bench.submit(0)
    bench.gate(0).set()
    await settle()
    assert len(bench.fatal) == 1
    value = bench.metrics.registry.get_sample_value("stream_judge_event_age_seconds_count")
    assert value == 0
    await bench.pipeline.drain(0)


async def test_the_oldest_record_stays_the_oldest_while_other_partitions_go_on() -> None:
    bench = Bench()
    assert bench.pipeline.oldest() is None
    await bench.submit(5, partition=0)
    stuck = bench.pipeline.oldest()
    for offset in range(3):
        bench.gate(offset, 1).set()
        await bench.submit(offset, partition=1)
        await settle()
    assert bench.acked == [(1, 0), (1, 1), (1, 2)]
    assert bench.pipeline.oldest() == stuck
    bench.gate(5).set()
    await settle()
    assert bench.pipeline.oldest() is None
    await bench.pipeline.drain(0)


class Swallowing:
    """A sink whose client swallows its cancellation, as aiokafka's do while they close."""

    async def publish(self, run: Sequence[Outcome]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def tend(self) -> None: ...

    async def close(self) -> None: ...


async def test_a_lane_whose_end_was_swallowed_ends_all_the_same() -> None:
    bench = Bench()
    bench.pipeline.assign({("product-updates", 0): Swallowing()}, 2)
    await bench.submit(0, generation=2)
    bench.gate(0).set()
    await settle()
    # It would run for ever, and without a pause.
    assert await bench.pipeline.drain(0) == 1
    assert bench.acked == []


async def test_an_idle_lane_tends_its_sink_once_and_goes_on() -> None:
    bench = Bench()
    await bench.submit(0)
    await settle()
    # Its record is under way; nothing is finished.
    bench.pipeline.need_tending(("product-updates", 0))
    await settle()
    assert bench.publisher.tended == 1
    bench.gate(0).set()
    await settle()
    assert bench.published() == [(0, 0)]
    bench.pipeline.need_tending(("product-updates", 7))
    await settle()
    assert bench.publisher.tended == 1


async def test_a_lane_that_publishes_tends_its_sink_behind_that() -> None:
    # What it publishes can go elsewhere than what is open.
    bench = Bench()
    await bench.submit(0)
    bench.gate(0).set()
    await asyncio.sleep(0)
    bench.pipeline.need_tending(("product-updates", 0))
    await settle()
    assert bench.published() == [(0, 0)]
    assert bench.publisher.tended == 1


async def test_a_lane_that_its_client_cancels_is_fatal() -> None:
    class Cancelling(Swallowing):
        async def publish(self, run: Sequence[Outcome]) -> None:
            raise asyncio.CancelledError

    bench = Bench()
    bench.pipeline.assign({("product-updates", 0): Cancelling()}, 2)
    await bench.submit(0, generation=2)
    bench.gate(0).set()
    await settle()
    assert [type(error) for error in bench.fatal] == [BrokenInvariantError]
    assert bench.acked == []
    # Nobody waits for it any more, and its end is none of that kind.
    assert await bench.pipeline.drain(0) == 1
    assert len(bench.fatal) == 1
