from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from structlog.testing import capture_logs

from stream_judge import connection
from stream_judge import gate as module
from stream_judge.errors import BrokerError, DecodeError
from stream_judge.events import ProductUpdate
from stream_judge.gate import Gate, open_gate
from stream_judge.settings import KafkaSettings
from stream_judge.testing import GateState, MemoryPublisher, make_record
from stream_judge.verdict import Findings, VerdictWriter


def headers(offset: int, partition: int = 0) -> dict[str, bytes | None]:
    return {
        "sj-source-partition": str(partition).encode(),
        "sj-source-offset": str(offset).encode(),
    }


def verdict(revision: int | str | None, decision: str = "publish") -> bytes:
    return orjson.dumps({"revision": revision, "decision": decision})


def found(state: GateState, revision: Any = None) -> str | None:
    kept = state.find("p", revision)
    return kept["decision"] if kept else None


def test_the_highest_revision_holds_in_whatever_order_they_come() -> None:
    state = GateState()
    state.apply(b"p", verdict(10, "block"), headers(0))
    assert state.apply(b"p", verdict(9, "publish"), headers(1)) is None
    assert found(state) == "block"
    assert state.apply(b"p", verdict(11, "review"), headers(2)) == "p"
    assert found(state) == "review"


def test_an_equal_revision_judged_again_replaces_the_first_but_not_the_other_way() -> None:
    state = GateState()
    state.apply(b"p", verdict(3, "block"), headers(4))
    state.apply(b"p", verdict(3, "publish"), headers(8))
    state.apply(b"p", verdict(3, "block"), headers(4))
    assert found(state) == "publish"


@pytest.mark.parametrize("kinds", [(None, None), (None, 7), ("b", 3)])
def test_without_comparable_revisions_the_source_offset_decides(kinds: tuple[Any, Any]) -> None:
    state = GateState()
    state.apply(b"p", verdict(kinds[0], "block"), headers(5))
    state.apply(b"p", verdict(kinds[1], "publish"), headers(4))
    assert found(state) == "block"
    state.apply(b"p", verdict(kinds[1], "publish"), headers(6))
    assert found(state) == "publish"


def test_an_earlier_revision_says_nothing_about_a_later_one() -> None:
    state = GateState()
    state.apply(b"p", verdict(3), headers(0))
    assert found(state, 3) == "publish"
    assert found(state, 2) == "publish"
    assert found(state, 4) is None
    assert state.find("q") is None


def test_a_tombstone_removes_and_an_older_verdict_does_not_bring_back() -> None:
    state = GateState()
    state.apply(b"p", verdict(3), headers(0))
    assert state.apply(b"p", None, headers(5)) == "p"
    assert found(state) is None
    assert len(state) == 0
    state.apply(b"p", verdict(2), headers(4))
    assert found(state) is None
    state.apply(b"p", verdict(4), headers(6))
    assert found(state) == "publish"
    assert len(state) == 1


def test_replays_count_only_where_they_are_asked_for() -> None:
    replayed = {**headers(9), "sj-replay": b"backfill"}
    plain, asking = GateState(), GateState(replays=True)
    for state in (plain, asking):
        state.apply(b"p", verdict(1, "block"), headers(0))
        state.apply(b"p", verdict(2, "publish"), replayed)
    assert (found(plain), found(asking)) == ("block", "publish")


@pytest.mark.parametrize("asked", ["3", 4, "2026-11-25"])
@pytest.mark.parametrize("known", [None, "2025-01-01-v3"])
def test_a_verdict_that_cannot_be_compared_holds_back_and_never_lets_through(
    known: str | None, asked: int | str
) -> None:
    if known is not None and isinstance(asked, str):
        asked = 3
    state = GateState()
    state.apply(b"p", verdict(known, "publish"), headers(0))
    assert found(state, asked) is None
    assert found(state) == "publish"
    state.apply(b"p", verdict(known, "review"), headers(1))
    assert found(state, asked) == "review"


