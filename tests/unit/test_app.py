from __future__ import annotations

import pytest

from stream_judge.app import build_app
from stream_judge.settings import KafkaSettings


@pytest.mark.parametrize("session_timeout_s", [30.0, 60.0, 120.0])
def test_requests_may_take_as_long_as_the_group_may_hold_them(session_timeout_s: float) -> None:
    conf = build_app(KafkaSettings(session_timeout_s=session_timeout_s)).conf
    # Faust makes no consumer whose session is longer than its requests.
    assert conf.broker_request_timeout >= conf.broker_session_timeout
    # The broker answers a join when all members are there, or after this time.
    assert conf.broker_request_timeout >= conf.broker_rebalance_timeout
