"""One partition's outcomes: each run and the source offset behind it are one transaction.

After any failed transaction the producer is thrown away. A time-out, too, can look like being
shut out; sequence numbers of a failed batch are not given back; and an answer that was lost may
have been a success. Only the committed offset, read after a new producer was opened, tells what
happened; and the broker can forget what it has confirmed (`progress.py`), or leave open what it
calls ended (`open_transactions.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.structs import OffsetAndMetadata

from stream_judge.connection import close_apart
from stream_judge.errors import BrokenInvariantError, LaneLostError, PublishError
from stream_judge.metrics import Metrics
from stream_judge.offsets import Committed, GroupOffsets, metadata_of
from stream_judge.open_transactions import OpenTransactions
from stream_judge.outage import Outages
from stream_judge.progress import OutcomeReader, Progress, Run, State, places_of
from stream_judge.publisher import (
    Partition,
    connections_of,
    make_producer,
    name_run,
    partition_of,
    send_run,
    throw_away,
    topics_of,
    transactional_id,
)
from stream_judge.settings import KafkaSettings
from stream_judge.transaction_errors import FENCED, code_of, own_error, root_of
from stream_judge.verdict import Outcome

_log = structlog.get_logger(__name__)
_REOPENINGS = 3
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 5.0
_LOOK_AGAIN_S = 0.2
# Where waiting for others would hold others up, or a hook.
_LOOKS = 25


@dataclass(frozen=True, slots=True)
class Shared:
    """What the sinks of a worker have in common.

    Attributes:
        settings: Broker, topics, group, time-outs.
        offsets: The group's.
        outcomes: Looks for what was confirmed.
        open_transactions: Knows what was left open.
        outages: Told while the broker is out.
        metrics: Counts.
        memory: Of this process, for all partitions that it ever owned; a lane keeps its own up.
    """

    settings: KafkaSettings
    offsets: GroupOffsets
    outcomes: OutcomeReader
    open_transactions: OpenTransactions
    outages: Outages
    metrics: Metrics
    memory: dict[Partition, Progress]


@dataclass(frozen=True, slots=True)
class Idle:
    """A sink between two transactions.

    Attributes:
        turn: How often it has begun something.
        producer_id: Its producer's.
        epoch: Its producer's.
    """

    turn: int
    producer_id: int
    epoch: int


class TransactionalSink:
    """The sink of one partition in one assignment.

    Args:
        shared: With the worker's other sinks.
        partition: Of the source.
        generation: Of the assignment.
    """

    def __init__(self, shared: Shared, partition: Partition, generation: int) -> None:
        self._outages = shared.outages
        self._metrics = shared.metrics
        self._memory = shared.memory
        self._lane = secrets.token_hex(4)
        self._progress = Progress(-1, self._lane, None)
        # The run under way, once its sends are confirmed.
        self._sent: Run | None = None
        self._settings = shared.settings
        self._offsets = shared.offsets
        self._outcomes = shared.outcomes
        self._open_transactions = shared.open_transactions
        self._partition = partition
        self._generation = generation
        self._topics = topics_of(shared.settings)
        # Of the broker it is: what one partition's transactions meet says nothing of others'.
        self._part = f"{partition[0]}/{partition[1]}"
        self._producer: Any = None
        # Where something of this producer can be open, unknown to anybody.
        self._unknown: frozenset[TopicPartition] = frozenset()
        # Those over which the last confirmed transaction went, and the one under way.
        self._connections: tuple[Any, ...] = ()
        self._used: tuple[Any, ...] = ()
        self._under_way = False
        self._turns = 0

    @property
    def partition(self) -> Partition:
        """The source partition."""
        return self._partition

    @property
    def idle(self) -> Idle | None:
        """What the sink is at while it does nothing; None if it does something, or is closed."""
        if self._producer is None or self._under_way:
            return None
        manager = self._producer._txn_manager
        return Idle(self._turns, manager.producer_id, manager.producer_epoch)

    @property
    def in_doubt(self) -> bool:
        """Whether a broker may have died since something was confirmed, or never told."""
        return bool(self._unknown) or self._is_cut_off

    def trust(self) -> None:
        """Nothing of the producer is open now."""
        self._unknown = frozenset()
        self._connections = ()

    @property
    def _is_cut_off(self) -> bool:
        return not all(connection.connected() for connection in self._connections)

    async def open(self) -> None:
        """Open the producer: from now on nobody else can write under the partition's id."""
        topic, number = self._partition
        producer = make_producer(
            self._settings,
            transactional_id=transactional_id(self._settings, topic, number),
            transaction_timeout_ms=int(self._settings.transaction_timeout_s * 1000),
            request_timeout_ms=int(self._settings.transaction_deadline_s * 1000),
        )
        try:
            await producer.start()
        except BaseException as exc:
            await self._throw_away(producer)
            if isinstance(exc, AssertionError) and producer.client.get_random_node() is None:
                # A broker that was frozen names none when it wakes, not even itself, and aiokafka
                # takes that for a defect.
                raise NodeNotReadyError("the cluster names no broker") from exc
            raise
        # A client that follows no topic asks for all of the cluster's, every five minutes; and
        # the first run need not wait. Dead letters are rare, and their topic is added then.
        producer.client.set_topics([self._settings.verdict_topic])
        self._producer, self._connections = producer, ()

    async def begin_at(self, offset: int, committed: Committed | None) -> None:
        """Take up the partition at an offset, and commit it where it is not yet."""
        if committed is None or committed.offset != offset:
            _log.info(
                "partition_begins",
                partition=self._part,
                offset=offset,
                committed=None if committed is None else committed.offset,
            )
            # Without an operator's word, none is committed in a new group only.
            first = committed is None and self._settings.on_missing_offset is None
            async with asyncio.timeout(self._settings.transaction_deadline_s):
                await self._transact((), offset, first=first)
        progress = Progress(offset, self._lane, committed)
        former = self._memory.get(self._partition)
        if former is not None and former.position == offset and former.is_own(committed):
            # Its outcomes can still be open, and share the fate of this lane's first transaction.
            progress = replace(progress, run=former.run)
        self._keep(progress)

    async def settle(self, found: Committed | None) -> None:
        """End what former producers of the partition have left open.

        Args:
            found: What the group has committed, asked for since the sink was opened.
        """
        progress = self._memory.get(self._partition)
        if progress is None:
            await self._settle(Progress(-1, "", None), found, looks=_LOOKS)
        else:
            self._memory[self._partition] = await self._settle(progress, found, looks=_LOOKS)

    async def _settle(
        self, progress: Progress, found: Committed | None, *, looks: int | None
    ) -> Progress:
        """End what is open, all of a run in one way; the progress without an attempt.

        Args:
            progress: Of the partition.
            found: What the group has committed.
            looks: So often a run of which nothing is open is looked for; None: until it is seen.
        """
        answer = await self._open_transactions.of(self._producer._txn_manager.producer_id)
        self._unknown, left = answer.unknown, answer.places
        known = progress.confirmed_to(found)
        if left:
            offsets = await self._outcomes.source_offsets(left, self._partition)
            confirmed = {
                tp for tp, offset in offsets.items() if offset is not None and offset < known
            }
            # Where a part is lost all of it is judged again, and must not be there twice.
            run = progress.run if confirmed and progress.is_own(found) else None
            whole = await self._state_of(run, left, looks=1) != "gone"
            await self._end(confirmed, "commit" if whole else "abort")
            progress = replace(progress, failed=progress.failed or not whole)
            left = {tp: offset for tp, offset in left.items() if tp not in confirmed}
        attempt = progress.attempt
        # A part of it can have its markers: those of a commit, if it was the last word. Lanes that
        # wait for each other to end what they have open would wait for ever.
        looks = _LOOKS if left else looks
        if (
            attempt is not None
            and known < attempt.end
            and progress.is_own(found)
            and any(tp not in left for tp, _ in attempt.places)
            and await self._state_of(attempt, left, looks=looks) == "there"
        ):
            await self._end(left, "commit")
            return replace(progress, position=attempt.end, run=attempt, attempt=None)
        await self._end(left, "abort")
        return replace(progress, attempt=None)

    async def _end(
        self, partitions: Collection[TopicPartition], how: Literal["commit", "abort"]
    ) -> None:
        """Commit or abort what the partition's producers have open."""
        if not partitions:
            return
        places = sorted(f"{tp.topic}/{tp.partition}" for tp in partitions)
        _log.warning("transaction_left_open", partition=self._part, places=places, ended_by=how)
        producer = self._producer
        with own_error(producer):
            await producer.begin_transaction()
            for tp in sorted(partitions):
                producer._txn_manager.maybe_add_partition_to_txn(tp)
            await (producer.commit_transaction if how == "commit" else producer.abort_transaction)()

    async def _state_of(
        self, run: Run | None, left: Collection[TopicPartition], *, looks: int | None
    ) -> State:
        """What became of a run's outcomes where nothing is left open; give it a deadline.

        "open" while others' transactions are open before it, at the last look, too.
        """
        places = tuple(place for place in (run.places if run else ()) if place[0] not in left)
        if run is None or not places:
            return "there"
        run = replace(run, places=places)
        for look in itertools.count(1):
            state = await self._outcomes.look_for(run)
            if state != "open" or look == looks:
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        return state

    async def resume_at(self, found: Committed | None) -> int | None:
        """Where the partition goes on, as far as this process knows; None: it does not.

        Args:
            found: What the group has committed.
        """
        progress = self._memory.get(self._partition)
        if progress is None or not progress.is_doubtful(found):
            return None
        return await self._resume_at(progress, found)

    async def _resume_at(self, progress: Progress, found: Committed | None) -> int | None:
        state = await self._look_for(progress.run) if progress.run is not None else "there"
        offset = progress.resume_at(found, state)
        if state != "there" or progress.is_forgotten(found):
            _log.warning(
                "commit_forgotten",
                partition=self._part,
                confirmed=progress.position,
                committed=None if found is None else found.offset,
                outcomes=state,
                goes_on_at=offset,
            )
        return offset

    async def _look_for(self, run: Run) -> State:
        """Whether a confirmed run can be read; its own markers are there by now."""
        if not run.places:
            return "there"
        while (state := await self._outcomes.look_for(run)) == "open":
            ends = await self._offsets.ranges({(tp.topic, tp.partition) for tp, _ in run.places})
            if any(ends[tp.topic, tp.partition][1] <= offset for tp, offset in run.places):
                return "gone"
            # Another lane's transaction is open before it.
            await asyncio.sleep(_LOOK_AGAIN_S)
        return state

    async def publish(self, run: Sequence[Outcome]) -> None:
        """See `Sink.publish`.

        While the broker is out it goes on trying: the lane's end cancels it.

        Raises:
            LaneLostError: Somebody else has committed for the partition, or the broker has lost
                what it confirmed.
            PublishError: The broker refused, and three new producers too.
            BrokenInvariantError: The run begins before what was published.
        """
        if run[0].record.offset < self._progress.position:
            raise BrokenInvariantError(
                f"{name_run(run)}: this lane has published up to offset "
                f"{self._progress.position} already"
            )
        if self._is_cut_off:
            # What is open of what was confirmed would share the fate of this run.
            _log.info("producer_cut_off", partition=self._part)
            self._note_failure()
            await self.close()
        await self._repeat(run, run[-1].record.offset + 1)

    async def tend(self) -> None:
        """See `Sink.tend`: a new producer, and what the last one left open is ended.

        Raises:
            LaneLostError: As `publish`.
            PublishError: As `publish`.
        """
        self._note_failure()
        await self.close()
        await self._repeat((), self._progress.position)
        self._amend(replace(self._progress, failed=False))

    async def _repeat(self, run: Sequence[Outcome], end: int) -> None:
        self._turns += 1
        self._under_way = True
        try:
            await self._publish(run, end)
        finally:
            self._under_way = False
            self._outages.end("kafka", self._part)

    async def _publish(self, run: Sequence[Outcome], end: int) -> None:
        attempts = refusals = 0
        while True:
            try:
                if self._producer is None and await self._reopen(run, end):
                    return
                async with asyncio.timeout(self._settings.transaction_deadline_s):
                    await self._transact(run, end)
            except asyncio.CancelledError:
                # The partition's next lane has to see what became of the run.
                self._note_failure()
                raise
            except (KafkaError, TimeoutError, OSError) as wrapped:
                exc = root_of(wrapped, self._producer)
                code = code_of(exc)
                self._metrics.transaction_failures.labels(code).inc()
                _log.warning("transaction_failed", run=self._name(run), code=code, error=repr(exc))
                self._note_failure()
                attempts += 1
                if code == "outage":
                    self._outages.begin("kafka", self._part)
                    refusals = 0
                else:
                    refusals += 1
                await self.close()
                if refusals > _REOPENINGS:
                    raise PublishError(
                        f"{self._name(run)}: {_REOPENINGS} new producers made no progress: {exc!r}"
                    ) from exc
                await asyncio.sleep(self._pause_s(exc, attempts))
            else:
                self._confirm(end, self._sent)
                # Else the one before it is still in doubt.
                if not self._is_cut_off:
                    self._connections = self._used
                return

    def _pause_s(self, exc: BaseException, attempts: int) -> float:
        if isinstance(exc, FENCED):
            # If the partition has moved, the group will tell within a heartbeat, and this
            # lane ends. A new producer at once would shut its owner out.
            return self._settings.session_timeout_s / 10
        # A fixed bound for the doublings, too: an outage may last for days.
        wait_s = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 8))
        # Jitter spreads the lanes' attempts; it touches no outcome.
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311

    async def close(self) -> None:
        """Throw the producer away; an open transaction is aborted by the next one."""
        producer, self._producer = self._producer, None
        await self._throw_away(producer)

    async def _throw_away(self, producer: Any) -> None:
        if producer is not None:
            await close_apart(throw_away(producer))

    async def _reopen(self, run: Sequence[Outcome], end: int) -> bool:
        """Open a new producer, then see what is committed; True if the run already is."""
        async with asyncio.timeout(self._settings.request_timeout_s):
            await self.open()
            found = (await self._offsets.committed()).get(self._partition)
            offset = found.offset if found is not None else None
            if run and found is not None and offset == end and found.lane == self._lane:
                # Only the answer was lost.
                self._confirm(end, self._sent)
            self._amend(await self._settle(self._progress, found, looks=None))
            progress = self._progress
            if offset == progress.position or progress.is_forgotten(found):
                begin = await self._resume_at(progress, found)
                if begin == progress.position:
                    done = begin == end or not run
                    if done and offset != begin:
                        await self._transact((), begin)
                    return done
                if begin not in (None, offset):
                    await self._transact((), begin)
                problem = (
                    f"the broker has confirmed outcomes up to offset {progress.position} and lost "
                    f"some; they are judged again from offset {begin} on"
                )
            else:
                problem = (
                    f"the group has committed {offset}, this worker {progress.position}; another "
                    "one owns the partition"
                )
        await self.close()
        raise LaneLostError(f"{self._name(run)}: {problem}")

    def _name(self, run: Sequence[Outcome]) -> str:
        return name_run(run) if run else f"{self._part} behind offset {self._progress.position - 1}"

    def _confirm(self, position: int, run: Run | None) -> None:
        self._keep(replace(self._progress, position=position, run=run, failed=False, attempt=None))

    def _note_failure(self) -> None:
        sent = self._sent
        attempt = sent if sent is not None and sent.end > self._progress.position else None
        self._amend(replace(self._progress, failed=True, attempt=attempt))

    def _amend(self, progress: Progress) -> None:
        # The partition's next lane may be there already.
        if self._memory.get(self._partition) is self._progress:
            self._memory[self._partition] = progress
        self._progress = progress

    def _keep(self, progress: Progress) -> None:
        self._progress = self._memory[self._partition] = progress

    def _see_known(self, run: Sequence[Outcome]) -> None:
        """Send nothing where something can be left open: its end, or its abortion, decides both.

        Raises:
            NodeNotReadyError: The leader of a partition that the run goes to has not told.
        """
        if not self._unknown:
            return
        topics = {tp.topic for tp in self._unknown}
        for output in (output for outcome in run for output in outcome.outputs):
            topic = self._topics[output.destination]
            if topic not in topics:
                continue
            # One without a key goes to any of them.
            number = None if output.key is None else partition_of(self._producer, topic, output.key)
            if number is None or TopicPartition(topic, number) in self._unknown:
                raise NodeNotReadyError(f"what was left open in {topic} is not known yet")

    async def _transact(self, run: Sequence[Outcome], end: int, *, first: bool = False) -> None:
        if run:
            self._sent = None
        # Whoever waits for one topic inside a transaction holds up the readers of the others.
        for topic in sorted({self._topics[o.destination] for found in run for o in found.outputs}):
            await self._producer.partitions_for(topic)
        self._see_known(run)
        if run and self._is_cut_off:
            # While a topic was waited for.
            raise NodeNotReadyError("a connection was lost")
        place = TopicPartition(*self._partition)
        offset = OffsetAndMetadata(end, metadata_of(self._generation, self._lane, first=first))
        with own_error(self._producer):
            await self._producer.begin_transaction()
            futures = await send_run(self._producer, self._topics, run)
            # All of them, before the offsets go: a commit ignores batches that have failed.
            sent = [await future for future in futures]
            if run:
                self._sent = Run(self._partition, run[0].record.offset, end, places_of(sent))
            await self._producer.send_offsets_to_transaction(
                {place: offset}, self._settings.application
            )
            # From here on a broker can die behind its answer.
            if run and self._sent is not None:
                self._used = connections_of(self._producer, [tp for tp, _ in self._sent.places])
            await self._producer.commit_transaction()
