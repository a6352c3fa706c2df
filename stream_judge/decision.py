"""From the scores of pictures to a verdict and a decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stream_judge.policy import Calibration, Decision, Thresholds

Verdict = Literal["relevant", "not_relevant"]
# A verdict never says otherwise than a decision that is sure; a review leaves it to the score.
_SURE: dict[Decision, Verdict] = {"publish": "relevant", "block": "not_relevant"}
_DECIMALS = 4
# A float32 score of exactly 0 or 1 has no logit; beyond this nothing is told apart anyway.
_EDGE = 1e-7


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the scores of a listing come to.

    Attributes:
        raw_score: The deciding picture's score, uncalibrated, 0..1.
        score: P(relevant), calibrated, 0..1, rounded to 4 decimals; decisions use it so.
        decision: Through the policy's thresholds.
        verdict: As the decision: publish is `relevant`, block `not_relevant`; under review
            `relevant` from a score of 0.5 on.
        reason: Which side of them.
    """

    raw_score: float
    score: float
    decision: Decision
    verdict: Verdict
    reason: str


def calibrate(raw_score: float, calibration: Calibration) -> float:
    """P(relevant) of a raw score, 0..1, rounded to 4 decimals.

    Platt scaling: sigmoid(a * logit(raw) + b) (Platt 1999).
    """
    if calibration.method == "none":
        return round(raw_score, _DECIMALS)
    a, b = calibration.parameters
    clipped = min(max(raw_score, _EDGE), 1 - _EDGE)
    z = a * math.log(clipped / (1 - clipped)) + b
    return round(1 / (1 + math.exp(-z)) if z > -700 else 0.0, _DECIMALS)


def aggregate(scores: Sequence[float], how: str) -> float:
    """The deciding raw score of a listing's pictures, the primary one first."""
    if how == "primary":
        return scores[0]
    return min(scores) if how == "all" else max(scores)


def decide(raw_score: float, calibration: Calibration, thresholds: Thresholds) -> Judgement:
    """Verdict and decision for a listing's raw score."""
    score = calibrate(raw_score, calibration)
    decision: Decision
    if score >= thresholds.publish:
        decision, reason = "publish", "above_publish"
    elif score < thresholds.block:
        decision, reason = "block", "below_block"
    else:
        decision, reason = "review", "between_thresholds"
    likelier: Verdict = "relevant" if score >= 0.5 else "not_relevant"
    return Judgement(raw_score, score, decision, _SURE.get(decision, likelier), reason)
