"""The suite's own parts, without a broker: what it counts, and whose requests it touches."""

from __future__ import annotations

import logging
import struct
from typing import Any, cast

import pytest
import structlog

from stream_judge.logs import set_up_logs
from stream_judge.settings import LogSettings
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.crew import StormWorker
from tests.kafka.chaos.load import MIXED, LoadGenerator, LoadPlan, event
from tests.kafka.chaos.proxy import END_TXN, PRODUCE, Rule
from tests.kafka.chaos.storm import HoldingTriton
from tests.kafka.chaos.watch import Watch


def request(api: int, names: bytes) -> bytes:
    return struct.pack(">ihhi", 100, api, 3, 7) + names


def watch() -> Watch:
    return Watch(cast(StormCluster, None), cast(Any, None))


def test_a_rule_is_for_the_requests_of_its_own_storm() -> None:
    rule = Rule(END_TXN, "refuse", 2, b"a1b2c3d4")
    mine = request(END_TXN, b"\x00\x1cstorm-a1b2c3d4-updates-a1b2c3d4-0")
    assert rule.fits(END_TXN, mine)
    assert not rule.fits(END_TXN, request(END_TXN, b"\x00\x1cstorm-ffffffff-updates-ffffffff-0"))
    assert not rule.fits(PRODUCE, mine)
    rule.hits = 2
    assert not rule.fits(END_TXN, mine)


def test_an_offset_that_is_turned_back_is_counted_once() -> None:
    seen = watch()
    for committed in ({0: 4}, {0: 60, 1: 7}, {0: 41, 1: 7}, {0: 41, 1: 8}, {0: 60, 1: 8}):
        seen.note(committed)
    assert seen.turned_back == 1
    assert seen.done == 68


def test_offsets_that_cannot_be_read_for_a_while_are_not_turned_back() -> None:
    seen = watch()
    for committed in ({0: 4, 1: 2}, {}, {0: 4}, {0: 5, 1: 2}):
        seen.note(committed)
    assert seen.turned_back == 0


def test_a_worker_has_the_partitions_that_it_logged_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level, logging.root.manager.disable
    try:
        set_up_logs(LogSettings())
        log = structlog.get_logger("chaos")
        log.info("partitions_assigned", partitions=4, generation=1)
        log.info("partitions_assigned", partitions=2, generation=2)
        log.error("worker_fatal", exception="in on_partitions_assigned")
    finally:
        structlog.reset_defaults()
        root.handlers, level, disabled = before
        root.setLevel(level)
        logging.disable(disabled)
    worker = StormWorker(1, cast(Any, None), capsys.readouterr().err.splitlines(), {})
    assert (len(worker.lines), worker.partitions) == (3, 2)
    assert StormWorker(2, cast(Any, None), [], {}).partitions == 0


def test_a_tombstone_is_expected_as_one() -> None:
    plan = LoadPlan(records=400, poison=MIXED, poison_share=0.5)
    made = LoadGenerator(cast(Any, None), plan, 4, 1).updates()
    expected = {(u.value is None and u.key is not None, u.expect) for u in made}
    assert (True, "tombstone") in expected
    assert {expect for tombstone, expect in expected if tombstone} == {"tombstone"}


async def test_a_stub_that_holds_listings_answers_the_workers_own_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stream_judge import rows
    from stream_judge.testing_triton import StubTriton

    class Request:
        def __init__(self, text: bytes) -> None:
            self.raw_input_contents = [bytes(192), text]

    async def answer(self: StubTriton, request: Any) -> Any:
        return "answered"

    async def release(_: float) -> None:
        released.append(True)
        stub.holds = False

    monkeypatch.setattr(StubTriton, "infer", answer)
    monkeypatch.setattr("tests.kafka.chaos.storm.asyncio.sleep", release)
    released: list[bool] = []
    stub = HoldingTriton()
    stub.holds = True
    assert await stub.infer(Request(rows._PROBE_TEXT.encode())) == "answered"
    assert not released
    assert await stub.infer(Request(event(b"p-1", 7, ""))) == "answered"
    assert released == [True]
