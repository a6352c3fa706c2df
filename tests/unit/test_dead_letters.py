from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasError

from stream_judge import dead_letters as module
from stream_judge.commands import letters
from stream_judge.commands.letters import milliseconds
from stream_judge.dead_letters import (
    DeadLetter,
    Selection,
    dead_letter,
    parse_letter,
    plan_redrive,
    redrive,
)
from stream_judge.errors import ConfigError, DecodeError, PublishError
from stream_judge.events import Headers
from stream_judge.explain import parse_place
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.verdict import VerdictWriter
from tests.unit.memory_log import MemoryLog

SETTINGS = KafkaSettings()
SHOP: Headers = (("shop", b"north"),)


def letter_of(
    value: bytes | None, key: bytes | None, *, headers: Headers = SHOP
) -> SimpleNamespace:
    writer = VerdictWriter(source="/test", max_record_bytes=32_000)
    record = make_record(value, key=key, headers=headers)
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


def test_headers_of_the_record_are_never_taken_for_ours() -> None:
    # As of a dead letter that another job copied back whole.
    own = (
        ("__streams.errors.exception", b"Theirs"),
        ("__streams.errors.message", b"theirs"),
        ("sj-null", b"1"),
        ("sj-value-omitted", b"1"),
        ("h", None),
    )
    letter = parse_letter(letter_of(b"{bad", b"k", headers=own))
    assert (letter.value, letter.headers, letter.whole) == (b"{bad", own, True)
    assert letter.about["__streams.errors.exception"] == "DecodeError"


def test_a_record_that_is_no_letter_of_ours_keeps_its_headers() -> None:
    record = SimpleNamespace(
        partition=0, offset=5, timestamp=9, key=b"k", value=b"v", headers=(("sj-null", b"1"),)
    )
    letter = parse_letter(record)
    assert (letter.value, letter.headers, letter.about) == (b"v", (("sj-null", b"1"),), {})


class Producer:
    """Takes `room` records, and no more."""

    _txn_manager = None

    def __init__(self, room: int, *, out: bool = False) -> None:
        self.room = room
        self.out = out
        self.sent: list[tuple[bytes | None, bytes | None, list[Any]]] = []
        self.stopped = False

    async def start(self) -> None:
        if self.out:
            raise KafkaConnectionError("no broker")

    async def stop(self) -> None:
        self.stopped = True

    async def send_and_wait(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: list[Any]
    ) -> None:
        assert topic == SETTINGS.topic
        if len(self.sent) == self.room:
            raise NotEnoughReplicasError
        self.sent.append((key, value, headers))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    made = MemoryLog()
    made.install(monkeypatch)
    return made


def add(log: MemoryLog, value: bytes | None, key: bytes | None = b"k", **more: Any) -> None:
    letter = letter_of(value, key, **more)
    log.add(SETTINGS.dead_letter_topic, key=letter.key, value=letter.value, headers=letter.headers)


def use(monkeypatch: pytest.MonkeyPatch, producer: Producer) -> Producer:
    monkeypatch.setattr(module, "make_producer", lambda *_, **__: producer)
    return producer


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [(b"x" * 50_000, b"k", "0/1 was too large"), (None, None, "neither key nor value")],
)
async def test_what_cannot_go_back_stops_the_redrive_before_it_begins(
    log: MemoryLog, value: bytes | None, key: bytes | None, says: str
) -> None:
    add(log, b"{bad")
    add(log, value, key)
    with pytest.raises(ConfigError, match=says):
        await plan_redrive(SETTINGS, Selection())


