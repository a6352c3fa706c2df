"""What the broker has confirmed to a lane, and whether it still says so.

Apache Kafka 4.3 can lose the end of a transaction that it has confirmed. A broker that dies right
behind the answer to EndTxn finds the transaction prepared when it is back, and can call it complete
without having written its markers. Of each partition that has none, the records stay open until
the producer's next marker there, and share its fate: a later transaction that is aborted takes
them with it. So after a failure the last confirmed run is looked for, as a `read_committed` reader
does. Only the last: the next transaction of a producer begins behind the markers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from stream_judge.connection import client_options, close_apart, end_for_certain
from stream_judge.offsets import Committed, ask_log
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings
from stream_judge.verdict import SOURCE_HEADERS

_log = structlog.get_logger(__name__)
_POLL_MS = 250
# Its lock is held meanwhile, and one partition without a leader would keep it for ever.
_LOOK_S = 5.0

#: "open": of one partition at least nothing is decided. "unknown": this account may not read it.
State = Literal["there", "gone", "open", "unknown"]


@dataclass(frozen=True, slots=True)
class Run:
    """Outcomes of one transaction.

    Attributes:
        source: The partition that was judged.
        begin: Source offset of the first record.
        end: The one behind the last record.
        places: The last outcome's offset in each partition that has some.
    """

    source: Partition
    begin: int
    end: int
    places: tuple[tuple[TopicPartition, int], ...] = ()

    def wrote(self, record: Any) -> bool:
        """Whether a record at one of the places is the run's: a log can have been cut since."""
        offset = source_offset(record, self.source)
        return offset is not None and self.begin <= offset < self.end


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the broker has confirmed a partition's outcomes to one of its lanes.

    Attributes:
        position: The offset behind the last confirmed run, or where the lane began.
        lane: Token of the lane, which its commits carry.
        before: What the group had committed when the lane began.
        run: The last confirmed run; None in a lane that has published nothing.
        failed: Whether the lane met a failure behind it.
        attempt: The run behind it, where its records were confirmed and its end was not.
    """

    position: int
    lane: str
    before: Committed | None
    run: Run | None = None
    failed: bool = False
    attempt: Run | None = None

    def is_own(self, found: Committed | None) -> bool:
        """Whether the group's offset is the lane's own, or the one from before it.

        Whoever else had owned the partition meanwhile would have committed another, or done
        nothing.
        """
        if found is None:
            return self.before is None
        return found.lane == self.lane or found == self.before

    def is_forgotten(self, found: Committed | None) -> bool:
        """Whether the group's offset is one that lies before what was confirmed."""
        behind = found is None or found.offset < self.position
        return behind and self.is_own(found)

    def is_doubtful(self, found: Committed | None) -> bool:
        """Whether somebody has to look for what was confirmed."""
        stands = found is not None and found.offset == self.position
        return self.is_forgotten(found) or (self.failed and stands and self.is_own(found))

    def confirmed_to(self, found: Committed | None) -> int:
        """The offset up to which group or lane know of outcomes.

        Args:
            found: What the group has committed.
        """
        offset = 0 if found is None else found.offset
        return max(offset, self.position) if self.is_own(found) else offset

    def resume_at(self, found: Committed | None, state: State) -> int | None:
        """The offset at which the partition goes on.

        Args:
            found: What the group has committed; the lane's own, or from before it.
            state: Of the outcomes of the last confirmed run.

        Returns:
            None where that is where a group begins that has committed nothing.
        """
        if state == "there" or (state == "unknown" and not self.is_forgotten(found)):
            return self.position
        if state == "unknown" or self.run is None or self.is_forgotten(found):
            return None if found is None else found.offset
        return self.run.begin


def places_of(sent: Iterable[Any]) -> tuple[tuple[TopicPartition, int], ...]:
    """The last of some confirmed records in each partition.

    Args:
        sent: aiokafka's `RecordMetadata`, in the order of sending.
    """
    last = {TopicPartition(found.topic, found.partition): found.offset for found in sent}
    return tuple(sorted(last.items()))


