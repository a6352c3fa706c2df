"""Lanes that have nothing to do, and of whose last transaction a broker has left something open.

A lane asks what is open when it opens a producer, and it opens one when a transaction has failed.
One that is idle while the broker is away meets no failure. Until its next transaction nobody who
reads committed records gets past what is open, and no lane that looks behind it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

import structlog
from aiokafka.errors import KafkaError

from stream_judge.open_transactions import OpenTransactions
from stream_judge.publisher import Partition
from stream_judge.transactional_sink import Idle, TransactionalSink

_log = structlog.get_logger(__name__)
# A worker that is idle as a whole sees no outage. An answer is large where partitions are many.
_EVERY_S = 60.0
_AGAIN_S = 1.0
_PATIENCE_S = 30.0


class IdleLanes:
    """Asks the leaders for what idle lanes have open: behind every outage, and once a minute.

    Args:
        open_transactions: Knows what is open.
        disturbed: Set behind an outage.
    """

    def __init__(self, open_transactions: OpenTransactions, disturbed: asyncio.Event) -> None:
        self._open_transactions = open_transactions
        self._disturbed = disturbed
        self._sinks: Collection[TransactionalSink] = ()
        # What they were at when nothing of them was open.
        self._settled: dict[TransactionalSink, Idle] = {}

    def assign(self, sinks: Collection[TransactionalSink]) -> None:
        """Look after these from now on; those of the last assignment are closed."""
        self._sinks = sinks
        self._settled = {}

    async def run(self, need_tending: Callable[[Partition], None]) -> None:
        """Look after them until it is cancelled.

        Args:
            need_tending: Told the partitions whose sinks should `tend`.
        """
        wait_s = _EVERY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._disturbed.wait()
            if self._disturbed.is_set():
                # All lanes meet an outage, each in its own time.
                await asyncio.sleep(_AGAIN_S)
                self._disturbed.clear()
                # What was settled before an outage need not be so behind it.
                self._settled = {}
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    told = await self._look(need_tending)
            except (KafkaError, OSError, TimeoutError) as exc:
                # That the broker is out the lanes say that have something to do.
                _log.info("idle_lanes_unknown", error=repr(exc))
                told = False
            wait_s = _EVERY_S if told else _AGAIN_S

    async def _look(self, need_tending: Callable[[Partition], None]) -> bool:
        """Whether every leader has told what is open of the lanes that are idle."""
        asked = {
            sink: idle
            for sink in self._sinks
            if (idle := sink.idle) is not None and self._settled.get(sink) != idle
        }
        if not asked:
            return True
        holders, unknown = await self._open_transactions.holders()
        for sink, idle in asked.items():
            # What it has begun since then ends what was open, and can itself be what is.
            if sink.idle != idle:
                continue
            if idle.holder in holders:
                need_tending(sink.partition)
            elif not unknown:
                self._settled[sink] = idle
        return not unknown
