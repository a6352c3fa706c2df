"""What a storm looks like from outside: the group's progress, and readers that are held back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from stream_judge.settings import KafkaSettings
from tests.kafka.chaos.checker import Place, SourceEntry, passed_over
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.logs import read_committed, read_outcomes

_POLL_S = 0.2
_LOOK_S = 3.0


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
        self._last: dict[int, int] = {}
        #: Times that a partition's committed offset was lower than before.
        self.turned_back = 0
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
        """The longest time from a fault's end to the next commit; None where none came."""
        waits = []
        for over in self._over:
            before = max((done for at, done in self._progress if at <= over), default=0)
            after = [at for at, done in self._progress if at > over and done > before]
            if after:
                waits.append(after[0] - over)
        return round(max(waits), 2) if waits else None

    def lateness(self, most_s: float) -> str:
        """What is wrong with the recovery, in words; empty if it came in time.

        Args:
            most_s: So long it may take, seconds.
        """
        recovery_s = self.recovery_s()
        if recovery_s is None and self._over:
            return "no recovery: nothing was left to be committed when the fault ended"
        if recovery_s is not None and recovery_s > most_s:
            return f"recovery after {recovery_s:.1f} s, not within {most_s:.0f} s"
        return ""

    def note(self, committed: Mapping[int, int]) -> None:
        """Take down the committed offset of each source partition that has one."""
        self._progress.append((time.monotonic(), sum(committed.values())))
        for number, offset in committed.items():
            self.turned_back += offset < self._last.get(number, offset)
            # One that stays low has been turned back once.
            self._last[number] = offset

    async def run(self) -> None:
        """Look until cancelled."""
        held: dict[int, float] = {}
        while True:
            try:
                self.note(await read_committed(self._settings))
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


class Looks:
    """Every few seconds: what is committed, and which outcomes are there.

    Args:
        cluster: Where it happens.
        settings: Group and topics.
    """

    def __init__(self, cluster: StormCluster, settings: KafkaSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._seen: list[tuple[dict[int, int], set[Place], set[Place]]] = []

    def passed_over(self, source: Sequence[SourceEntry]) -> set[Place]:
        """Source records that an offset was committed past, in any look, without outcomes."""
        found: set[Place] = set()
        for committed, verdicts, letters in self._seen:
            found |= passed_over(source, verdicts, letters, committed)
        return found

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                # First the offsets: what is published while the rest is read does no harm.
                committed = await read_committed(self._settings)
                verdicts = await self._places(self._settings.verdict_topic)
                letters = await self._places(self._settings.dead_letter_topic)
            except (KafkaError, OSError):
                # The broker may be part of the fault.
                continue
            self._seen.append((committed, verdicts, letters))

    async def _places(self, topic: str) -> set[Place]:
        """The source records that have an outcome on a topic.

        Outcomes that are committed with their offset may not be readable yet: behind the
        transaction of a worker that was killed inside it, or for want of their own marker.
        So it is read up to the end that the topic has now, not up to what is stable.
        """
        ends = {n: end for n, (_, end) in (await self._cluster.ends(topic)).items()}
        if not ends:
            # Not known yet, or taken away by the fault: this look says nothing.
            raise UnknownTopicOrPartitionError(topic)
        return {o.place for o in await read_outcomes(self._settings, topic, ends)}
