"""A reference consumer of verdicts: what may be published, now.

It keeps the newest verdict of every product, as read from a compacted verdict topic, and
answers for a product and revision. `docs/gate.md` says why each step is there; a gate in
another language does the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream_judge.connection import open_consumer
from stream_judge.errors import BrokerError, DecodeError
from stream_judge.gate_state import Decision, GateState, Revision
from stream_judge.settings import KafkaSettings

_log = structlog.get_logger(__name__)
_REQUEST_MS = 10_000
# Until partitions that were added are read.
_METADATA_MS = 60_000
# Of a fetch that reached a partition's end: idle ones get there twice a second, and a leader that
# is elected anew takes less. aiokafka itself only logs a fetch that fails.
_STALE_MS = 30_000
# For reading the topic at the start. Whoever has more verdicts than that knows it.
_START_S = 600.0
_SAY_EVERY_S = 10.0
# So many products with a record that is no verdict are named: a topic of something else has no
# other records, and would fill the log.
_NAMED = 100
_REMEDY = (
    "its product gets no `publish`; see who writes to this topic, then send the product's update "
    "to the source topic again (docs/gate.md)"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gate says of a product.

    Attributes:
        decision: "publish", "review" or "block".
        verdict: What it rests on; None where no verdict came in time.
    """

    decision: Decision
    verdict: Mapping[str, Any] | None