def source_offset(record: Any, source: Partition) -> int | None:
    """Offset of the source record that an outcome is of; None: it is no outcome of the source."""
    headers = dict(record.headers)
    topic, partition, offset = (headers.get(name) for name in SOURCE_HEADERS)
    if (topic, partition) != (source[0].encode(), b"%d" % source[1]):
        return None
    return int(offset) if offset is not None and offset.isdigit() else None


class OutcomeReader:
    """Looks for outcomes as a reader of the output topics does.

    All lanes share it, one after the other: a broker that comes back meets all of them at once.

    Args:
        settings: Broker and topics.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._reader: Any = None
        self._lock = asyncio.Lock()

    async def look_for(self, run: Run) -> State:
        """Whether the outcomes of a run can be read; give it a deadline.

        Raises:
            KafkaError: The broker does not tell.
            TimeoutError: Nor within five seconds: other lanes are waiting.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(_LOOK_S):
                    return await self._look_for(run)
            except TopicAuthorizationFailedError as exc:
                _log.warning("outcomes_unreadable", error=repr(exc))
                return "unknown"
            except (KafkaError, OSError, TimeoutError):
                # One whose fetching has failed for good finds nothing any more.
                await self.stop()
                raise

    async def source_offsets(
        self, places: Mapping[TopicPartition, int], source: Partition
    ) -> dict[TopicPartition, int | None]:
        """Offsets of the source records that outcomes at some places are of, decided or not.

        Args:
            places: Offset by partition.
            source: The source partition; None is the answer for what is not of it.

        Raises:
            KafkaError: The broker does not tell.
            TimeoutError: Nor within five seconds.
        """
        async with self._lock, asyncio.timeout(_LOOK_S):
            reader = await self._connected("read_uncommitted")
            try:
                reader.assign(list(places))
                found = {tp: await _record_at(reader, tp, places[tp]) for tp in places}
            finally:
                await close_apart(reader.stop())
        return {
            tp: None if record is None else source_offset(record, source)
            for tp, record in found.items()
        }

    async def stop(self) -> None:
        """Disconnect."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await close_apart(reader.stop())

    async def _look_for(self, run: Run) -> State:
        if self._reader is None:
            self._reader = await self._connected("read_committed")
        reader = self._reader
        partitions = [tp for tp, _ in run.places]
        reader.assign(partitions)
        # With `read_committed` the end lies before the first record that is not decided.
        ends = await ask_log(reader.end_offsets, partitions)
        if any(ends[tp] <= offset for tp, offset in run.places):
            return "open"
        # Only what had been decided before is old enough for retention.
        begins = await ask_log(reader.beginning_offsets, partitions)
        hidden = []
        for tp, offset in run.places:
            if offset < begins[tp]:
                continue
            record = await _record_at(reader, tp, offset)
            if record is None:
                hidden.append((tp, offset))
            elif not run.wrote(record):
                return "gone"
        return "gone" if hidden and await self._is_aborted(hidden) else "there"

    async def _is_aborted(self, places: Sequence[tuple[TopicPartition, int]]) -> bool:
        """Whether a record that `read_committed` does not show is there.

        If it is not, a compacted topic has dropped it, which it does with what was decided: a
        tombstone after `delete.retention.ms`, a verdict behind a newer one of its product.
        """
        reader = await self._connected("read_uncommitted")
        try:
            reader.assign([tp for tp, _ in places])
            for tp, offset in places:
                if await _record_at(reader, tp, offset) is not None:
                    return True
            return False
        finally:
            await close_apart(reader.stop())

    async def _connected(self, isolation_level: str) -> Any:
        reader = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=None,
            isolation_level=isolation_level,
            auto_offset_reset="earliest",
        )
        try:
            await reader.start()
        except BaseException:
            await close_apart(reader.stop())
            raise
        end_for_certain(reader._fetcher)
        return reader


async def _record_at(reader: Any, tp: TopicPartition, offset: int) -> Any:
    """The record at an offset below the log's end, as the reader sees it; None: it sees none."""
    reader.seek(tp, offset)
    while True:
        found = (await reader.getmany(tp, timeout_ms=_POLL_MS)).get(tp, ())
        if found:
            return found[0] if found[0].offset == offset else None
        if await reader.position(tp) > offset:
            return None
