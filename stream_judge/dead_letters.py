"""Dead letters: finding them, and sending their original bytes back to the source topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream_judge.connection import connect
from stream_judge.errors import ConfigError, PublishError
from stream_judge.publisher import make_producer, throw_away
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import not_settled, open_reader, written_ends
from stream_judge.verdict import FIRST_OF_LETTER

_REDRIVEN = "sj-redriven"
# For a producer to finish what it still can; longer than one answer takes.
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        partition: Of the dead-letter topic.
        offset: The same.
        timestamp_ms: When it was written, milliseconds since the epoch.
        key: The source record's key.
        value: The source record's value; None for a tombstone, or if it was left out.
        headers: The source record's own headers.
        about: Why it is here, and where it came from: our headers, decoded.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    about: dict[str, str]

    @property
    def code(self) -> str:
        """The error's code."""
        return self.about.get("sj-code", "")

    @property
    def whole(self) -> bool:
        """Whether key, value and headers are all here; too large a letter leaves some out."""
        return not any(name.endswith("-omitted") for name in self.about)

    @property
    def place(self) -> str:
        """partition/offset, as the list names it."""
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant.

    Attributes:
        codes: Of these codes; empty for any.
        since_ms: Not older than, milliseconds since the epoch.
        until_ms: Older than, milliseconds since the epoch.
    """

    codes: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None

    def has(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of them; `since_ms` is for who reads the topic."""
        if self.codes and letter.code not in self.codes:
            return False
        return self.until_ms is None or letter.timestamp_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class Redrive:
    """Dead letters that can go back to the source topic.

    Attributes:
        selection: Which they are.
        total: How many.
        ends: Where the dead-letter topic ended when they were counted.
    """

    selection: Selection
    total: int
    ends: Mapping[TopicPartition, int]


def parse_letter(record: Any) -> DeadLetter:
    """The dead letter that a record of the dead-letter topic is."""
    names = [name for name, _ in record.headers]
    # Ours are the last: a source record may have any headers, those of a dead letter, too.
    begin = len(names)
    if FIRST_OF_LETTER in names:
        begin -= names[::-1].index(FIRST_OF_LETTER) + 1
    about = {
        name: (content or b"").decode("utf-8", "replace")
        for name, content in record.headers[begin:]
    }
    # Kafka clients refuse a record with neither; ours has an empty value then.
    value = None if about.get("sj-null") else record.value
    return DeadLetter(
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        value,
        tuple(record.headers[:begin]),
        about,
    )


async def dead_letters(
    settings: KafkaSettings,
    selection: Selection,
    *,
    ends: Mapping[TopicPartition, int] | None = None,
) -> AsyncIterator[DeadLetter]:
    """Dead letters, partition by partition; one at a time is held.

    Args:
        settings: Broker and dead-letter topic.
        selection: Which ones.
        ends: Where the topic is to end; where it does now by default.

    Raises:
        ConfigError: There is no dead-letter topic.
        PublishError: No broker answers.
    """
    topic, since_ms = settings.dead_letter_topic, selection.since_ms
    async with open_reader(settings) as reader:
        async for record in reader.records(topic, since_ms=since_ms, ends=ends):
            letter = parse_letter(record)
            if selection.has(letter):
                yield letter


async def dead_letter(settings: KafkaSettings, partition: int, offset: int) -> DeadLetter:
    """The dead letter at a place of the dead-letter topic.

    Raises:
        ConfigError: There is none, or no dead-letter topic.
        PublishError: No broker answers, or it is behind an open transaction.
    """
    place = TopicPartition(settings.dead_letter_topic, partition)
    async with open_reader(settings) as reader:
        # Before it is looked for: it may become readable meanwhile.
        end = (await reader.ends(place.topic)).get(place)
        record = await reader.record(place, offset) if end is not None else None
    if record is None:
        written = await written_ends(settings, place.topic)
        if end is not None and end <= offset < written.get(place, 0):
            raise PublishError(f"dead letter {partition}/{offset}: {not_settled(settings)}")
        raise ConfigError(
            f"there is no dead letter {partition}/{offset}; `stream-judge dead-letters list`"
        )
    return parse_letter(record)


async def plan_redrive(settings: KafkaSettings, selection: Selection) -> Redrive:
    """Look at every dead letter that is meant before one is sent.

    Raises:
        ConfigError: A letter is not whole, or cannot be sent.
        PublishError: No broker answers.
    """
    async with open_reader(settings) as reader:
        ends = await reader.ends(settings.dead_letter_topic)
    total = 0
    async for letter in dead_letters(settings, selection, ends=ends):
        _check(letter)
        total += 1
    return Redrive(selection, total, ends)


async def redrive(
    settings: KafkaSettings, plan: Redrive, *, on_sent: Callable[[DeadLetter], None]
) -> int:
    """Send original bytes back to the end of the source topic, in order; how many went.

    Each gets the header `sj-redriven`: the place on the dead-letter topic it came from.

    Raises:
        PublishError: No broker answers, or it did not confirm a letter in time; the message says
            how many went before it.
    """
    sent, last = 0, ""
    async with _connected_producer(settings) as producer:
        try:
            async for letter in dead_letters(settings, plan.selection, ends=plan.ends):
                await _send(producer, settings, letter)
                sent, last = sent + 1, f", up to {letter.place}"
                on_sent(letter)
        except PublishError as exc:
            raise PublishError(
                f"{sent} of {plan.total} dead letters went{last}; it ended there: {exc.message}"
            ) from exc
    return sent


@asynccontextmanager
async def _connected_producer(settings: KafkaSettings) -> AsyncIterator[Any]:
    producer = make_producer(settings, enable_idempotence=True)
    await connect(producer, settings)
    try:
        yield producer
    finally:
        await throw_away(producer, _STOP_S)


def _check(letter: DeadLetter) -> None:
    problem = None if letter.whole else "was too large to keep whole"
    if letter.key is None and letter.value is None:
        problem = "has neither key nor value, which no Kafka client sends"
    if problem is not None:
        raise ConfigError(
            f"dead letter {letter.place} {problem}; send the record again "
            "from where it came, or leave it out by --code, --since or --until"
        )


async def _send(producer: Any, settings: KafkaSettings, letter: DeadLetter) -> None:
    place = f"{settings.dead_letter_topic}/{letter.place}"
    # Of a letter that comes from a redriven record, only the newest place tells anything.
    own = [(name, content) for name, content in letter.headers if name != _REDRIVEN]
    headers = [*own, (_REDRIVEN, place.encode())]
    try:
        # aiokafka's own deadline does not count while it knows a leader, also one that is dead.
        async with asyncio.timeout(settings.request_timeout_s):
            await producer.send_and_wait(
                settings.topic, key=letter.key, value=letter.value, headers=headers
            )
    except TimeoutError as exc:
        raise PublishError(
            f"{letter.place} is not confirmed: it may have been sent; the source topic did not "
            f"answer within {settings.request_timeout_s:.0f} s"
        ) from exc
    except (KafkaError, OSError) as exc:
        raise PublishError(f"the source topic did not take {letter.place}: {exc!r}") from exc