def test_an_update_that_could_not_be_read_does_not_let_an_earlier_revision_return() -> None:
    state = GateState()
    state.apply(b"p", verdict(5, "publish"), headers(0))
    state.apply(b"p", verdict(None, "review"), headers(1))
    assert (found(state), found(state, 6)) == ("review", "review")
    state.apply(b"p", verdict(4, "publish"), headers(2))
    assert found(state) == "review"
    state.apply(b"p", verdict(6, "publish"), headers(3))
    assert found(state, 6) == "publish"


FOREIGN = [
    b"{",
    b"[]",
    b"{}",
    b'{"revision": 1, "decision": "maybe"}',
    b'{"revision": [1], "decision": "publish"}',
]


@pytest.mark.parametrize("value", FOREIGN)
def test_a_record_that_is_no_verdict_is_an_error_that_says_where_it_lies(value: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^v/3/7: the record of product p is no verdict: "):
        GateState().apply(b"p", value, headers(0), ("v", 3, 7))


def spoil(state: GateState, partition: int = 0, product: bytes = b"p") -> None:
    with pytest.raises(DecodeError):
        state.apply(product, b"{", {}, ("v", partition, 7))


@pytest.mark.parametrize("decision", ["review", "block"])
def test_what_is_no_verdict_lets_its_product_through_no_more_and_no_other_is_touched(
    decision: str,
) -> None:
    state = GateState()
    state.apply(b"p", verdict(1), headers(0))
    state.apply(b"q", verdict(1), headers(1))
    spoil(state)
    assert (found(state), found(state, 1)) == (None, None)
    assert state.find("q") == {"revision": 1, "decision": "publish"}
    assert (state.unreadable, state.problem("q")) == (1, None)
    assert (state.problem("p") or "").startswith("v/0/7: ")
    # Of another partition: it has not taken that record's place.
    state.apply(b"p", verdict(2), headers(2), ("v", 1, 9))
    assert found(state) is None
    state.apply(b"p", verdict(3, decision), headers(3), ("v", 1, 10))
    assert found(state) == decision


@pytest.mark.parametrize("revision", [1, 3, 4])
def test_a_later_record_of_its_key_and_partition_takes_the_place_of_what_is_no_verdict(
    revision: int,
) -> None:
    state = GateState()
    state.apply(b"p", verdict(3), headers(5), ("v", 0, 6))
    spoil(state)
    assert state.apply(b"p", verdict(revision), headers(6), ("v", 0, 8)) == "p"
    assert (found(state), state.unreadable) == ("publish", 0)


def test_a_tombstone_takes_the_place_of_what_is_no_verdict() -> None:
    state = GateState()
    for partition in (0, 1):
        spoil(state, partition)
        spoil(state, partition)
    assert state.apply(b"p", None, {}, ("v", 1, 8)) == "p"
    assert (state.problem("p") or "").startswith("v/0/7: ")
    state.apply(b"p", None, {}, ("v", 0, 8))
    assert state.unreadable == 0
    state.apply(b"p", verdict(1), headers(0), ("v", 0, 9))
    assert found(state) == "publish"


async def test_a_gate_takes_in_what_a_publisher_published() -> None:
    publisher, state = MemoryPublisher(), GateState()
    record = make_record({})
    sent = VerdictWriter(source="/test", max_record_bytes=100_000).unjudgeable(
        record, Findings(update=ProductUpdate("p", 7, (), ())), "image_missing"
    )
    await publisher.publish([sent])
    for output in publisher.outcomes[0].outputs:
        state.apply(output.key, output.value, dict(output.headers))
    assert found(state, 7) == "review"


NONE: Mapping[str, bytes | None] = {}


class Reader:
    """What a gate uses of an aiokafka consumer, and the clock; fetches can fail unsaid."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.places = [TopicPartition("t", 0), TopicPartition("t", 1)]
        self.known = {
            place: SimpleNamespace(timestamp=None, has_valid_position=True, position=7, lso=7)
            for place in self.places
        }
        self.failing: set[TopicPartition] = set()
        self.coming: list[Any] = []
        self.offset = -1
        self.stopped = False
        self._fetcher = SimpleNamespace(error_future=asyncio.get_running_loop().create_future())
        self._subscription = SimpleNamespace(subscription=self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    # A method for who uses the consumer, and an object inside of it.
    @property
    def assignment(self) -> Any:
        return Assignment(self)

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.001)
        for place in set(self.places) - self.failing:
            self.known[place].timestamp = int(self.now_s * 1000)
        coming, self.coming = self.coming, []
        return {self.places[0]: coming} if coming else {}

    def send(self, revision: int, decision: str, **more: bytes) -> None:
        self.add(b"p", verdict(revision, decision), {**headers(revision), **more})

    def add(
        self, key: bytes, value: bytes | None, headers: Mapping[str, bytes | None] = NONE
    ) -> None:
        self.offset += 1
        place = {"topic": "t", "partition": 0, "offset": self.offset}
        self.coming.append(SimpleNamespace(key=key, value=value, headers=headers.items(), **place))

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps, between which the gate reads."""
        for _ in range(10):
            self.now_s += seconds / 10
            await asyncio.sleep(0.01)


class Assignment:
    def __init__(self, reader: Reader) -> None:
        self.tps = reader.places
        self.state_value = reader.known.__getitem__

    def __call__(self) -> set[TopicPartition]:
        return set(self.tps)


@pytest.fixture
async def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(connection, "AIOKafkaConsumer", lambda *_, **__: made)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: made.now_s))
    return made


