"""What became of one source record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import TopicPartition

from stream_judge.errors import BrokerError, ConfigError
from stream_judge.events import SourceRecord
from stream_judge.offsets import GroupOffsets
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import TopicReader, not_settled, open_reader, written_ends


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of `explain`.

    Attributes:
        state: "judged" (a verdict or tombstone was found), "dead_letter", "superseded" (the
            compacted verdict topic keeps that of a later update), "in_lag", "gone" (the source
            has dropped it and nothing else tells of it), "not_there" (the source has no record
            at that offset, or none yet), "unsettled" (none was found, but a transaction is open
            that an outcome may lie behind), or "lost" (committed, but without an outcome: a
            defect, or outputs that have expired).
        detail: A sentence with what is known.
        outputs: The verdict or dead letter, as it lies on its topic.
    """

    state: str
    detail: str
    outputs: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class _Traces:
    """What the output topics tell: of the record, of its product later on, and whether all."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    later: int | None = None
    held_back: bool = False


def parse_place(text: str) -> tuple[str, int, int]:
    """Topic, partition and offset of "TOPIC/PARTITION/OFFSET".

    Raises:
        ConfigError: It has another form.
    """
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"{text}: expected TOPIC/PARTITION/OFFSET, as in product-updates/3/1207")
    return topic, int(partition), int(offset)


async def explain(
    settings: KafkaSettings,
    topic: str,
    partition: int,
    offset: int,
    *,
    product_id: Callable[[SourceRecord], str | None],
) -> Explanation:
    """Look for a source record's outcome, or for the record itself.

    Args:
        settings: Broker, group, topics.
        topic: The source topic.
        partition: Of it.
        offset: Of the record.
        product_id: The product of a record, as the mapping reads it.

    Raises:
        ConfigError: It is not a record of the source topic.
        BrokerError: No broker answers, or it refuses.
    """
    if topic != settings.topic:
        raise ConfigError(f"{topic} is not the source topic {settings.topic} (kafka.topic)")
    async with open_reader(settings) as reader:
        numbers = [place.partition for place in await reader.partitions(topic)]
        if partition not in numbers:
            raise ConfigError(f"{topic} has partitions 0 to {max(numbers)}, not {partition}")
        committed = await _committed(settings, (topic, partition))
        first, last = await reader.range(TopicPartition(topic, partition))
        if offset >= last:
            return Explanation("not_there", f"the log ends before offset {last}")
        if committed is not None and offset >= committed:
            return _not_judged(offset, first, committed)
        search = _Search(
            reader,
            (settings.verdict_topic, settings.dead_letter_topic),
            (topic, partition, offset),
            # Only now: the outcome of what is committed was written before.
            await written_ends(settings, settings.verdict_topic, settings.dead_letter_topic),
        )
        record = await reader.record(TopicPartition(topic, partition), offset)
        traces = await _traces(search, record, product_id)
    if traces.outputs:
        dead = any(output["topic"] == settings.dead_letter_topic for output in traces.outputs)
        detail = f"{len(traces.outputs)} records came of it"
        return Explanation("dead_letter" if dead else "judged", detail, tuple(traces.outputs))
    return _without_outputs(settings, record, (first, offset, committed), traces)


def _not_judged(offset: int, first: int, committed: int) -> Explanation:
    """What it means that the group has not come to a record."""
    if offset < first:
        return Explanation(
            "gone",
            f"the log begins at offset {first}, the group stands at {committed}: "
            "it was dropped before it was judged",
        )
    ahead = offset - max(committed, first)
    return Explanation(
        "in_lag", f"the group stands at offset {committed}; {ahead} records come first"
    )


def _without_outputs(
    settings: KafkaSettings, record: Any, places: tuple[int, int, int | None], traces: _Traces
) -> Explanation:
    """What it means that no output tells of a record.

    Args:
        settings: Group, and how long a transaction can be open.
        record: The record; None if it is not there.
        places: Where the log begins, where the record is, what the group has committed.
        traces: What was found instead.
    """
    first, offset, committed = places
    if record is None and offset >= first:
        return Explanation(
            "not_there", "that offset is a transaction's marker, or an aborted or compacted record"
        )
    if traces.later is not None:
        return Explanation(
            "superseded",
            f"the product's verdict is that of offset {traces.later}; "
            "a compacted topic keeps no other",
        )
    if traces.held_back:
        return Explanation("unsettled", not_settled(settings))
    nothing = (
        "the group has committed nothing for this partition "
        f"(kafka.application is {settings.application})"
    )
    if committed is None and record is not None:
        return Explanation("in_lag", f"{nothing}; {offset - first} records come first")
    if record is None:
        known = "" if committed is not None else f", and {nothing}"
        return Explanation(
            "gone", f"the log begins at offset {first}; no output tells of it{known}"
        )
    return Explanation("lost", "it is committed, but no output topic tells of it any more")


async def _committed(settings: KafkaSettings, partition: tuple[str, int]) -> int | None:
    offsets = GroupOffsets(settings)
    await offsets.start()
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            found = (await offsets.committed()).get(partition)
    except TimeoutError as exc:
        raise BrokerError(
            f"the broker did not say within {settings.request_timeout_s:.0f} s where the group "
            f"{settings.application} stands"
        ) from exc
    finally:
        await offsets.stop()
    return found.offset if found is not None else None


async def _traces(
    search: _Search, record: Any, product_id: Callable[[SourceRecord], str | None]
) -> _Traces:
    """What the output topics tell of a record, which may be gone itself (None)."""
    if record is None:
        return await search.run(None, None)
    product = product_id(SourceRecord(*search.place, record.timestamp, record.key, record.value))
    # Of two clocks that agree, an outcome is never older than its record.
    traces = await search.run(product, record.timestamp)
    if not traces.outputs:
        # The source's clock may be ahead of the worker's.
        traces = await search.run(product, None)
    return traces


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for a record's outputs.

    Attributes:
        reader: Of the output topics.
        topics: The verdict topic, and that of the dead letters.
        place: Of the record.
        written: How far each partition went when the search began.
    """

    reader: TopicReader
    topics: tuple[str, str]
    place: tuple[str, int, int]
    written: Mapping[TopicPartition, int]

    async def run(self, product: str | None, since_ms: int | None) -> _Traces:
        """Read both topics; `product` is that of the record, where it is known."""
        traces = _Traces()
        for topic in self.topics:
            ends = await self.reader.ends(topic)
            traces.held_back |= any(end < self.written.get(tp, 0) for tp, end in ends.items())
            async for record in self.reader.records(topic, since_ms=since_ms, ends=ends):
                headers = dict(record.headers)
                source = _source(headers)
                if source == self.place:
                    traces.outputs.append(_describe(record, headers))
                if source is None or product is None or topic != self.topics[0]:
                    continue
                is_later = source[:2] == self.place[:2] and source[2] > self.place[2]
                if is_later and record.key == product.encode():
                    traces.later = source[2]
        return traces


def _source(headers: dict[str, bytes | None]) -> tuple[str, int, int] | None:
    """The place that an output came from; None if it is no output of a worker's."""
    names = ("sj-source-topic", "sj-source-partition", "sj-source-offset")
    topic, partition, offset = (
        (headers.get(name) or b"").decode("utf-8", "replace") for name in names
    )
    if not (partition.isdecimal() and offset.isdecimal()):
        return None
    return topic, int(partition), int(offset)


def _describe(record: Any, headers: dict[str, bytes | None]) -> dict[str, Any]:
    try:
        value = orjson.loads(record.value) if record.value is not None else None
    except orjson.JSONDecodeError:
        value = f"{len(record.value)} bytes that are no JSON"
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "headers": {
            name: text.decode("utf-8", "replace") for name, text in headers.items() if text
        },
        "value": value,
    }
