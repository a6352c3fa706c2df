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
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import orjson
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_judge.connection import client_options, connect
from stream_judge.errors import DecodeError, PublishError
from stream_judge.settings import KafkaSettings

_log = structlog.get_logger(__name__)
Decision = Literal["publish", "review", "block"]
Revision = int | str | None
_REQUEST_MS = 10_000
# Until partitions that were added are read.
_METADATA_MS = 60_000
# Of a fetch that reached a partition's end: idle ones get there twice a second, and a leader that
# is elected anew takes less. aiokafka itself only logs a fetch that fails.
_STALE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest word on one product.

    Attributes:
        revision: Of the update that was judged; None where updates have none.
        partition: Source partition of that update.
        offset: Its offset there.
        verdict: The verdict; None for a product that is gone.
        highest: The highest revision that was judged so far: a verdict that names none, as
            that of an update which could not be read, does not let an earlier one return.
    """

    revision: Revision
    partition: int
    offset: int
    verdict: Mapping[str, Any] | None
    highest: Revision = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gate says of a product.

    Attributes:
        decision: "publish", "review" or "block".
        verdict: What it rests on; None where no verdict came in time.
    """

    decision: Decision
    verdict: Mapping[str, Any] | None


class GateState:
    """The newest verdict of every product; pure bookkeeping.

    Args:
        replays: Whether verdicts of replays count, too.
    """

    def __init__(self, *, replays: bool = False) -> None:
        self._replays = replays
        self._kept: dict[str, Kept] = {}

    def __len__(self) -> int:
        return sum(kept.verdict is not None for kept in self._kept.values())

    def apply(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes | None]
    ) -> str | None:
        """Take in a record of the verdict topic.

        Args:
            key: The product's id, UTF-8.
            value: The verdict, or None: the product is gone.
            headers: By name.

        Returns:
            The product whose newest verdict changed; None if nothing did.

        Raises:
            DecodeError: It is no verdict of stream_judge's.
        """
        if key is None or ("sj-replay" in headers and not self._replays):
            return None
        product = key.decode("utf-8", "replace")
        new = _read(product, value, headers)
        old = self._kept.get(product)
        if old is not None:
            if not _is_newer(new, old):
                return None
            if new.verdict is not None and new.revision is None:
                new = replace(new, highest=old.highest)
        self._kept[product] = new
        return product

    def find(self, product: str, revision: Revision = None) -> Mapping[str, Any] | None:
        """The verdict that holds for a revision of a product; None if there is none yet.

        A verdict of a later revision holds for an earlier one: that one is history. One of
        an earlier revision says nothing about a later one. Where the two cannot be compared,
        as with the verdict on an update that could not be read, it may hold a product back
        and never let it through: nobody knows whether that revision was judged.
        """
        kept = self._kept.get(product)
        if kept is None or kept.verdict is None or revision is None:
            return kept.verdict if kept is not None else None
        if not _comparable(kept.revision, revision):
            return kept.verdict if kept.verdict["decision"] != "publish" else None
        return kept.verdict if kept.revision >= revision else None  # type: ignore[operator]  # comparable


def _read(product: str, value: bytes | None, headers: Mapping[str, bytes | None]) -> Kept:
    """A record of the verdict topic."""
    try:
        verdict = orjson.loads(value) if value is not None else None
        revision = verdict["revision"] if verdict is not None else None
        if verdict is not None and verdict["decision"] not in get_args(Decision):
            raise ValueError(f"decision {verdict['decision']}")
        partition = int(headers.get("sj-source-partition") or -1)
        offset = int(headers.get("sj-source-offset") or -1)
    except (ValueError, KeyError, TypeError) as exc:
        raise DecodeError(f"a record of product {product} is no verdict: {exc!r}") from exc
    return Kept(revision, partition, offset, verdict, highest=revision)


def _comparable(one: Revision, other: Revision) -> bool:
    return one is not None and type(one) is type(other)


def _is_newer(new: Kept, old: Kept) -> bool:
    """Whether a record is the later word on its product.

    Revisions decide where both have one; an equal one judged again replaces the first. Else
    the source's order does, which is the product's own as long as it stays in one partition.
    """
    if _comparable(new.revision, old.highest) and new.revision != old.highest:
        return new.revision > old.highest  # type: ignore[operator]  # comparable
    return new.partition != old.partition or new.offset >= old.offset


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

    async def start(self) -> None:
        """Read the topic to its present end, then follow it.

        Raises:
            PublishError: No broker lets it in, or the verdict topic is not there or not readable.
            DecodeError: A record on it is no verdict.
        """
        topic = self._settings.verdict_topic
        self._reader = AIOKafkaConsumer(
            # Subscribed, it reads partitions that are added later, too.
            topic,
            **client_options(self._settings),
            request_timeout_ms=_REQUEST_MS,
            metadata_max_age_ms=_METADATA_MS,
            # No group: every gate reads all of it, at every start. Compaction keeps it short.
            group_id=None,
            # Without this it would see verdicts of transactions that are aborted.
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        try:
            await connect(self._reader, self._settings)
            while not self._is_current():
                await self._read()
        except BaseException:
            await self._reader.stop()
            raise
        self._following = asyncio.create_task(self._follow())

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
            otherwise: The decision if it does not come: never "publish" by accident.

        Raises:
            PublishError: The topic cannot be read any more; only a new gate can.
            DecodeError: A record on it is no verdict.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                verdict = await self._changed.wait_for(lambda: self._found(product, revision))
        except TimeoutError:
            stale = not self._is_current()
            _log.warning("no_verdict_in_time", product=product, revision=revision, stale=stale)
            return Answer(otherwise, None)
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
        now_ms = time.time() * 1000
        # None are assigned after a metadata answer without the topic.
        places = self._reader.assignment()
        # In both directions: what a clock says that was put back proves nothing.
        return bool(places) and all(
            abs(now_ms - self._read_ms.get(place, 0)) < _STALE_MS for place in places
        )

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
            raise PublishError(f"the verdict topic cannot be read: {exc!r}") from exc
        for records in found.values():
            for record in records:
                product = self._state.apply(record.key, record.value, dict(record.headers))
                changed = changed or product is not None
        self._note_ends()
        return changed

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
async def open_gate(settings: KafkaSettings, *, replays: bool = False) -> AsyncIterator[Gate]:
    """A gate that has read everything there is; `replays` as in `GateState`."""
    gate = Gate(settings, GateState(replays=replays))
    await gate.start()
    try:
        yield gate
    finally:
        await gate.stop()