class Gate:
    """Follows the verdict topic and answers for products.

    Args:
        settings: Broker and verdict topic.
        state: What it keeps; a new one by default.
    """

    def __init__(self, settings: KafkaSettings, state: GateState | None = None) -> None:
        self._settings = settings
        self._state = state if state is not None else GateState()
        self._reader: Any = None
        self._following: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        # When each partition was last read to its end, milliseconds since the epoch.
        self._read_ms: dict[TopicPartition, int] = {}
        self._withheld = False

    @property
    def state(self) -> GateState:
        """What is known now."""
        return self._state

    async def start(self, *, timeout_s: float | None = _START_S) -> None:
        """Read the topic to its present end, then follow it.

        Args:
            timeout_s: How long reading may take, seconds; None for as long as it takes. The log
                says every ten seconds what is left.

        Raises:
            BrokerError: No broker lets it in, the verdict topic is not there or not readable, or
                it was not read in time; the message names the partitions that are left.
        """
        # No group: every gate reads all of it, at every start. Compaction keeps it short.
        self._reader = await open_consumer(
            self._settings,
            # Subscribed, it reads partitions that are added later, too.
            self._settings.verdict_topic,
            request_timeout_ms=_REQUEST_MS,
            metadata_max_age_ms=_METADATA_MS,
            # Without this it would see verdicts of transactions that are aborted.
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._catch_up()
        except BaseException as exc:
            left = ", ".join(self._left()) if isinstance(exc, TimeoutError) else None
            await self._reader.stop()
            if left is None:
                raise
            raise BrokerError(
                f"the verdict topic was not read to its end within {timeout_s:g} s; left are "
                f"{left}; see that these partitions have a leader that can be reached, or give "
                "the start more time"
            ) from exc
        self._following = asyncio.create_task(self._follow())

    async def _catch_up(self) -> None:
        clock = asyncio.get_running_loop().time
        begun = said = clock()
        while not self._is_current():
            await self._read()
            if clock() - said >= _SAY_EVERY_S:
                said = clock()
                _log.info("gate_reading", taken_s=round(said - begun), left=self._left())
        _log.info(
            "gate_started",
            topic=self._settings.verdict_topic,
            products=len(self._state),
            unreadable=self._state.unreadable,
            taken_s=round(clock() - begun, 3),
        )

    async def stop(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._reader.stop()

    async def decide(
        self,
        product: str,
        revision: Revision = None,
        *,
        timeout_s: float,
        otherwise: Decision = "review",
    ) -> Answer:
        """What to do with a revision of a product.

        While the topic cannot be read, "publish" is not taken from what was read before: what
        was written since may take it back. It waits then, as for a verdict that is late.

        Args:
            product: Its id.
            revision: The least that must have been judged; None takes any verdict.
            timeout_s: How long to wait for it, seconds.
            otherwise: The decision if it does not come: never "publish" by accident. It is
                "review" in place of "publish" where a record of the product's is no verdict.

        Raises:
            BrokerError: The topic cannot be read any more; only a new gate can.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                verdict = await self._changed.wait_for(lambda: self._found(product, revision))
        except TimeoutError:
            stale, problem = not self._is_current(), self._state.problem(product)
            more = {"problem": problem} if problem else {}
            _log.warning(
                "no_verdict_in_time", product=product, revision=revision, stale=stale, **more
            )
            return Answer("review" if problem and otherwise == "publish" else otherwise, None)
        assert verdict is not None
        return Answer(verdict["decision"], verdict)

    def _found(self, product: str, revision: Revision) -> Mapping[str, Any] | None:
        if self._following is not None and self._following.done():
            # Whatever ended it must not look like a verdict that is late.
            self._following.result()
        found = self._state.find(product, revision)
        if found is None or found["decision"] != "publish" or self._is_current():
            return found
        self._withheld = True
        return None

    def _is_current(self) -> bool:
        """Whether every partition was read to its end a short while ago."""
        # None are assigned after a metadata answer without the topic.
        return bool(self._reader.assignment()) and not self._stale()

    def _stale(self) -> list[TopicPartition]:
        """The partitions that were not read to their end a short while ago, in order."""
        now_ms = time.time() * 1000
        # In both directions: what a clock says that was put back proves nothing.
        return sorted(
            place
            for place in self._reader.assignment()
            if abs(now_ms - self._read_ms.get(place, 0)) >= _STALE_MS
        )

    def _left(self) -> list[str]:
        """What has to be read yet, in words."""
        assignment = self._reader._subscription.subscription.assignment
        words = []
        for place in self._stale():
            known = assignment.state_value(place)
            begun = known.timestamp is not None and known.has_valid_position
            at = f"at offset {known.position} of {known.lso}" if begun else "not begun"
            words.append(f"{place.topic}/{place.partition} ({at})")
        return words or [f"all of {self._settings.verdict_topic}: no partition of it is known"]

    async def _follow(self) -> None:
        try:
            while True:
                changed = await self._read()
                if changed or (self._withheld and self._is_current()):
                    self._withheld = False
                    async with self._changed:
                        self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _read(self) -> bool:
        changed = False
        try:
            fetching = self._reader._fetcher.error_future
            if fetching.done():
                # Nothing would come any more, and `getmany` would not say so.
                fetching.result()
            found = await self._reader.getmany(timeout_ms=200)
        except KafkaError as exc:
            raise BrokerError(f"the verdict topic cannot be read: {exc!r}") from exc
        for records in found.values():
            for record in records:
                changed = self._take(record) or changed
        self._note_ends()
        return changed

    def _take(self, record: Any) -> bool:
        """Take a record in; whether some product's answer may be another now."""
        headers = dict(record.headers)
        place = (record.topic, record.partition, record.offset)
        before = self._state.unreadable
        try:
            return self._state.apply(record.key, record.value, headers, place) is not None
        except DecodeError as exc:
            if before < self._state.unreadable <= _NAMED:
                _log.error("verdict_unreadable", error=exc.message, do=_REMEDY)
            # It takes an answer back, and nobody waits for that.
            return False

    def _note_ends(self) -> None:
        # Of the consumer's inside: `position` waits where there is none, as after a reset.
        assignment = self._reader._subscription.subscription.assignment
        for place in assignment.tps:
            known = assignment.state_value(place)
            fetched = known.timestamp is not None and known.has_valid_position
            # A good fetch alone is not enough: after an outage there is much to catch up on.
            if fetched and known.position >= known.lso:
                self._read_ms[place] = known.timestamp


@asynccontextmanager
async def open_gate(
    settings: KafkaSettings,
    *,
    replays: bool = False,
    start_timeout_s: float | None = _START_S,
) -> AsyncIterator[Gate]:
    """A gate that has read everything there is.

    Args:
        settings: Broker and verdict topic.
        replays: As in `GateState`.
        start_timeout_s: As in `Gate.start`.

    Raises:
        BrokerError: As of `Gate.start`.
    """
    gate = Gate(settings, GateState(replays=replays))
    await gate.start(timeout_s=start_timeout_s)
    try:
        yield gate
    finally:
        await gate.stop()
