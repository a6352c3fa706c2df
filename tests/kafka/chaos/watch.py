"""What a storm looks like from outside: the group's progress, and readers that are held back."""

from __future__ import annotations

import asyncio
import time

from aiokafka.errors import KafkaError

from stream_judge.settings import KafkaSettings
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.logs import read_committed

_POLL_S = 0.2


class Watch:
    """Looks five times a second, for as long as the storm lasts.

    Args:
        cluster: Where it happens.
        settings: Group and topics.
    """

    def __init__(self, cluster: StormCluster, settings: KafkaSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._progress: list[tuple[float, int]] = []
        self._over: list[float] = []
        #: Longest time that a verdict partition's readers could not get on, seconds.
        self.held_back_s = 0.0

    @property
    def done(self) -> int:
        """The sum of all committed offsets."""
        return self._progress[-1][1] if self._progress else 0

    def fault_is_over(self) -> None:
        """From now on recovery counts."""
        self._over.append(time.monotonic())

    def recovery_s(self) -> float | None:
        """The longest time from a fault's end to the next commit; None where none was due."""
        waits = []
        for over in self._over:
            before = max((done for at, done in self._progress if at <= over), default=0)
            after = [at for at, done in self._progress if at > over and done > before]
            if after:
                waits.append(after[0] - over)
        return round(max(waits), 2) if waits else None

    async def run(self) -> None:
        """Look until cancelled."""
        held: dict[int, float] = {}
        while True:
            try:
                committed = await read_committed(self._settings)
                self._progress.append((time.monotonic(), sum(committed.values())))
                await self._note_held_back(held)
            except (KafkaError, OSError):
                # The broker may be part of the fault.
                held.clear()
            await asyncio.sleep(_POLL_S)

    async def _note_held_back(self, held: dict[int, float]) -> None:
        now = time.monotonic()
        ends = await self._cluster.ends(self._settings.verdict_topic)
        for number, (stable, end) in ends.items():
            if stable < end:
                since = held.setdefault(number, now)
                self.held_back_s = max(self.held_back_s, now - since)
            else:
                held.pop(number, None)
