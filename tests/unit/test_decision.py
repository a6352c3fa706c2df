from __future__ import annotations

import pytest

from stream_judge.decision import decide
from stream_judge.policy import Calibration, Thresholds
from stream_judge.schema import verdict_schema


@pytest.mark.parametrize(
    ("score", "block", "publish", "decision", "verdict"),
    [
        (0.45, 0.38, 0.38, "publish", "relevant"),
        (0.37, 0.38, 0.38, "block", "not_relevant"),
        (0.6, 0.7, 0.7, "block", "not_relevant"),
        (0.7, 0.7, 0.7, "publish", "relevant"),
        (0.5, 0.2, 0.8, "review", "relevant"),
        (0.4999, 0.2, 0.8, "review", "not_relevant"),
    ],
)
def test_a_verdict_says_what_its_decision_says(
    score: float, block: float, publish: float, decision: str, verdict: str
) -> None:
    found = decide(score, Calibration(), Thresholds(block=block, publish=publish))
    assert (found.decision, found.verdict) == (decision, verdict)


def test_the_schema_says_where_a_verdict_comes_from() -> None:
    assert "publish is relevant" in verdict_schema()["properties"]["verdict"]["description"]
