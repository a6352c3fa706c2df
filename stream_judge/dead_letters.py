"""Dead letters: finding them, and sending their original bytes back to the source topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_judge.errors import ConfigError, PublishError
from stream_judge.publisher import make_producer
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import open_reader

_ORIGIN = "__streams.errors."
_OURS = "sj-"


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
    headers: tuple[tuple[str, bytes], ...]
    about: dict[str, str]

    @property
    def code(self) -> str:
        """The error's code."""
        return self.about.get("sj-code", "")

    @property
    def whole(self) -> bool:
        """Whether key, value and headers are all here; too large a letter leaves some out."""
        return not any(name.endswith("-omitted") for name in self.about)


def parse_letter(record: Any) -> DeadLetter:
    """The dead letter that a record of the dead-letter topic is."""
    own, about = [], {}
    for name, content in record.headers:
        if name.startswith((_ORIGIN, _OURS)):
            about[name] = (content or b"").decode("utf-8", "replace")
        else:
            own.append((name, content))
    # Kafka clients refuse a record with neither; ours has an empty value then.
    value = None if about.get("sj-null") else record.value
    return DeadLetter(
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        value,
        tuple(own),
        about,
    )


async def dead_letters(
    settings: KafkaSettings,
    *,
    codes: Sequence[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> AsyncIterator[DeadLetter]:
    """The dead letters that are there now, of these codes and this time.

    Raises:
        ConfigError: There is no dead-letter topic.
        PublishError: No broker answers.
    """
    async with open_reader(settings) as reader:
        async for record in reader.records(settings.dead_letter_topic, since_ms=since_ms):
            letter = parse_letter(record)
            if codes and letter.code not in codes:
                continue
            if until_ms is None or letter.timestamp_ms < until_ms:
                yield letter


async def redrive(
    settings: KafkaSettings,
    letters: Sequence[DeadLetter],
    *,
    on_sent: Callable[[DeadLetter], None],
) -> None:
    """Send the original bytes back to the end of the source topic, in order.

    Each gets the header `sj-redriven`: the place on the dead-letter topic it came from.

    Raises:
        ConfigError: A letter is not whole, or cannot be sent; nothing was.
        PublishError: The broker did not confirm; those before it were sent.
    """
    for letter in letters:
        problem = None if letter.whole else "was too large to keep whole"
        if letter.key is None and letter.value is None:
            problem = "has neither key nor value, which no Kafka client sends"
        if problem is not None:
            raise ConfigError(
                f"dead letter {letter.partition}/{letter.offset} {problem}; send the record again "
                "from where it came, or leave it out by --code, --since or --until"
            )
    producer = make_producer(settings, enable_idempotence=True)
    await producer.start()
    try:
        for letter in letters:
            place = f"{settings.dead_letter_topic}/{letter.partition}/{letter.offset}"
            headers = [*letter.headers, ("sj-redriven", place.encode())]
            await producer.send_and_wait(
                settings.topic, key=letter.key, value=letter.value, headers=headers
            )
            on_sent(letter)
    except Exception as exc:
        raise PublishError(f"the source topic did not take {place}: {exc!r}") from exc
    finally:
        await producer.stop()
