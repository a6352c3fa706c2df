"""One partition's outcomes: each run and the source offset behind it are one transaction.

After any failed transaction the producer is thrown away. A time-out, too, can look like being
shut out; sequence numbers of a failed batch are not given back; and an answer that was lost may
have been a success. Only the committed offset, read after a new producer was opened, tells what
happened; and the broker can forget what it has confirmed (`progress.py`).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from stream_judge.errors import BrokenInvariantError, LaneLostError, PublishError
from stream_judge.metrics import Metrics
from stream_judge.offsets import Committed, GroupOffsets, metadata_of
from stream_judge.outage import Outages
from stream_judge.progress import OutcomeReader, Progress, Run, State, places_of
from stream_judge.publisher import (
    Partition,
    make_producer,
    name_run,
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


@dataclass(frozen=True, slots=True)
class Shared:
    """What the sinks of a worker have in common.

    Attributes:
        settings: Broker, topics, group, time-outs.
        offsets: The group's.
        outcomes: Looks for what was confirmed.
        outages: Told while the broker is out.
        metrics: Counts.
        memory: Of this process, for all partitions that it ever owned; a lane keeps its own up.
    """

    settings: KafkaSettings
    offsets: GroupOffsets
    outcomes: OutcomeReader
    outages: Outages
    metrics: Metrics
    memory: dict[Partition, Progress]


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
        # The last run whose sends were confirmed.
        self._sent: Run | None = None
        self._settings = shared.settings
        self._offsets = shared.offsets
        self._outcomes = shared.outcomes
        self._partition = partition
        self._generation = generation
        self._topics = topics_of(shared.settings)
        # Of the broker it is: what one partition's transactions meet says nothing of others'.
        self._part = f"{partition[0]}/{partition[1]}"
        self._producer: Any = None
        self._closing: asyncio.Task[None] | None = None

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
        except BaseException:
            await self._throw_away(producer)
            raise
        # A client that follows no topic asks for all of the cluster's, every five minutes; and
        # the first run need not wait. Dead letters are rare, and their topic is added then.
        producer.client.set_topics([self._settings.verdict_topic])
        self._producer = producer

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
        """Whether a confirmed run can be read; where nothing is decided, it is ended anew."""
        if not run.places:
            return "there"
        if (state := await self._outcomes.look_for(run)) != "open":
            return state
        ends = await self._offsets.ranges({(tp.topic, tp.partition) for tp, _ in run.places})
        if any(ends[tp.topic, tp.partition][1] <= offset for tp, offset in run.places):
            return "gone"
        # Its own markers are missing: nobody else writes them any more. Or another lane's
        # transaction is open before it: then there is nothing to end here, and that lane will.
        with own_error(self._producer):
            await self._producer.begin_transaction()
            for tp, _ in run.places:
                self._producer._txn_manager.maybe_add_partition_to_txn(tp)
            await self._producer.commit_transaction()
        while True:
            if (state := await self._outcomes.look_for(run)) != "open":
                return state
            await asyncio.sleep(_LOOK_AGAIN_S)

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
        try:
            await self._publish(run)
        finally:
            self._outages.end("kafka", self._part)

    async def _publish(self, run: Sequence[Outcome]) -> None:
        end = run[-1].record.offset + 1
        attempts = refusals = 0
        while True:
            try:
                if self._producer is None and await self._reopen(run, end):
                    return
                async with asyncio.timeout(self._settings.transaction_deadline_s):
                    await self._transact(run, end)
            except (KafkaError, TimeoutError, OSError) as wrapped:
                exc = root_of(wrapped, self._producer)
                code = code_of(exc)
                self._metrics.transaction_failures.labels(code).inc()
                _log.warning("transaction_failed", run=name_run(run), code=code, error=repr(exc))
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
                        f"{name_run(run)}: {_REOPENINGS} new producers made no progress: {exc!r}"
                    ) from exc
                await asyncio.sleep(self._pause_s(exc, attempts))
            else:
                self._confirm(end, self._sent)
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
        # A task of its own: aiokafka's clients swallow a cancellation while they close, and a
        # lane that is ended meanwhile must end.
        if producer is not None:
            self._closing = asyncio.create_task(throw_away(producer))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _reopen(self, run: Sequence[Outcome], end: int) -> bool:
        """Open a new producer, then see what is committed; True if the run already is."""
        async with asyncio.timeout(self._settings.request_timeout_s):
            await self.open()
            found = (await self._offsets.committed()).get(self._partition)
            offset = found.offset if found is not None else None
            if found is not None and offset == end and found.lane == self._lane:
                # Only the answer was lost.
                self._confirm(end, self._sent)
            progress = self._progress
            if offset == progress.position or progress.is_forgotten(found):
                begin = await self._resume_at(progress, found)
                if begin == progress.position:
                    return begin == end
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
        raise LaneLostError(f"{name_run(run)}: {problem}")

    def _confirm(self, position: int, run: Run | None) -> None:
        self._keep(replace(self._progress, position=position, run=run, failed=False))

    def _note_failure(self) -> None:
        failed = replace(self._progress, failed=True)
        # The partition's next lane may be there already.
        if self._memory.get(self._partition) is self._progress:
            self._memory[self._partition] = failed
        self._progress = failed

    def _keep(self, progress: Progress) -> None:
        self._progress = self._memory[self._partition] = progress

    async def _transact(self, run: Sequence[Outcome], end: int, *, first: bool = False) -> None:
        # Whoever waits for one topic inside a transaction holds up the readers of the others.
        for topic in sorted({self._topics[o.destination] for found in run for o in found.outputs}):
            await self._producer.partitions_for(topic)
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
            await self._producer.commit_transaction()