async def test_a_redrive_sends_what_was_counted_and_nothing_newer(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = use(monkeypatch, Producer(9))
    add(log, b"{1", headers=(("sj-redriven", b"earlier"), ("sj-null", b"1")))
    add(log, b"{2")
    plan = await plan_redrive(SETTINGS, Selection(codes=["bad_event"]))
    add(log, b"{3")
    places: list[str] = []
    assert await redrive(SETTINGS, plan, on_sent=lambda letter: places.append(letter.place)) == 2
    assert places == ["0/0", "0/1"]
    topic = SETTINGS.dead_letter_topic
    assert producer.sent == [
        (b"k", b"{1", [("sj-null", b"1"), ("sj-redriven", f"{topic}/0/0".encode())]),
        (b"k", b"{2", [("shop", b"north"), ("sj-redriven", f"{topic}/0/1".encode())]),
    ]
    assert producer.stopped


async def test_a_redrive_that_breaks_off_says_how_far_it_came(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = use(monkeypatch, Producer(2))
    for _ in range(5):
        add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    with pytest.raises(PublishError, match=r"2 of 5 dead letters went, up to 0/1; .* take 0/2"):
        await redrive(SETTINGS, plan, on_sent=lambda _: None)
    assert producer.stopped


async def test_a_redrive_without_a_broker_is_one_clear_line(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Producer(0, out=True))
    add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    with pytest.raises(PublishError, match="no broker lets us in"):
        await redrive(SETTINGS, plan, on_sent=lambda _: None)


async def test_one_letter_is_shown_without_reading_the_others(log: MemoryLog) -> None:
    for number in range(20):
        add(log, b"{%d" % number)
    assert (await dead_letter(SETTINGS, 0, 17)).value == b"{17"
    assert log.given_out <= 2
    for place in ((0, 20), (7, 0)):
        with pytest.raises(ConfigError, match="there is no dead letter"):
            await dead_letter(SETTINGS, *place)


async def test_a_letter_behind_an_open_transaction_is_not_denied(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(log, b"{0")
    add(log, b"{1")
    log.hold_back(monkeypatch, SETTINGS.dead_letter_topic)
    assert (await dead_letter(SETTINGS, 0, 0)).value == b"{0"
    with pytest.raises(PublishError, match="0/1: not settled yet: .* ask again in about 10 s"):
        await dead_letter(SETTINGS, 0, 1)
    with pytest.raises(ConfigError, match="there is no dead letter"):
        await dead_letter(SETTINGS, 0, 2)


class Silent(Producer):
    """Neither confirms nor refuses, and waits for what it has not confirmed when it stops."""

    def __init__(self) -> None:
        super().__init__(0)
        self._sender = self.client = self
        self.closed = 0

    async def send_and_wait(self, topic: str, **_: Any) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed += 1


async def test_a_letter_that_nobody_confirms_ends_the_redrive_and_may_have_been_sent(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STOP_S", 0.02)
    producer = Silent()
    use(monkeypatch, producer)
    add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    hasty = SETTINGS.model_copy(update={"request_timeout_s": 0.02})
    with pytest.raises(PublishError, match=r"0 of 1 .*: 0/0 is not confirmed: it may have been"):
        async with asyncio.timeout(10):
            await redrive(hasty, plan, on_sent=lambda _: None)
    assert producer.closed == 2


def test_what_is_no_place_of_a_letter_is_said() -> None:
    with pytest.raises(ConfigError, match="abc: expected PARTITION/OFFSET"):
        letters.show("abc")


class Value(bytes):
    """Counts how many of it there are at once."""

    alive = most = 0

    def __init__(self, _: bytes) -> None:
        Value.alive += 1
        Value.most = max(Value.most, Value.alive)

    def __del__(self) -> None:
        Value.alive -= 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_list_keeps_no_letter(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def many(*_: Any, **__: Any) -> AsyncIterator[DeadLetter]:
        for offset in range(50):
            yield DeadLetter(0, offset, 9, b"k", Value(b"{bad"), (), {})

    monkeypatch.setattr(letters, "dead_letters", many)
    Value.most = Value.alive
    letters.list_(as_json=as_json)
    assert Value.most - Value.alive <= 2
    assert "0/49" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    "text", ["product-updates", "a/b/1", "a/1", "/1/2", "a/1/-2", "a/1/\u00b2", "a/\u2460/2"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="TOPIC/PARTITION/OFFSET"):
        parse_place(text)
