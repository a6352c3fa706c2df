"""Lanes that have nothing to do, and of whose last transaction a broker has left something open.

A lane asks what is open when it opens a producer, and it opens one where a transaction has failed
or a connection was lost since. One that is idle would do so at its next record: until then nobody
who reads committed records gets past what is open, and no lane that looks behind it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog
from aiokafka.errors import KafkaError

from stream_judge.open_transactions import OpenTransactions
from stream_judge.publisher import Partition
from stream_judge.transactional_sink import Idle, TransactionalSink

_log = structlog.get_logger(__name__)
_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 10.0
_PATIENCE_S = 30.0


class IdleLanes:
    """Asks the leaders for what idle lanes have open, once these cannot be sure of it.

    Args:
        open_transactions: Knows what is open.
    """

    def __init__(self, open_transactions: OpenTransactions) -> None:
        self._open_transactions = open_transactions
        self._sinks: Collection[TransactionalSink] = ()

    def assign(self, sinks: Collection[TransactionalSink]) -> None:
        """Look after these from now on; those of the last assignment are closed."""
        self._sinks = sinks

    async def run(self, need_tending: Callable[[Partition], None]) -> None:
        """Look after them until it is cancelled.

        Args:
            need_tending: Told the partitions whose sinks should `tend`.
        """
        wait_s = _FIRST_WAIT_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    told = await self._look(need_tending)
            except (KafkaError, OSError, TimeoutError) as exc:
                # That the broker is out the lanes say that have something to do.
                _log.info("idle_lanes_unknown", error=repr(exc))
                told = False
            # A partition may have no leader for hours, and lanes that open a producer ask, too.
            wait_s = _FIRST_WAIT_S if told else min(2 * wait_s, _LAST_WAIT_S)

    async def _look(self, need_tending: Callable[[Partition], None]) -> bool:
        """Whether every leader has told what is open of the lanes that are in doubt."""
        asked = {
            sink: idle for sink in self._sinks if (idle := sink.idle) is not None and sink.in_doubt
        }
        if not asked:
            return True
        holders, unknown = await self._open_transactions.holders()
        for sink, idle in asked.items():
            # What it has begun since then it looks after itself.
            if sink.idle != idle:
                continue
            if _is_holder(idle, holders):
                need_tending(sink.partition)
            elif not unknown:
                sink.trust()
        return not unknown


def _is_holder(idle: Idle, holders: Collection[tuple[int, int]]) -> bool:
    """Whether a lane's producer, or one before it, has something open.

    One behind it has another owner, who is at work: a worker that was frozen must not shut it out.
    """
    return any(
        producer_id == idle.producer_id and epoch <= idle.epoch for producer_id, epoch in holders
    )
