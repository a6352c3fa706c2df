from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stream_judge.outage import Circuit, Outages, Tells


class OutError(Exception):
    pass


class Server:
    """Is out, or answers; counts who comes."""

    def __init__(self) -> None:
        self.out = True
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.out:
            raise OutError
        return "here"


def make(outages: Outages, waits: list[float], each: Callable[[], None] = lambda: None) -> Circuit:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        each()
        await asyncio.sleep(0)

    return Circuit(
        "triton",
        outages,
        first_s=0.2,
        last_s=1.0,
        is_outage=lambda exc: isinstance(exc, OutError),
        sleep=sleep,
    )


async def test_an_outage_is_waited_for_and_becomes_no_error() -> None:
    server, waits, changes = Server(), [], []

    def each() -> None:
        server.out = len(waits) < 5

    outages = Outages(lambda name, out: changes.append((name, out)))
    circuit = make(outages, waits, each)
    assert await circuit.call(server.answer) == "here"
    assert changes == [("triton", True), ("triton", False)]
    assert not circuit.is_open
    assert outages.names == []


async def test_waits_double_to_the_longest_and_no_further() -> None:
    server, waits = Server(), []

    def each() -> None:
        server.out = len(waits) < 6

    await make(Outages(), waits, each).call(server.answer)
    for wait_s, most in zip(waits, (0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
        assert most / 2 <= wait_s <= most


async def test_while_it_is_open_one_caller_at_a_time_asks() -> None:
    server, waits = Server(), []
    circuit = make(Outages(), waits)
    callers = [asyncio.create_task(circuit.call(server.answer)) for _ in range(20)]
    while len(waits) < 4:
        await asyncio.sleep(0)
    # All twenty met the outage once; since then there was one probe after each wait.
    assert server.asked <= 20 + len(waits)
    server.out = False
    assert await asyncio.gather(*callers) == ["here"] * 20


async def test_other_errors_are_the_callers() -> None:
    outages = Outages()

    async def broken() -> str:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await make(outages, []).call(broken)
    assert outages.names == []


async def test_a_probe_that_fails_otherwise_has_found_the_server() -> None:
    outages, waits, answers = Outages(), [], [OutError(), ValueError("mine")]

    async def attempt() -> str:
        raise answers.pop(0)

    circuit = make(outages, waits)
    with pytest.raises(ValueError, match="mine"):
        await circuit.call(attempt)
    assert not circuit.is_open
    assert outages.names == []


async def test_a_cancelled_probe_lets_the_next_one_ask() -> None:
    server, waits = Server(), []
    circuit = make(Outages(), waits)
    first = asyncio.create_task(circuit.call(server.answer))
    second = asyncio.create_task(circuit.call(server.answer))
    while len(waits) < 2:
        await asyncio.sleep(0)
    first.cancel()
    server.out = False
    assert await second == "here"


def test_outages_are_named_once() -> None:
    changes: list[tuple[str, bool]] = []
    outages = Outages(lambda name, out: changes.append((name, out)))
    outages.begin("kafka")
    outages.begin("kafka")
    outages.begin("a")
    assert outages.names == ["a", "kafka"]
    outages.end("kafka")
    outages.end("kafka")
    assert changes == [("kafka", True), ("a", True), ("kafka", False)]


def test_a_dependency_is_out_until_its_last_part_answers() -> None:
    changes: list[tuple[str, bool]] = []
    outages = Outages(lambda name, out: changes.append((name, out)))
    outages.begin("object_store", "a.test")
    outages.begin("object_store", "b.test")
    outages.end("object_store", "a.test")
    assert outages.names == ["object_store"]
    outages.end("object_store", "b.test")
    assert changes == [("object_store", True), ("object_store", False)]


def store_circuit(
    outages: Outages, sleep: Callable[[float], Awaitable[None]], clock: list[float]
) -> Circuit:
    """A circuit on a clock of the test's own, after a minute alone no outage."""
    return Circuit(
        "object_store",
        outages,
        first_s=0.2,
        last_s=1.0,
        is_outage=lambda exc: isinstance(exc, OutError),
        alone_s=60.0,
        sleep=sleep,
        clock=lambda: clock[0],
    )


async def test_who_fails_alone_is_told_so_and_nobody_else() -> None:
    clock = [0.0]
    sound, broken = Server(), Server()
    sound.out = False

    async def sleep(seconds: float) -> None:
        clock[0] += 1.0
        await asyncio.sleep(0)

    circuit = store_circuit(outages := Outages(), sleep, clock)
    alone = asyncio.create_task(circuit.call(broken.answer))
    while not alone.done():
        assert await circuit.call(sound.answer) == "here"
    with pytest.raises(OutError):
        alone.result()
    assert 60 <= clock[0] < 90
    assert await circuit.call(sound.answer) == "here"
    assert outages.names == []


async def test_the_last_to_come_through_a_long_outage_does_not_fail_alone() -> None:
    clock = [0.0]
    server, late = Server(), Server()
    waits = 0

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        clock[0] += 60.0
        # The one server is back after five minutes, the other one failure later.
        server.out, late.out = waits < 10, waits < 14
        await asyncio.sleep(0)

    circuit = store_circuit(Outages(), sleep, clock)
    waiting = asyncio.create_task(circuit.call(late.answer))
    assert await asyncio.gather(*(circuit.call(server.answer) for _ in range(6))) == ["here"] * 6
    assert await waiting == "here"


async def test_the_only_caller_there_is_fails_alone_if_something_else_is_answered() -> None:
    clock, waits = [0.0], []
    changes: list[tuple[str, bool]] = []
    broken = Server()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += 10.0
        assert not circuit.is_open

    async def answers_else() -> bool:
        return True

    outages = Outages(lambda name, out: changes.append((name, out)))
    circuit = store_circuit(outages, sleep, clock)
    with pytest.raises(OutError):
        await circuit.call(broken.answer, answers_else)
    assert 60 <= clock[0] < 90
    for wait_s, most in zip(waits, (0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
        assert most / 2 <= wait_s <= most
    # What is waited for is known meanwhile, without a break.
    assert changes == [("object_store", True), ("object_store", False)]


async def test_who_waits_alone_leaves_nothing_behind_when_cancelled() -> None:
    outages = Outages()
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.sleep(3600)

    async def answers_else() -> bool:
        return True

    circuit = store_circuit(outages, sleep, [0.0])
    waiting = asyncio.create_task(circuit.call(Server().answer, answers_else))
    await asleep.wait()
    assert outages.names == ["object_store"]
    waiting.cancel()
    await asyncio.wait({waiting})
    assert outages.names == []


async def test_nobody_fails_alone_while_nothing_else_is_answered_either() -> None:
    clock = [0.0]
    server = Server()

    async def sleep(seconds: float) -> None:
        assert circuit.is_open
        clock[0] += 3600.0
        server.out = clock[0] < 100 * 3600.0

    async def answers_else() -> bool:
        return not server.out

    circuit = store_circuit(Outages(), sleep, clock)
    assert await circuit.call(server.answer, answers_else) == "here"


async def test_where_nobody_gets_an_answer_nobody_fails_alone() -> None:
    clock = [0.0]
    server = Server()

    async def sleep(seconds: float) -> None:
        clock[0] += 3600.0
        server.out = clock[0] < 100 * 3600.0
        await asyncio.sleep(0)

    circuit = store_circuit(Outages(), sleep, clock)
    assert await asyncio.gather(*(circuit.call(server.answer) for _ in range(9))) == ["here"] * 9


async def test_what_only_reaches_it_closes_a_circuit_and_blames_nobody() -> None:
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += 3600.0
        server.out = clock[0] < 100 * 3600.0
        await asyncio.sleep(0)

    outages, server = Outages(), Server()
    circuit = store_circuit(outages, sleep, clock)
    waiting = asyncio.create_task(circuit.call(server.answer))

    async def refused() -> str:
        raise ValueError

    while not waiting.done():
        was_open = circuit.is_open
        with circuit.caller(lambda end: Tells.REACHED) as failures, pytest.raises(ValueError):
            await circuit.repeat(failures, refused)
        assert not (was_open and circuit.is_open)
        await asyncio.sleep(0)
    assert await waiting == "here"


async def test_an_error_that_says_nothing_leaves_a_circuit_as_it_is() -> None:
    outages, waits = Outages(), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    circuit = Circuit(
        "resolver",
        outages,
        first_s=0.2,
        last_s=1.0,
        is_outage=lambda exc: isinstance(exc, OutError),
        tells=lambda end: Tells.NOTHING if isinstance(end, ValueError) else Tells.ANSWERS,
        sleep=sleep,
    )
    errors: list[Exception] = [OutError(), ValueError("elsewhere"), OutError()]

    async def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "here"

    with pytest.raises(ValueError, match="elsewhere"):
        await circuit.call(attempt)
    assert circuit.is_open
    assert outages.names == ["resolver"]
    assert await circuit.call(attempt) == "here"
    # The wait went on growing.
    assert 0.2 <= waits[2] <= 0.4
    assert outages.names == []


async def test_an_outage_that_was_met_outside_is_waited_for_before_the_next_attempt() -> None:
    server, waits = Server(), []
    server.out = False
    circuit = make(Outages(), waits)
    with circuit.caller() as failures:
        assert await circuit.repeat(failures, server.answer, failed=OutError()) == "here"
    assert len(waits) == 1
