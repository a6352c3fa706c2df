from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream_judge import source
from stream_judge.app import build_app
from stream_judge.settings import KafkaSettings


@pytest.mark.parametrize("session_timeout_s", [30.0, 60.0, 120.0])
def test_requests_may_take_as_long_as_the_group_may_hold_them(session_timeout_s: float) -> None:
    conf = build_app(KafkaSettings(session_timeout_s=session_timeout_s)).conf
    # Faust makes no consumer whose session is longer than its requests.
    assert conf.broker_request_timeout >= conf.broker_session_timeout
    # The broker answers a join when all members are there, or after this time.
    assert conf.broker_request_timeout >= conf.broker_rebalance_timeout


async def test_no_outage_outlasts_the_poll_interval() -> None:
    # The window is full while Triton or a store is out, and nothing is polled then. Past this
    # interval aiokafka leaves the group: partitions would go round among workers that all wait
    # for the same thing. Its own default is 5 minutes, Faust's 1,000 s.
    app = build_app(KafkaSettings())

    async def nothing(*_: Any) -> Any: ...

    source.install(app, source.Hooks("t", nothing, nothing, print, 1.0, "read_committed", False))
    thread = app.consumer._thread
    consumer = thread._create_consumer(asyncio.get_running_loop())
    # Neither was started.
    consumer._closed = True
    thread.thread_loop.close()
    assert consumer._max_poll_interval_ms == 24 * 3600 * 1000
