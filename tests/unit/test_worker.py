"""How a worker process ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream_judge import worker as worker_module
from stream_judge.errors import ConfigError, LaneLostError, StalledError
from stream_judge.settings import KafkaSettings, Settings
from stream_judge.worker import Worker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    # Its last means would end the tests.
    monkeypatch.setattr(Worker, "_end_for_certain", lambda *_: None)
    return Worker(Settings(kafka=KafkaSettings(application="test-worker")))


def ends_with(worker: Worker, monkeypatch: pytest.MonkeyPatch, exc: BaseException) -> None:
    async def serve(*_: Any) -> None:
        raise exc

    monkeypatch.setattr(worker, "_serve", serve)


async def test_a_defect_while_it_stops_is_a_fatal_error(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(worker, monkeypatch, RuntimeError("in the drain"))
    assert await worker.run() == 70


async def test_what_ended_it_first_gives_the_exit_code(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker._on_fatal(LaneLostError("another owner"))
    ends_with(worker, monkeypatch, RuntimeError("what came of it"))
    assert await worker.run() == 72


async def test_what_an_operator_can_mend_is_for_the_command_to_say(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(worker, monkeypatch, ConfigError("a policy"))
    with pytest.raises(ConfigError):
        await worker.run()
    ends_with(worker, monkeypatch, asyncio.CancelledError())
    assert await worker.run() == 0


def test_a_fatal_error_ends_the_process_whatever_keeps_it_from_ending() -> None:
    # What is promised is 10 s; the children wait for 1 s instead.
    assert worker_module._FATAL_GRACE_S < 10
    script = str(Path(__file__).with_name("fatal_worker.py"))
    children = {
        hindrance: subprocess.Popen(
            [sys.executable, script, hindrance], stdout=subprocess.PIPE, text=True
        )
        for hindrance in ("stop", "loop", "log")
    }
    ended = {}
    try:
        for hindrance, child in children.items():
            said, _ = child.communicate(timeout=180)
            ended[hindrance] = (said.splitlines()[-1], child.returncode)
    finally:
        for child in children.values():
            with child:
                child.kill()
    # Each had come to what never ends, and its exit code is still that of the error.
    assert ended == dict.fromkeys(children, ("stopping", 72))


def is_working(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put it behind its start; gives what its watchdog knows."""
    dog = SimpleNamespace(stalled=None)
    monkeypatch.setattr(worker, "_watchdog", dog)
    monkeypatch.setattr(worker, "_app", SimpleNamespace(started=True))
    return dog


def test_until_it_works_it_says_what_it_waits_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker._unready() == "starting"
    worker._outages.begin("triton")
    assert worker._unready() == "waiting for triton"
    worker._outages.end("triton")
    is_working(worker, monkeypatch)
    worker._app.started = False
    assert worker._unready() == "starting"
    worker._app.started = True
    assert worker._unready() is None


def test_an_outage_leaves_it_ready_and_a_stall_does_not(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog = is_working(worker, monkeypatch)
    worker._outages.begin("triton")
    assert worker._unready() is None
    dog.stalled = "t/0/7 for 150 s"
    assert worker._unready() == "stalled: t/0/7 for 150 s"
    dog.stalled = None
    assert worker._unready() is None


def test_after_a_fatal_error_it_says_the_exit_code_to_come(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_working(worker, monkeypatch).stalled = "t/0/7 for 300 s"
    worker._on_fatal(StalledError("t/0/7"))
    worker._on_fatal(RuntimeError("what came of it"))
    assert worker._unready() == "fatal: 71"


async def test_a_real_watchdog_makes_it_ready(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_app", SimpleNamespace(started=True))
    told: list[Any] = []
    pipeline: Any = SimpleNamespace(
        oldest=lambda: (1.0, "t/0/7"), last_progress=0.0, in_flight=1, need_tending=told.append
    )

    async def watch(need_tending: Callable[[Any], None]) -> None:
        need_tending(("t", 0))

    publisher: Any = SimpleNamespace(watch=watch)
    assert worker._unready() == "starting"
    async with worker._watched(pipeline, publisher):
        await asyncio.sleep(0)
        assert told == [("t", 0)]
        assert worker._unready() is None
        assert worker._watchdog is not None
        limit_s = worker._settings.window.stall_limit_s
        worker._watchdog.tick(limit_s / 2)
        assert worker._unready() == f"stalled: t/0/7 for {limit_s / 2:.0f} s"


def test_gauges_are_of_what_it_owns_now(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    lags = {("product-updates", 0): 5, ("product-updates", 1): 0, ("another", 2): 9}
    consumer = SimpleNamespace(lag=lambda positions: lags if positions == {"at": 1} else {})
    monkeypatch.setattr(worker, "_app", SimpleNamespace(started=True, consumer=consumer))
    worker._refresh()
    assert "stream_judge_lag_records{" not in worker._metrics.page().decode()
    pipeline = SimpleNamespace(oldest_age_s=lambda: 3.5, positions=lambda: {"at": 1})
    monkeypatch.setattr(worker, "_pipeline", pipeline)
    assert shown(worker) == {"0": 5.0, "1": 0.0}
    assert "\nstream_judge_oldest_in_flight_seconds 3.5\n" in worker._metrics.page().decode()
    del lags["product-updates", 0]
    assert shown(worker) == {"1": 0.0}


def shown(worker: Worker) -> dict[str, float]:
    """Lag by partition, once refreshed."""
    worker._refresh()
    (family,) = worker._metrics.lag.collect()
    return {sample.labels["partition"]: sample.value for sample in family.samples}
