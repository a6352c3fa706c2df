from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasError

from stream_judge import dead_letters as module
from stream_judge.dead_letters import (
    Selection,
    dead_letter,
    parse_letter,
    plan_redrive,
    redrive,
)
from stream_judge.errors import BrokerError, ConfigError, DecodeError, PublishError
from stream_judge.events import Headers
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
        self.closed = 0
        self._sender = self.client = self
        self.sender_task = None

    async def start(self) -> None:
        if self.out:
            raise KafkaConnectionError("no broker")

    async def close(self) -> None:
        self.closed += 1

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


def add(
    log: MemoryLog,
    value: bytes | None,
    key: bytes | None = b"k",
    *,
    partition: int = 0,
    headers: Headers = SHOP,
) -> None:
    letter = letter_of(value, key, headers=headers)
    log.add(
        SETTINGS.dead_letter_topic,
        key=letter.key,
        value=letter.value,
        headers=letter.headers,
        partition=partition,
    )


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
    assert producer.closed == 1


async def test_a_redrive_that_breaks_off_says_how_far_it_came(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = use(monkeypatch, Producer(2))
    for _ in range(5):
        add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    says = r"2 of 5 dead letters went, up to 0/1; .* take 0/2.* same command with --after 0/1$"
    with pytest.raises(PublishError, match=says):
        await redrive(SETTINGS, plan, on_sent=lambda _: None)
    assert producer.closed == 1


async def sent_by(monkeypatch: pytest.MonkeyPatch, selection: Selection) -> list[str]:
    """Where the letters lie that a selection sends, in order; planned, then sent."""
    use(monkeypatch, Producer(99))
    found: list[str] = []
    plan = await plan_redrive(
        SETTINGS, selection, on_found=lambda letter: found.append(letter.place)
    )
    went: list[str] = []
    assert await redrive(SETTINGS, plan, on_sent=lambda letter: went.append(letter.place)) == len(
        found
    )
    assert went == found
    return went


async def test_letters_that_are_named_go_alone_once_and_in_order(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        add(log, b"{%d" % number, partition=number % 2)
    names = [(1, 0), (0, 3), (0, 1), (1, 0)]
    assert await sent_by(monkeypatch, Selection(places=names)) == ["0/1", "0/3", "1/0"]
    rest = Selection(places=names, after=(0, 1))
    assert await sent_by(monkeypatch, rest) == ["0/3", "1/0"]


async def test_a_letter_that_is_named_and_not_there_stops_the_redrive_before_it_begins(
    log: MemoryLog,
) -> None:
    add(log, b"{0")
    with pytest.raises(ConfigError, match="no dead letter 0/1"):
        await plan_redrive(SETTINGS, Selection(places=[(0, 0), (0, 1)]))


async def test_a_redrive_goes_on_behind_the_letter_where_it_broke_off(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        add(log, b"{%d" % number, partition=number % 2)
    assert await sent_by(monkeypatch, Selection(after=(0, 2))) == [
        "0/3",
        "1/0",
        "1/1",
        "1/2",
        "1/3",
    ]
    assert await sent_by(monkeypatch, Selection(after=(1, 2))) == ["1/3"]


async def test_a_letter_that_is_gone_when_its_turn_comes_hides_not_what_went(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Producer(9))
    for number in range(2):
        add(log, b"{%d" % number)
    plan = await plan_redrive(SETTINGS, Selection(places=[(0, 0), (0, 1)]))

    def drop(_: object) -> None:
        log.topics[SETTINGS.dead_letter_topic][0].pop()

    with pytest.raises(ConfigError, match="1 of 2 .*, up to 0/0; .* no dead letter 0/1"):
        await redrive(SETTINGS, plan, on_sent=drop)


async def test_a_redrive_without_a_broker_is_one_clear_line(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Producer(0, out=True))
    add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    with pytest.raises(BrokerError, match="no broker lets us in"):
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
    with pytest.raises(BrokerError, match="0/1: not settled yet: .* ask again in about 10 s"):
        await dead_letter(SETTINGS, 0, 1)
    with pytest.raises(ConfigError, match="there is no dead letter"):
        await dead_letter(SETTINGS, 0, 2)


class Silent(Producer):
    """Neither confirms nor refuses."""

    async def send_and_wait(self, topic: str, **_: Any) -> None:
        await asyncio.Event().wait()


async def test_a_letter_that_nobody_confirms_ends_the_redrive_and_may_have_been_sent(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Silent(0)
    use(monkeypatch, producer)
    add(log, b"{bad")
    plan = await plan_redrive(SETTINGS, Selection())
    hasty = SETTINGS.model_copy(update={"request_timeout_s": 0.02})
    with pytest.raises(PublishError, match=r"0 of 1 .*: 0/0 is not confirmed: it may have been"):
        async with asyncio.timeout(10):
            await redrive(hasty, plan, on_sent=lambda _: None)
    assert producer.closed == 1