@pytest.fixture
async def gate(reader: Reader) -> AsyncIterator[Gate]:
    reader.send(1, "publish")
    async with open_gate(KafkaSettings()) as made:
        yield made


async def decision(gate: Gate, timeout_s: float = 0) -> str:
    return (await gate.decide("p", timeout_s=timeout_s)).decision


async def test_an_idle_topic_that_is_read_publishes_for_ever(reader: Reader, gate: Gate) -> None:
    for _ in range(5):
        await reader.pass_time(100)
        assert await decision(gate) == "publish"


async def test_a_gate_that_cannot_read_publishes_nothing_until_it_can(
    reader: Reader, gate: Gate
) -> None:
    reader.failing = {reader.places[1]}
    await reader.pass_time(20)
    assert await decision(gate) == "publish"
    await reader.pass_time(3600)
    assert await decision(gate) == "review"
    assert (await gate.decide("p", 1, timeout_s=0)).decision == "review"
    waiting = asyncio.create_task(decision(gate, 30))
    await reader.pass_time(1)
    reader.failing = set()
    assert await waiting == "publish"


async def test_what_holds_a_product_back_does_so_while_nothing_can_be_read(
    reader: Reader, gate: Gate
) -> None:
    reader.send(2, "block")
    await reader.pass_time(1)
    reader.failing = set(reader.places)
    await reader.pass_time(3600)
    assert await decision(gate) == "block"


async def test_a_gate_with_much_to_catch_up_on_publishes_nothing_yet(
    reader: Reader, gate: Gate
) -> None:
    known = reader.known[reader.places[0]]
    known.lso += 1
    await reader.pass_time(60)
    assert await decision(gate) == "review"
    reader.send(2, "block")
    known.position += 1
    assert await decision(gate, 30) == "block"


async def test_a_clock_that_was_put_back_makes_nothing_fresh(reader: Reader, gate: Gate) -> None:
    reader.failing = set(reader.places)
    await reader.pass_time(-3600)
    assert await decision(gate) == "review"


async def test_a_gate_without_partitions_publishes_nothing(reader: Reader, gate: Gate) -> None:
    reader.places.clear()
    await asyncio.sleep(0.01)
    assert await decision(gate) == "review"


async def test_a_reader_that_died_is_no_verdict_that_is_late(reader: Reader, gate: Gate) -> None:
    reader._fetcher.error_future.set_exception(KafkaError("Unexpected error"))
    with pytest.raises(BrokerError, match="cannot be read"):
        await gate.decide("q", timeout_s=30)


async def test_a_gate_has_read_every_partition_before_it_answers(reader: Reader) -> None:
    reader.failing = {reader.places[1]}
    gate = Gate(KafkaSettings())
    starting = asyncio.create_task(gate.start())
    await asyncio.sleep(0.02)
    assert not starting.done()
    reader.failing = set()
    await starting
    await gate.stop()


