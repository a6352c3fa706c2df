"""The Faust side of the source topic: rebalances, commits, what `read_committed` means.

Faust 0.15.3 forgets acks at a rebalance and drops what it fetched when paused; the
subclass drains our pipeline before Faust forgets, and opens lanes before Faust fetches.
aiokafka sends no heartbeats while a hook runs and swallows what it raises: both hooks run
under a deadline, and whatever goes wrong in them is fatal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import faust
import structlog
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    NoOffsetForPartitionError,
    NotCoordinatorForGroupError,
    OffsetOutOfRangeError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from faust.transport.drivers import aiokafka as driver

from stream_judge.connection import end_for_certain
from stream_judge.errors import OffsetError
from stream_judge.publisher import Partition

_log = structlog.get_logger(__name__)
# So long the broker keeps a fetch that finds nothing. There is one at a time for a broker: a
# seek waits for it, and so does a partition that it left out. Faust's 1.5 s hold both up; an
# idle worker now asks four times a second.
_FETCH_MAX_WAIT_MS = 250


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the consumer calls, and how it reads.

    Attributes:
        topic: The source topic.
        drain: Ends all lanes; how many records were dropped.
        assign: Opens a lane for each partition number, in a generation; the last argument is
            what the assignment's messages carry.
        fatal: Told of an error after which nothing may go on.
        deadline_s: Until a hook must be through.
        isolation_level: Of the consumer.
        commits: Whether Faust commits source offsets; transactions do it themselves, and
            `assign` has seen to it that every partition has a usable one.
    """

    topic: str
    drain: Callable[[], Awaitable[int]]
    assign: Callable[[set[int], int, int], Awaitable[None]]
    fatal: Callable[[BaseException], None]
    deadline_s: float
    isolation_level: str
    commits: bool


class SourceThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # faust has no types
    """Faust's consumer thread: how it reads, and where an assignment begins."""

    #: The assignment whose partitions all stand where they were to begin.
    _sought: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Since the last seek, of each partition: the first offset taken from the fetcher, and
        # the one behind the last.
        self._taken: dict[Partition, tuple[int, int]] = {}

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        consumer = super()._create_consumer(loop)
        hooks: Hooks = self.app.stream_judge
        # aiokafka reads all of these when the consumer starts.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS
        # Faust asks for committed records only with its own exactly-once.
        consumer._isolation_level = hooks.isolation_level
        # Faust's own, which is sticky; by a setting of its tables it would take another. Members
        # of a group must agree on it: changing it needs a full stop.
        consumer._partition_assignment_strategy = [self.app.assignor]
        if not hooks.commits:
            # Where the log has lost what comes next, aiokafka would go on elsewhere in silence.
            consumer._auto_offset_reset = "none"
        return consumer

    async def on_start(self) -> None:
        """See Faust's; from then on aiokafka's consumer does two things better."""
        await super().on_start()
        heed_errors(self._consumer._coordinator)
        end_for_certain(self._consumer._fetcher)

    def close(self) -> None:
        """Nothing: the thread closes its consumer when it stops.

        Faust calls this of a rebalance that meets it while it stops, and would close there what is
        the thread's in another event loop, which then waits for it without end.
        """

    async def seek_to_committed(self) -> Any:
        """Seek every partition to its committed offset, also to 0.

        Without one the plain publisher begins at what is there. Transactions have committed
        where each partition begins; if that is gone again, the fetch says so (`_fetch_records`).

        aiokafka fetches as soon as it has an assignment, before the hooks are through; what
        Faust takes of that belongs to no lane. So all of it has to be read again, and
        aiokafka's own method seeks to offsets above 0 only.
        """
        return await self.call_thread(self._seek_to_committed)

    async def _seek_to_committed(self) -> Any:
        consumer = self._ensure_consumer()
        assignment = self._assignment()
        committed = await consumer.seek_to_committed()
        new = [tp for tp, offset in committed.items() if offset is None]
        if new and self.app.stream_judge.commits:
            # In one call: each of them waits for the fetch under way. Without any it means all.
            await consumer.seek_to_beginning(*new)
        for tp, offset in committed.items():
            if offset == 0:
                consumer.seek(tp, 0)
        self._taken.clear()
        # Of a rebalance meanwhile this says nothing: another assignment has its own seek.
        self._sought = assignment
        return committed

    def _assignment(self) -> Any:
        # A page that asks for metrics may come before the consumer is there.
        subscription = None if self._consumer is None else self._consumer._subscription.subscription
        return None if subscription is None else subscription.assignment

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Fetch records; an offset that the log no longer has is fatal, and gives none."""
        try:
            return await super().getmany(active_partitions, timeout)
        except OffsetError as exc:
            self.app.stream_judge.fatal(exc)
            return {}

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        try:
            found = await super()._fetch_records(*args, **options)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError) as exc:
            if self._assignment() is not self._sought:
                # From before the seek: where a partition begins is being settled.
                return {}
            raise OffsetError(_problem(exc)) from exc
        for tp, records in found.items():
            first, _ = self._taken.get(tp, (records[0].offset, 0))
            self._taken[tp] = first, records[-1].offset + 1
        return found

    async def positions(self) -> dict[Partition, int | None]:
        """The next offset that is read, of each partition owned now; None before the first seek.

        The thread is asked, so that one that is stuck does not answer; but nothing is waited
        for there: aiokafka's own method waits for a position in one of the thread's two places
        for calls, and the seek that it waits for needs one.
        """
        found: dict[Partition, int | None] = await self.call_thread(self._positions)
        return found

    async def _positions(self) -> dict[Partition, int | None]:
        assignment = self._assignment()
        return {
            (tp.topic, tp.partition): assignment.state_value(tp)._position
            for tp in (assignment.tps if assignment is not None else ())
        }

    def lag(self, done: Mapping[Partition, int]) -> dict[Partition, int]:
        """Offsets from the next outcome to the log's end, of each partition where both are known.

        A partition without a record under way has none, although the markers of transactions
        lie behind its last record: the fetcher has passed them.

        Args:
            done: The offset behind the last outcome of a partition, where there was one.
        """
        assignment = self._assignment()
        committed_only = self.app.stream_judge.isolation_level == "read_committed"
        result = {}
        for tp in assignment.tps if assignment is not None else ():
            state = assignment.state_value(tp)
            end = state.lso if committed_only else state.highwater
            # Looked at once: it is another thread's, which may be resetting it.
            position = state._position
            if end is None or position is None:
                continue
            first, behind = self._taken.get(tp, (0, 0))
            begin = done.get(tp, first)
            result[tp.topic, tp.partition] = max(0, end - (begin if begin < behind else position))
        return result


def heed_errors(coordinator: Any) -> None:
    """Let an answer about committed offsets that is an error be one.

    aiokafka looks at the errors of its partitions alone. Since version 2 of the request a
    coordinator that is loading, or is none any more, says so once for all and names no
    partition: taken for a group that has committed nothing, its log would be read anew.

    Args:
        coordinator: aiokafka's, of a consumer's group.
    """
    send = coordinator._send_req

    async def heeding(request: Any) -> Any:
        answer = await send(request)
        code = getattr(answer, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if code:
            error = for_code(code)
            if error in (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
            # Its callers ask again where that can help.
            raise error(f"offsets of group {coordinator.group_id}")
        return answer

    coordinator._send_req = heeding


class SourceConsumer(driver.Consumer):  # type: ignore[misc]  # faust has no types
    """Faust's consumer with a drain before partitions are given up."""

    _thread: SourceThread
    _assignments = 0

    def _new_consumer_thread(self) -> SourceThread:
        return SourceThread(self, loop=self.loop, beacon=self.beacon)

    def on_buffer_full(self, tp: Any) -> None:
        """Nothing: a full queue holds intake up by itself, and lets it go on at once."""
        # Faust would fetch without the partition, and look again only after a second.

    async def positions(self) -> dict[Partition, int | None]:
        """See `SourceThread.positions`."""
        return await self._thread.positions()

    def lag(self, done: Mapping[Partition, int]) -> dict[Partition, int]:
        """See `SourceThread.lag`."""
        return self._thread.lag(done)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Drain and commit, then let Faust forget."""
        await self._guarded(self._give_up(revoked))
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Open the lanes before Faust seeks and fetches."""
        if self.should_stop or self.app.should_stop:
            # Nothing would come into them, and nobody would close them.
            await super().on_partitions_assigned(assigned, generation_id)
            return
        # A member that had no partitions gave none up, and so is not held up yet. What Faust took
        # of these before it has sought them would come again behind the seek, in the same lanes.
        self._hold_up()
        hooks: Hooks = self.app.stream_judge
        numbers = {tp.partition for tp in assigned if tp.topic == hooks.topic}
        # Faust drops messages of another generation than this; but a member that only joins anew
        # can get the same one, and what was fetched before must not pass for what comes now.
        self._assignments += 1
        self.app.consumer_generation_id = self._assignments
        await self._guarded(hooks.assign(numbers, generation_id, self._assignments))
        await super().on_partitions_assigned(assigned, self._assignments)

    async def _commit(self, offsets: Any) -> bool:
        # Beside transactions a commit of Faust's could turn an offset back.
        return await super()._commit(offsets) if self.app.stream_judge.commits else True

    async def _guarded(self, work: Awaitable[None]) -> None:
        hooks: Hooks = self.app.stream_judge
        limit = asyncio.timeout(hooks.deadline_s)
        try:
            async with limit:
                await work
        except Exception as exc:  # noqa: BLE001 - aiokafka swallows what a hook raises
            hooks.fatal(TimeoutError(_late(hooks)) if limit.expired() else exc)

    def _hold_up(self) -> None:
        # Only inside a rebalance are Faust's own brakes harmless: what they drop is fetched again,
        # by the next owner, or behind the seek; and Faust lets go of them when it has sought.
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()

    async def _give_up(self, revoked: Any) -> None:
        if not revoked or self.should_stop:
            return
        # Nothing new may enter while the window empties.
        self._hold_up()
        left = await self.app.stream_judge.drain()
        await self.maybe_wait_for_commit_to_finish()
        committed = await self.force_commit()
        _log.info("partitions_revoked", partitions=len(revoked), left=left, committed=committed)


class SourceTransport(driver.Transport):  # type: ignore[misc]  # faust has no types
    """Faust's transport with our consumer."""

    Consumer = SourceConsumer


def _late(hooks: Hooks) -> str:
    return (
        f"{hooks.topic}: giving up or opening partitions took longer than {hooks.deadline_s:g} s; "
        "look at the broker, or raise kafka.session_timeout_s"
    )


def _problem(exc: BaseException) -> str:
    return (
        f"the source no longer has the offset that comes next: {exc!r}; a restart says which "
        "offsets there are, and goes by kafka.on_missing_offset"
    )


def install(app: faust.App, hooks: Hooks) -> None:
    """Tell the consumer what to call; before the app starts."""
    app.stream_judge = hooks
