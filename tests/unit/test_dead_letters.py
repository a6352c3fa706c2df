from __future__ import annotations

from types import SimpleNamespace

import pytest

from stream_judge.commands.letters import milliseconds
from stream_judge.dead_letters import parse_letter, redrive
from stream_judge.errors import ConfigError, DecodeError
from stream_judge.explain import parse_place
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.verdict import VerdictWriter


def letter_of(value: bytes | None, key: bytes | None, max_bytes: int = 32_000) -> SimpleNamespace:
    writer = VerdictWriter(source="/test", max_record_bytes=max_bytes)
    record = make_record(value, key=key, headers=(("shop", b"north"),))
    outcome = writer.dead_letter(
        record, DecodeError("no"), stage="decode", attempts=1, product_id=None
    )
    (out,) = outcome.outputs
    return SimpleNamespace(
        partition=0, offset=5, timestamp=9, key=out.key, value=out.value, headers=out.headers
    )


def test_a_letter_gives_back_what_came() -> None:
    letter = parse_letter(letter_of(b"{bad", b"k"))
    assert (letter.key, letter.value, letter.headers) == (b"k", b"{bad", (("shop", b"north"),))
    assert (letter.code, letter.whole) == ("bad_event", True)


def test_a_record_with_neither_key_nor_value_is_one_again() -> None:
    letter = parse_letter(letter_of(None, None))
    assert (letter.key, letter.value, letter.whole) == (None, None, True)


def test_what_was_too_large_is_not_whole() -> None:
    letter = parse_letter(letter_of(b"x" * 50_000, b"k"))
    assert (letter.value, letter.whole) == (None, False)


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [(b"x" * 50_000, b"k", "too large"), (None, None, "neither key nor value")],
)
async def test_what_cannot_go_back_stops_the_redrive_before_it_begins(
    value: bytes | None, key: bytes | None, says: str
) -> None:
    letters = [parse_letter(letter_of(b"{bad", b"k")), parse_letter(letter_of(value, key))]
    with pytest.raises(ConfigError, match=says):
        await redrive(KafkaSettings(), letters, on_sent=lambda _: pytest.fail("sent"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("1970-01-02", 86_400_000),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str | None, expected: int | None) -> None:
    assert milliseconds(text) == expected


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="yesterday"):
        milliseconds("yesterday")


def test_a_place_is_read() -> None:
    assert parse_place("product-updates/3/1207") == ("product-updates", 3, 1207)


@pytest.mark.parametrize("text", ["product-updates", "a/b/1", "a/1", "/1/2", "a/1/-2"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="TOPIC/PARTITION/OFFSET"):
        parse_place(text)
