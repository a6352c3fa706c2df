"""The window: many records under way, outcomes in order, acks behind them.

    submit -> task per record -> lane of its partition -> run at the lane's head
           -> publish -> ack, in input order

A lane belongs to one partition in one generation (one assignment) and has a sink of its
own. When the partition is revoked its lane dies: nothing of it is published or acked
afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from stream_judge.dead_letter_limit import DeadLetterLimit
from stream_judge.errors import BrokenInvariantError, LaneLostError
from stream_judge.events import SourceRecord
from stream_judge.metrics import Metrics
from stream_judge.publisher import Partition, Sink
from stream_judge.settings import WindowSettings
from stream_judge.verdict import Kind, Outcome

_log = structlog.get_logger(__name__)
JudgeRecord = Callable[[SourceRecord], Awaitable[Outcome]]
Ack = Callable[[], None]
LaneKey = tuple[str, int, int]
_EVENTS: Mapping[Kind, str] = {
    "judged": "verdict_published",
    "unjudgeable": "verdict_published",
    "dead_letter": "record_dead_lettered",
    "tombstone": "tombstone_published",
}


@dataclass(slots=True, eq=False)
class _Entry:
    record: SourceRecord
    ack: Ack
    task: asyncio.Task[Outcome]
    arrived: float


@dataclass(slots=True, eq=False)
class _Lane:
    sink: Sink
    entries: deque[_Entry] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    dead: bool = False
    needs_tending: bool = False
    # The offset behind the last record taken in.
    behind: int = 0


class Pipeline:
    """Bounded concurrent judging with ordered emission.

    Delivery: a record is acked only after its outcome, and those of all earlier records of
    its partition, are confirmed. Order: outcomes of one partition are published in input
    order. Backpressure: `submit` waits while the window is full, by count or by bytes.

    Args:
        judge: Judges one record; must not raise but for fatal errors.
        settings: Bounds.
        metrics: Counts.
        on_fatal: Told of any error after which nothing may go on.
        lost_grace_s: How long a lane that another worker has taken over may wait for the
            group to revoke its partition.
    """

    def __init__(
        self,
        judge: JudgeRecord,
        settings: WindowSettings,
        metrics: Metrics,
        *,
        on_fatal: Callable[[BaseException], None],
        lost_grace_s: float = 0.0,
    ) -> None:
        self._judge = judge
        self._lost_grace_s = lost_grace_s
        self._settings = settings
        self._metrics = metrics
        self._on_fatal = on_fatal
        self._limit = DeadLetterLimit(settings.dead_letter_limit, settings.dead_letter_sample)
        self._lanes: dict[LaneKey, _Lane] = {}
        self._records = 0
        self._bytes = 0
        self._positions: dict[Partition, int] = {}
        self._room = asyncio.Condition()
        self.last_progress = time.monotonic()

    @property
    def in_flight(self) -> int:
        """Records taken in whose outcomes are not confirmed yet."""
        return self._records

    def oldest(self) -> tuple[float, str] | None:
        """When the oldest record in flight came, and its place; None without one."""
        heads = [lane.entries[0] for lane in self._lanes.values() if lane.entries]
        return min(((head.arrived, head.record.place) for head in heads), default=None)

    def oldest_age_s(self) -> float:
        """Seconds since the oldest record in flight came; 0 without one."""
        oldest = self.oldest()
        return time.monotonic() - oldest[0] if oldest else 0.0

    def positions(self) -> Mapping[Partition, int]:
        """The offset behind the last confirmed outcome of each partition owned now."""
        return self._positions

    def assign(self, sinks: Mapping[Partition, Sink], generation: int) -> None:
        """Open a lane for every partition of a new assignment; the last one was drained."""
        for partition, sink in sinks.items():
            lane = self._lanes[(*partition, generation)] = _Lane(sink)
            lane.runner = asyncio.create_task(self._guarded(lane))

    def need_tending(self, partition: Partition) -> None:
        """Have the lane of a partition look after its sink, as soon as nothing is finished."""
        for (topic, number, _), lane in self._lanes.items():
            if (topic, number) == partition:
                lane.needs_tending = True
                lane.changed.set()

    async def submit(self, record: SourceRecord, ack: Ack, generation: int) -> bool:
        """Take a record in, once the window has room.

        Args:
            record: The next record of its partition.
            ack: Called when its outcome is confirmed.
            generation: The assignment it was fetched under.

        Returns:
            False if that assignment has ended: the new owner gets the record. Also for one that
            comes twice, or out of order; that is fatal: what a lane takes in it publishes.
        """
        key = (record.topic, record.partition, generation)
        async with self._room:
            await self._room.wait_for(lambda: self._has_room(record.size))
            lane = self._lanes.get(key)
            if lane is None or lane.dead:
                return False
            if record.offset < lane.behind:
                self._on_fatal(
                    BrokenInvariantError(
                        f"{record.place} came behind offset {lane.behind - 1}, in one assignment"
                    )
                )
                return False
            lane.behind = record.offset + 1
            self._count(1, record.size)
        task = asyncio.create_task(self._work(record))
        lane.entries.append(_Entry(record, ack, task, time.monotonic()))
        task.add_done_callback(lambda _: lane.changed.set())
        return True

    async def drain(self, timeout_s: float) -> int:
        """Let work under way finish, then end all lanes; nothing is taken in until `assign`.

        Returns:
            How many records were dropped unfinished: never acked, so they come again.
        """
        try:
            async with asyncio.timeout(timeout_s), self._room:
                await self._room.wait_for(lambda: self._records == 0)
        except TimeoutError:
            _log.warning("drain_timed_out", in_flight=self._records)
        left = self._records
        lanes = list(self._lanes.values())
        self._lanes.clear()
        self._positions = {}
        await asyncio.gather(*(self._end(lane) for lane in lanes))
        return left

    async def _work(self, record: SourceRecord) -> Outcome:
        return await self._judge(record)

    def _has_room(self, size: int) -> bool:
        if self._records == 0:
            # One record always fits, however large.
            return True
        within = self._bytes + size <= self._settings.max_bytes
        return within and self._records < self._settings.max_records

    def _count(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size
        self._metrics.in_flight.set(self._records)
        self._metrics.in_flight_bytes.set(self._bytes)

    async def _guarded(self, lane: _Lane) -> None:
        try:
            while not lane.dead:
                await self._emit(lane)
        except asyncio.CancelledError:
            if not lane.dead:
                # Not by its end: a client let out what it had cancelled.
                lane.dead = True
                self._on_fatal(BrokenInvariantError("a lane was cancelled that had not ended"))
            raise
        except LaneLostError as exc:
            lane.dead = True
            _log.warning("lane_lost", message=exc.message)
            # Nobody would publish them; and the drain to come must not wait for them.
            await self._drop(lane)
            # The group tells whoever was frozen that its partitions have moved; then a drain
            # ends this wait. Without that, a partition would be assigned to nobody.
            await asyncio.sleep(self._lost_grace_s)
            self._on_fatal(exc)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, nothing may go on
            lane.dead = True
            self._on_fatal(exc)

    async def _emit(self, lane: _Lane) -> None:
        """Publish the finished run at the lane's head, then ack it."""
        while not (lane.entries and lane.entries[0].task.done()):
            if lane.needs_tending:
                lane.needs_tending = False
                await lane.sink.tend()
                if lane.dead:
                    return
            else:
                lane.changed.clear()
                await lane.changed.wait()
        if self._settings.linger_s and not all(entry.task.done() for entry in lane.entries):
            await asyncio.sleep(self._settings.linger_s)
        run: list[_Entry] = []
        for entry in lane.entries:
            if not entry.task.done() or len(run) >= self._settings.max_run:
                break
            run.append(entry)
        outcomes = [entry.task.result() for entry in run]
        if lane.dead:
            return
        self._limit.admit(outcomes)
        with self._metrics.stage("publish"):
            await lane.sink.publish(outcomes)
        if lane.dead:
            return
        last = run[-1].record
        self._positions[last.topic, last.partition] = last.offset + 1
        for entry, outcome in zip(run, outcomes, strict=True):
            entry.ack()
            self._report(entry, outcome)
        self.last_progress = time.monotonic()
        await self._release(lane, run)

    def _report(self, entry: _Entry, outcome: Outcome) -> None:
        seconds = time.monotonic() - entry.arrived
        self._metrics.outcomes.labels(outcome.kind, outcome.code).inc()
        if outcome.decision is not None:
            self._metrics.decisions.labels(outcome.decision).inc()
        self._metrics.record_seconds.observe(seconds)
        if entry.record.timestamp_ms >= 0:
            # Two clocks: the event's can be ahead of this one.
            age_s = max(0.0, time.time() - entry.record.timestamp_ms / 1000)
            self._metrics.event_age_seconds.observe(age_s)
        _log.info(
            _EVENTS[outcome.kind],
            topic=entry.record.topic,
            partition=entry.record.partition,
            offset=entry.record.offset,
            kind=outcome.kind,
            code=outcome.code,
            decision=outcome.decision,
            duration_s=round(seconds, 4),
        )

    async def _release(self, lane: _Lane, entries: list[_Entry]) -> None:
        async with self._room:
            for entry in entries:
                lane.entries.remove(entry)
                self._count(-1, -entry.record.size)
            self._room.notify_all()

    async def _end(self, lane: _Lane) -> None:
        lane.dead = True
        if lane.runner:
            lane.runner.cancel()
            await asyncio.gather(lane.runner, return_exceptions=True)
        await self._drop(lane)
        await lane.sink.close()

    async def _drop(self, lane: _Lane) -> None:
        """End the work on a dead lane's records, and give their room back."""
        tasks = [entry.task for entry in lane.entries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._release(lane, list(lane.entries))
