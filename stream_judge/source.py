"""The Faust side of the source topic: rebalances, commits, what `read_committed` means.

Faust 0.15.3 forgets acks at a rebalance and drops what it fetched when paused; the
subclass drains our pipeline before Faust forgets, and opens lanes before Faust fetches.
aiokafka sends no heartbeats while a hook runs and swallows what it raises: both hooks run
under a deadline, and whatever goes wrong in them is fatal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import faust
import structlog
from faust.transport.drivers import aiokafka as driver

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the consumer calls, and how it reads.

    Attributes:
        topic: The source topic.
        drain: Ends all lanes; how many records were dropped.
        assign: Opens a lane for each partition number, in a generation.
        fatal: Told of an error after which nothing may go on.
        deadline_s: Until a hook must be through.
        isolation_level: Of the consumer.
        commits: Whether Faust commits source offsets; transactions do it themselves.
    """

    topic: str
    drain: Callable[[], Awaitable[int]]
    assign: Callable[[set[int], int], Awaitable[None]]
    fatal: Callable[[BaseException], None]
    deadline_s: float
    isolation_level: str
    commits: bool


class SourceThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # faust has no types
    """Faust's consumer thread, reading at the isolation level of the settings."""

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        consumer = super()._create_consumer(loop)
        # Faust asks for committed records only with its own exactly-once; aiokafka reads
        # this when the consumer starts.
        consumer._isolation_level = self.app.stream_judge.isolation_level
        return consumer

    async def seek_to_committed(self) -> Any:
        """Seek every partition to its committed offset, also to none and to 0.

        aiokafka fetches as soon as it has an assignment, before the hooks are through; what
        Faust takes of that belongs to no lane. So all of it has to be read again, and
        aiokafka's own method seeks to offsets above 0 only.
        """
        return await self.call_thread(self._seek_to_committed)

    async def _seek_to_committed(self) -> Any:
        consumer = self._ensure_consumer()
        committed = await consumer.seek_to_committed()
        for tp, offset in committed.items():
            if offset is None:
                await consumer.seek_to_beginning(tp)
            elif offset == 0:
                consumer.seek(tp, 0)
        return committed


class SourceConsumer(driver.Consumer):  # type: ignore[misc]  # faust has no types
    """Faust's consumer with a drain before partitions are given up."""

    def _new_consumer_thread(self) -> SourceThread:
        return SourceThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Drain and commit, then let Faust forget."""
        await self._guarded(self._give_up(revoked))
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Open the lanes before Faust seeks and fetches."""
        hooks: Hooks = self.app.stream_judge
        numbers = {tp.partition for tp in assigned if tp.topic == hooks.topic}
        await self._guarded(hooks.assign(numbers, generation_id))
        await super().on_partitions_assigned(assigned, generation_id)

    async def _commit(self, offsets: Any) -> bool:
        # Beside transactions a commit of Faust's could turn an offset back.
        return await super()._commit(offsets) if self.app.stream_judge.commits else True

    async def _guarded(self, work: Awaitable[None]) -> None:
        hooks: Hooks = self.app.stream_judge
        try:
            async with asyncio.timeout(hooks.deadline_s):
                await work
        except Exception as exc:  # noqa: BLE001 - aiokafka swallows what a hook raises
            hooks.fatal(exc)

    async def _give_up(self, revoked: Any) -> None:
        if not revoked or self.should_stop:
            return
        # Nothing new may enter while the window empties. Only here, inside a rebalance, are
        # Faust's own brakes harmless: what they drop is fetched again by the next owner.
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        left = await self.app.stream_judge.drain()
        await self.maybe_wait_for_commit_to_finish()
        committed = await self.force_commit()
        _log.info("partitions_revoked", partitions=len(revoked), left=left, committed=committed)


class SourceTransport(driver.Transport):  # type: ignore[misc]  # faust has no types
    """Faust's transport with our consumer."""

    Consumer = SourceConsumer


def install(app: faust.App, hooks: Hooks) -> None:
    """Tell the consumer what to call; before the app starts."""
    app.stream_judge = hooks
