"""How a worker process ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream_judge.errors import ConfigError, LaneLostError
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
