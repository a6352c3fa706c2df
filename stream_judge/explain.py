"""What became of one source record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import TopicPartition

from stream_judge.errors import ConfigError, PublishError
from stream_judge.offsets import GroupOffsets
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import TopicReader, open_reader


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of `explain`.

    Attributes:
        state: "judged" (a verdict or tombstone was found), "dead_letter", "in_lag",
            "gone" (the source has dropped it and nothing else tells of it), "not_there"
            (the source has no record at that offset, or none yet), or "lost" (committed, but
            without an outcome: a defect, or outputs that have expired).
        detail: A sentence with what is known.
        outputs: The verdict or dead letter, as it lies on its topic.
    """

    state: str
    detail: str
    outputs: tuple[dict[str, Any], ...] = ()


def parse_place(text: str) -> tuple[str, int, int]:
    """Topic, partition and offset of "TOPIC/PARTITION/OFFSET".

    Raises:
        ConfigError: It has another form.
    """
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdigit() and offset.isdigit()):
        raise ConfigError(f"{text}: expected TOPIC/PARTITION/OFFSET, as in product-updates/3/1207")
    return topic, int(partition), int(offset)


async def explain(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Explanation:
    """Look for a source record's outcome, or for the record itself.

    Raises:
        ConfigError: It is not a record of the source topic.
        PublishError: No broker answers, or it refuses.
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
        if committed <= offset < first:
            return Explanation(
                "gone",
                f"the log begins at offset {first}, the group stands at {committed}: "
                "it was dropped before it was judged",
            )
        if offset >= committed:
            ahead = offset - max(committed, first)
            return Explanation(
                "in_lag", f"the group stands at offset {committed}; {ahead} records come first"
            )
        record = await reader.record(TopicPartition(topic, partition), offset)
        since_ms = record.timestamp if record is not None else None
        outputs = await _outputs(reader, settings, (topic, partition, offset), since_ms)
    if not outputs and record is None and offset < first:
        return Explanation("gone", f"the log begins at offset {first}; no output tells of it")
    if not outputs and record is None:
        return Explanation(
            "not_there", "that offset is a transaction's marker, or an aborted or compacted record"
        )
    if not outputs:
        return Explanation("lost", "it is committed, but no output topic tells of it any more")
    dead = any(output["topic"] == settings.dead_letter_topic for output in outputs)
    state = "dead_letter" if dead else "judged"
    return Explanation(state, f"{len(outputs)} records came of it", tuple(outputs))


async def _committed(settings: KafkaSettings, partition: tuple[str, int]) -> int:
    offsets = GroupOffsets(settings)
    await offsets.start()
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            found = (await offsets.committed()).get(partition)
    except TimeoutError as exc:
        raise PublishError(
            f"the broker did not say within {settings.request_timeout_s:.0f} s where the group "
            f"{settings.application} stands"
        ) from exc
    finally:
        await offsets.stop()
    return found.offset if found is not None else 0


async def _outputs(
    reader: TopicReader,
    settings: KafkaSettings,
    place: tuple[str, int, int],
    since_ms: int | None,
) -> list[dict[str, Any]]:
    names = ("sj-source-topic", "sj-source-partition", "sj-source-offset")
    wanted = dict(zip(names, (str(part).encode() for part in place), strict=True))
    found = []
    for topic in (settings.verdict_topic, settings.dead_letter_topic):
        # An outcome is never older than its record.
        async for record in reader.records(topic, since_ms=since_ms):
            headers = dict(record.headers)
            if all(headers.get(name) == value for name, value in wanted.items()):
                found.append(_describe(record, headers))
    return found


def _describe(record: Any, headers: dict[str, bytes]) -> dict[str, Any]:
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
