"""Exactly one outcome: a run and the source offset behind it are one transaction.

Every partition that a worker owns has a producer whose transactional id names the
partition. Opening it raises the id's epoch: what a former owner left open is aborted, and
that owner, should it still live, is shut out from then on. So two owners of a partition,
one of them woken from a freeze, cannot both write.

What happens to one partition's runs is in `transactional_sink.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial

from aiokafka.errors import KafkaError

from stream_judge.errors import PublishError
from stream_judge.idle_lanes import IdleLanes
from stream_judge.metrics import Metrics
from stream_judge.offsets import Committed, GroupOffsets, start_offsets
from stream_judge.open_transactions import OpenTransactions
from stream_judge.outage import Outages
from stream_judge.progress import OutcomeReader, Progress
from stream_judge.publisher import Partition, Sink
from stream_judge.settings import KafkaSettings
from stream_judge.transactional_sink import Shared, TransactionalSink

# Opening one is a round trip or two; more at a time only queue at the broker.
_AT_A_TIME = 32
_AGAIN_S = 0.05


class TransactionalPublisher:
    """Makes a transactional sink for every assigned partition.

    Args:
        settings: Broker, topics, group, time-outs.
        outages: Told while the broker is out.
        metrics: Counts.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        outages: Outages | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._outages = outages or Outages()
        self._metrics = metrics or Metrics()
        self._offsets = GroupOffsets(settings)
        self._outcomes = OutcomeReader(settings)
        self._open_transactions = OpenTransactions(settings)
        self._idle_lanes = IdleLanes(self._open_transactions)
        # Of all partitions that this process ever owned.
        self._memory: dict[Partition, Progress] = {}

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: No broker answers.
        """
        await self._offsets.start()

    async def open(
        self, partitions: Collection[Partition], generation: int
    ) -> Mapping[Partition, Sink]:
        """See `Publisher.open`; partitions without a commit get their start committed."""
        if not partitions:
            return {}
        shared = Shared(
            self._settings,
            self._offsets,
            self._outcomes,
            self._open_transactions,
            self._outages,
            self._metrics,
            self._memory,
        )
        sinks = {
            partition: TransactionalSink(shared, partition, generation)
            for partition in sorted(partitions)
        }
        try:
            await _gather(sink.open for sink in sinks.values())
            # Only now: former owners are shut out, and what they left open the broker has ended.
            committed = await self._offsets.committed()
            # All at once: they share the broker's answer, and few have anything to end.
            await _gather(
                (partial(sink.settle, committed.get(p)) for p, sink in sinks.items()), len(sinks)
            )
            ranges = await self._offsets.ranges(sinks)
            known = committed | await self._remembered(committed, sinks)
            starts = start_offsets(known, ranges, generation, self._settings.on_missing_offset)
            await _gather(
                partial(sink.begin_at, starts[partition], committed.get(partition))
                for partition, sink in sinks.items()
            )
            await self._wait_committed(starts, committed)
        except BaseException as exc:
            await asyncio.gather(*(sink.close() for sink in sinks.values()))
            if isinstance(exc, (KafkaError, OSError)):
                raise PublishError(f"the lanes could not be opened: {exc!r}") from exc
            raise
        self._idle_lanes.assign(sinks.values())
        return sinks

    async def watch(self, need_tending: Callable[[Partition], None]) -> None:
        """See `Publisher.watch`."""
        await self._idle_lanes.run(need_tending)

    async def _remembered(
        self,
        committed: Mapping[Partition, Committed],
        sinks: Mapping[Partition, TransactionalSink],
    ) -> dict[Partition, Committed]:
        """Offsets that this process knows better than the group does."""
        result = {}

        async def ask(partition: Partition, sink: TransactionalSink) -> None:
            found = committed.get(partition)
            offset = await sink.resume_at(found)
            if offset is not None and (found is None or found.offset != offset):
                result[partition] = Committed(offset, -1)

        await _gather(partial(ask, *item) for item in sinks.items())
        return result

    async def _wait_committed(
        self, starts: Mapping[Partition, int], committed: Mapping[Partition, Committed]
    ) -> None:
        """Wait until the group's offsets are the starts; the caller's deadline bounds it.

        A commit is answered before the coordinator has its marker. Until then an offset that is
        asked for as Faust does it, without `require_stable` (KIP-447), is the old one, and Faust
        seeks there.
        """
        while any(
            partition not in committed or committed[partition].offset != start
            for partition, start in starts.items()
        ):
            committed = await self._offsets.committed()
            await asyncio.sleep(_AGAIN_S)

    async def stop(self) -> None:
        """Disconnect; the sinks are their lanes' to close."""
        await self._offsets.stop()
        await self._outcomes.stop()
        await self._open_transactions.stop()


async def _gather(
    works: Iterable[Callable[[], Awaitable[None]]], at_a_time: int = _AT_A_TIME
) -> None:
    """Do all of them, some at a time; then raise the first error there was."""
    gate = asyncio.Semaphore(at_a_time)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            await work()

    results = await asyncio.gather(*map(one, works), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result
