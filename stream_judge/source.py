"""The Faust side of the source topic: rebalances, commits, what `read_committed` means.

Faust 0.15.3 forgets acks at a rebalance and drops what it fetched when paused; the
subclass drains our pipeline before Faust forgets, and commits what was acked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import structlog
from faust.transport.drivers import aiokafka as driver

_log = structlog.get_logger(__name__)
Drain = Callable[[], Awaitable[int]]
Resume = Callable[[], None]
Fatal = Callable[[BaseException], None]


class SourceThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # faust has no types
    """Faust's consumer thread, reading at the isolation level of the settings."""

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        consumer = super()._create_consumer(loop)
        # Faust asks for committed records only with its own exactly-once; aiokafka reads
        # this when the consumer starts.
        consumer._isolation_level = self.app.stream_judge_isolation
        return consumer


class SourceConsumer(driver.Consumer):  # type: ignore[misc]  # faust has no types
    """Faust's consumer with a drain before partitions are given up."""

    def _new_consumer_thread(self) -> SourceThread:
        return SourceThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Drain and commit, then let Faust forget."""
        try:
            await self._give_up(revoked)
        except Exception as exc:  # noqa: BLE001 - aiokafka swallows what a hook raises
            self.app.stream_judge_fatal(exc)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Open the window before Faust seeks and fetches."""
        self.app.stream_judge_resume()
        await super().on_partitions_assigned(assigned, generation_id)

    async def _give_up(self, revoked: Any) -> None:
        if not revoked or self.should_stop:
            return
        # Nothing new may enter while the window empties. Only here, inside a rebalance, are
        # Faust's own brakes harmless: what they drop is fetched again by the next owner.
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        left = await self.app.stream_judge_drain()
        await self.maybe_wait_for_commit_to_finish()
        committed = await self.force_commit()
        _log.info("partitions_revoked", partitions=len(revoked), left=left, committed=committed)


class SourceTransport(driver.Transport):  # type: ignore[misc]  # faust has no types
    """Faust's transport with our consumer."""

    Consumer = SourceConsumer


def install(
    app: faust.App, *, drain: Drain, resume: Resume, fatal: Fatal, isolation_level: str
) -> None:
    """Tell the consumer what to call; before the app starts."""
    app.stream_judge_drain = drain
    app.stream_judge_resume = resume
    app.stream_judge_fatal = fatal
    app.stream_judge_isolation = isolation_level