async def test_a_start_that_takes_too_long_names_the_partitions_that_are_left(
    reader: Reader,
) -> None:
    reader.failing = {reader.places[1]}
    with pytest.raises(BrokerError, match=r"within 0.05 s; left are t/1 \(not begun\); see"):
        async with asyncio.timeout(10), open_gate(KafkaSettings(), start_timeout_s=0.05):
            pass
    assert reader.stopped
    known = reader.known[reader.places[0]]
    known.lso = 90
    with pytest.raises(BrokerError, match=r"left are t/0 \(at offset 7 of 90\), t/1 \(not begun"):
        async with asyncio.timeout(10):
            await Gate(KafkaSettings()).start(timeout_s=0.05)
    reader.places.clear()
    with pytest.raises(BrokerError, match="left are all of relevance-verdicts: no partition"):
        async with asyncio.timeout(10):
            await Gate(KafkaSettings()).start(timeout_s=0.05)


async def test_a_start_that_takes_long_says_what_is_left(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAY_EVERY_S", 0.01)
    reader.failing = {reader.places[1]}
    reader.add(b"q", b"{")
    gate = Gate(KafkaSettings())
    with capture_logs() as lines:
        starting = asyncio.create_task(gate.start(timeout_s=None))
        async with asyncio.timeout(10):
            while not any(line["event"] == "gate_reading" for line in lines):
                await asyncio.sleep(0.01)
        reader.failing = set()
        await starting
    await gate.stop()
    first, *middle, last = [line for line in lines if line["event"].startswith("gate_")]
    assert {line["event"] for line in (first, *middle)} == {"gate_reading"}
    assert first["left"] == ["t/1 (not begun)"]
    assert (last["event"], last["products"], last["unreadable"]) == ("gate_started", 0, 1)


async def test_a_start_that_is_given_up_stops_its_reader(reader: Reader) -> None:
    reader.failing = set(reader.places)
    starting = asyncio.create_task(Gate(KafkaSettings()).start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert reader.stopped


async def test_a_foreign_record_holds_its_product_back_and_ends_no_gate(
    reader: Reader, gate: Gate
) -> None:
    with capture_logs() as lines:
        reader.add(b"p", b"{")
        reader.add(b"p", b"{")
        reader.add(b"q", verdict(1), headers(7))
        assert (await gate.decide("q", timeout_s=30)).decision == "publish"
        answer = await gate.decide("p", timeout_s=0, otherwise="publish")
        kept = await gate.decide("p", timeout_s=0, otherwise="block")
    assert (answer.decision, answer.verdict, kept.decision) == ("review", None, "block")
    (loud,) = [line for line in lines if line["log_level"] == "error"]
    assert loud["event"] == "verdict_unreadable"
    assert loud["error"].startswith("t/0/1: the record of product p is no verdict: ")
    late = [line for line in lines if line["event"] == "no_verdict_in_time"]
    assert [line["problem"][:7] for line in late] == ["t/0/2: "] * 2


async def test_who_waits_for_a_product_that_is_held_back_is_told_when_it_is_mended(
    reader: Reader, gate: Gate
) -> None:
    reader.add(b"p", b"{")
    await reader.pass_time(1)
    waiting = asyncio.create_task(decision(gate, 30))
    await reader.pass_time(1)
    assert not waiting.done()
    reader.add(b"p", verdict(1), headers(1))
    assert await waiting == "publish"


async def test_a_topic_of_something_else_does_not_fill_the_log(
    reader: Reader, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NAMED", 3)
    with capture_logs() as lines:
        for number in range(9):
            reader.add(b"%d" % number, b"{")
        await reader.pass_time(1)
    assert len([line for line in lines if line["event"] == "verdict_unreadable"]) == 3
    assert gate.state.unreadable == 9


async def test_a_gate_is_told_at_its_opening_that_replays_count(reader: Reader) -> None:
    reader.send(1, "block", **{"sj-replay": b"backfill"})
    async with open_gate(KafkaSettings(), replays=True) as gate:
        assert await decision(gate) == "block"
