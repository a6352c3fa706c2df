"""The suite's own parts, without a broker: what it counts, and whose requests it touches."""

from __future__ import annotations

import logging
import signal
import struct
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import structlog
from aiokafka.errors import UnknownTopicOrPartitionError

from stream_judge.logs import set_up_logs
from stream_judge.settings import KafkaSettings, LogSettings
from tests.kafka.chaos import logs
from tests.kafka.chaos.__main__ import _key, _options, _run
from tests.kafka.chaos.checker import EXPECTED, Findings
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.crew import StormWorker
from tests.kafka.chaos.endings import unexplained
from tests.kafka.chaos.fault import FAULTS
from tests.kafka.chaos.load import MIXED, LoadGenerator, LoadPlan, event
from tests.kafka.chaos.proxy import END_TXN, PRODUCE, Rule
from tests.kafka.chaos.storm import HoldingTriton, Result, Storm, StormOptions
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


def ended(code: int, *lines: str, sent: tuple[int, ...] = ()) -> StormWorker:
    """A worker that has ended, with what it logged and the signals that the suite sent."""
    worker = StormWorker(1, cast(Any, SimpleNamespace(exit_code=code)), list(lines), {})
    worker.signals |= set(sent)
    return worker


ASSIGNED = '{"partitions": 2, "generation": 1, "event": "partitions_assigned"}'
FATAL = '{"error": "AssertionError()", "event": "worker_fatal"}'


@pytest.mark.parametrize(
    "worker",
    [
        ended(0),
        ended(-signal.SIGKILL, ASSIGNED, sent=(signal.SIGKILL,)),
        ended(-signal.SIGKILL, "accident kill at sent"),
        ended(-signal.SIGTERM, sent=(signal.SIGTERM,)),
        ended(75, '{"error": "Denied()", "event": "worker_fatal"}'),
    ],
)
def test_an_end_that_the_fault_explains_is_sound(worker: StormWorker) -> None:
    assert unexplained([worker], {75: "Denied"}) == []


@pytest.mark.parametrize(
    "worker",
    [
        ended(70, FATAL),
        ended(75, FATAL),
        ended(1),
        ended(-signal.SIGKILL, ASSIGNED, sent=(signal.SIGTERM,)),
        ended(-signal.SIGTERM, ASSIGNED, sent=(signal.SIGTERM,)),
        ended(-signal.SIGTERM),
        ended(-signal.SIGSEGV),
    ],
)
def test_an_end_that_nothing_explains_is_named(worker: StormWorker) -> None:
    (told,) = unexplained([ended(0), worker], {75: "Denied"})
    assert f"ended with {worker.process.exit_code}: " in told
    assert ("AssertionError()" in told) == (FATAL in worker.lines)


@pytest.mark.parametrize(
    ("over", "commits", "says"),
    [
        ([], [10.0], ""),
        ([20.0], [10.0, 49.9], ""),
        ([20.0], [10.0, 50.1], "recovery after 30.1 s, not within 30 s"),
        ([20.0, 60.0], [10.0, 55.0, 61.0], "recovery after 35.0 s, not within 30 s"),
        ([20.0], [10.0], "no recovery: nothing was left to be committed when the fault ended"),
    ],
    ids=["no fault", "in time", "late", "the first of two late", "nothing left"],
)
def test_a_recovery_has_to_come_in_time(over: list[float], commits: list[float], says: str) -> None:
    seen = watch()
    seen._progress = [(at, done) for done, at in enumerate(commits, 1)]
    seen._over = over
    assert seen.lateness(30.0) == says


def test_a_storm_with_a_problem_is_not_sound() -> None:
    result = Result("calm", StormOptions(), Findings(), 0, None, 0.0, 1.0)
    assert result.as_dict()["sound"] is True
    result.problems.append("worker 1 ended with 70: AssertionError()")
    assert not result.sound
    assert result.as_dict()["sound"] is False


async def test_a_fault_that_no_worker_has_met_fails_its_storm() -> None:
    cluster = cast(StormCluster, SimpleNamespace(bootstrap="127.0.0.1:1"))
    storm = Storm(cluster, StormOptions(), LoadPlan(records=1))
    worker = ended(0, "triton_timeout")
    storm.crew.workers.append(worker)
    with pytest.raises(AssertionError, match="no worker has met the fault"):
        async with storm.fault("triton_timeout"):
            pass
    async with storm.fault("triton_timeout"):
        worker.lines.append("triton_timeout")


def given(results: Path) -> Namespace:
    return Namespace(
        all=True,
        seeds=1,
        records=600,
        publisher="transactional",
        partitions=4,
        jobs=1,
        results=results,
        json=True,
        log=None,
    )


@pytest.mark.parametrize(
    ("row", "code"),
    [({"sound": True}, 0), ({"sound": False}, 1), ({}, 1)],
    ids=["sound", "broken", "of an older suite"],
)
async def test_a_resumed_run_fails_for_what_was_recorded_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, bool], code: int
) -> None:
    results = tmp_path / "chaos.jsonl"
    names = ("fault", "seed", "records", "publisher", "partitions")
    rows = [
        dict(zip(names, _key(fault, _options(fault, given(results), 0)), strict=True))
        | ({"sound": True} if fault.name != "kill" else row)
        for fault in FAULTS.values()
    ]
    # Of a seed that this run does not ask for.
    rows.append(rows[0] | {"seed": 7, "sound": False})
    results.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    assert await _run(given(results)) == code
    assert ("BROKEN kill seed 0" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize("name", ["seller_host_stalls", "seller_names_dead"])
def test_one_picture_in_twenty_is_struck_and_all_others_have_to_be_judged(name: str) -> None:
    made = LoadGenerator(cast(Any, None), FAULTS[name].load(400, 80), 4, 1).updates()
    sound = [(b"pictures.shop.test" in (u.value or b""), u.expect) for u in made]
    assert 10 < sound.count((False, "unjudgeable")) <= 20
    assert sound.count((True, "verdict")) > 300
    assert {expect for fine, expect in sound if fine} == {"verdict"}


def test_a_load_says_what_poison_it_has() -> None:
    load = LoadGenerator(cast(Any, None), LoadPlan(400, poison=MIXED, poison_share=0.5), 4, 1)
    made = load.updates()
    assert set(load.poison) == {maker.__name__ for maker in MIXED}
    assert {update.expect for update in made} <= EXPECTED.keys()


def test_shuffled_revisions_are_not_in_order() -> None:
    plan = LoadPlan(records=100, shuffled=True)
    made = LoadGenerator(cast(Any, None), plan, 4, 1).updates()
    revisions = [orjson.loads(update.value or b"{}")["revision"] for update in made]
    assert sorted(revisions) == list(range(100)) != revisions


class Waking:
    """A reader on a broker that does not name all partitions yet."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = set(numbers)
        self._client = self

    async def add_topic(self, topic: str) -> None: ...

    def get_random_node(self) -> int:
        return 1

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self.numbers

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.mark.parametrize("numbers", [(), (0, 2)])
async def test_partitions_that_a_waking_broker_does_not_name_are_not_empty(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(logs, "AIOKafkaConsumer", lambda **_: Waking(*numbers))
    monkeypatch.setattr(logs, "_AGAIN_S", 0.0)
    with pytest.raises(UnknownTopicOrPartitionError, match=r"letters: .*1"):
        await logs.read_outcomes(KafkaSettings(), "letters", {0: 5, 1: 5, 2: 0})
