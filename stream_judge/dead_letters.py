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
from stream_judge.errors import BrokerError, ConfigError, PublishError, StreamJudgeError
from stream_judge.publisher import make_producer, throw_away
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import not_settled, open_reader, written_ends
from stream_judge.verdict import FIRST_OF_LETTER

_REDRIVEN = "sj-redriven"


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
        places: These alone, by partition and offset; empty for wherever they are.
        after: Behind this partition and offset, in the order in which they are read: partition by
            partition.
    """

    codes: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    places: Collection[tuple[int, int]] = ()
    after: tuple[int, int] | None = None

    def has(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of them; `since_ms` and `places` are for who reads the topic."""
        if self.codes and letter.code not in self.codes:
            return False
        if self.after is not None and (letter.partition, letter.offset) <= self.after:
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
        ConfigError: There is no dead-letter topic, or none of the letters at a place.
        BrokerError: No broker answers.
    """
    found = _named(settings, selection) if selection.places else _all(settings, selection, ends)
    async for letter in found:
        if selection.has(letter):
            yield letter


async def _named(settings: KafkaSettings, selection: Selection) -> AsyncIterator[DeadLetter]:
    for place in sorted(set(selection.places)):
        yield await dead_letter(settings, *place)


async def _all(
    settings: KafkaSettings, selection: Selection, ends: Mapping[TopicPartition, int] | None
) -> AsyncIterator[DeadLetter]:
    async with open_reader(settings) as reader:
        async for record in reader.records(
            settings.dead_letter_topic, since_ms=selection.since_ms, ends=ends
        ):
            yield parse_letter(record)


async def dead_letter(settings: KafkaSettings, partition: int, offset: int) -> DeadLetter:
    """The dead letter at a place of the dead-letter topic.

    Raises:
        ConfigError: There is none, or no dead-letter topic.
        BrokerError: No broker answers, or it is behind an open transaction.
    """
    place = TopicPartition(settings.dead_letter_topic, partition)
    async with open_reader(settings) as reader:
        # Before it is looked for: it may become readable meanwhile.
        end = (await reader.ends(place.topic)).get(place)
        record = await reader.record(place, offset) if end is not None else None
    if record is None:
        written = await written_ends(settings, place.topic)
        if end is not None and end <= offset < written.get(place, 0):
            raise BrokerError(f"dead letter {partition}/{offset}: {not_settled(settings)}")
        raise ConfigError(
            f"there is no dead letter {partition}/{offset}; `stream-judge dead-letters list`"
        )
    return parse_letter(record)


async def plan_redrive(
    settings: KafkaSettings,
    selection: Selection,
    *,
    on_found: Callable[[DeadLetter], None] = lambda _: None,
) -> Redrive:
    """Look at every dead letter that is meant before one is sent.

    Args:
        settings: Broker, source topic, dead-letter topic.
        selection: Which ones.
        on_found: Told of each that can go.

    Raises:
        ConfigError: A letter is not there or not whole, or cannot be sent.
        BrokerError: No broker answers.
    """
    async with open_reader(settings) as reader:
        ends = await reader.ends(settings.dead_letter_topic)
    total = 0
    async for letter in dead_letters(settings, selection, ends=ends):
        _check(letter)
        on_found(letter)
        total += 1
    return Redrive(selection, total, ends)


async def redrive(
    settings: KafkaSettings, plan: Redrive, *, on_sent: Callable[[DeadLetter], None]
) -> int:
    """Send original bytes back to the end of the source topic, in order; how many went.

    Each gets the header `sj-redriven`: the place on the dead-letter topic it came from.

    Raises:
        BrokerError: No broker answers. This message, too, says how many went.
        PublishError: The broker did not confirm a letter in time; the message says how many went
            before it.
        ConfigError: A letter that was named has gone since it was looked for.
    """
    sent, last, again = 0, "", " again"
    async with _connected_producer(settings) as producer:
        try:
            async for letter in dead_letters(settings, plan.selection, ends=plan.ends):
                await _send(producer, settings, letter)
                sent, last = sent + 1, f", up to {letter.place}"
                again = f" with --after {letter.place}"
                on_sent(letter)
        except StreamJudgeError as exc:
            raise type(exc)(
                f"{sent} of {plan.total} dead letters went{last}; it ended there: {exc.message}; "
                f"once that is mended, give the same command{again}"
            ) from exc
    return sent


@asynccontextmanager
async def _connected_producer(settings: KafkaSettings) -> AsyncIterator[Any]:
    producer = make_producer(settings, enable_idempotence=True)
    await connect(producer, settings)
    try:
        yield producer
    finally:
        await throw_away(producer)


def _check(letter: DeadLetter) -> None:
    problem = None if letter.whole else "was too large to keep whole"
    if letter.key is None and letter.value is None:
        problem = "has neither key nor value, which no Kafka client sends"
    if problem is not None:
        raise ConfigError(
            f"dead letter {letter.place} {problem}; send the record again from where it came, and "
            "leave the letter out by naming the others, or by --code, --since, --until or --after"
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
