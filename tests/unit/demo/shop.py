"""Updates, what came of them and the truth, as a demo run has them."""

from __future__ import annotations

from typing import Any

from stream_judge.demo.feed import Fed
from stream_judge.demo.readback import Seen


def fed(line: int, picture: str = "none.jpg", partition: int = 0) -> Fed:
    url = f"http://shop.test/pictures/{picture}"
    event = {"title": f"<b>{line}</b>", "images": [{"url": url}]}
    return Fed(line, (partition, line), 1000 + line, event)


def unread(line: int) -> Fed:
    """An update that nobody can read, or a tombstone."""
    return Fed(line, (0, line), 1000 + line, {})


def seen(line: int, *, relevant: bool = True, **fields: Any) -> Seen:
    verdict = {
        "outcome": "judged",
        "verdict": "relevant" if relevant else "not_relevant",
        "decision": "publish" if relevant else "block",
        "score": 0.9 if relevant else 0.1,
        "reason": "above_publish" if relevant else "below_block",
        "policy": {"id": "exact"},
    }
    return Seen(False, (0, line), 0, 1100 + line, verdict | fields)


def unjudgeable(line: int, reason: str = "image_undecodable", **fields: Any) -> Seen:
    nothing = {"outcome": "unjudgeable", "verdict": None, "decision": "review", "score": None}
    return seen(line, **nothing | {"reason": reason} | fields)


def bad_event(line: int) -> Seen:
    """The verdict that goes with a dead letter."""
    return unjudgeable(line, "bad_event", policy=None)


def letter(line: int) -> Seen:
    return Seen(True, (0, line), 0, 1100 + line, None)


def tombstone(line: int) -> Seen:
    return Seen(False, (0, line), 0, 1100 + line, None)


def truth(expect: str = "judged", *, relevant: bool = True, **fields: Any) -> dict[str, Any]:
    judged = expect == "judged"
    return {
        "relevant": relevant if judged else None,
        "expect": expect,
        "fault": None if judged else "truncated",
        "differs": None if relevant else "colour",
        "shown": {"category": "mug", "colour": "red"},
        "policy": "exact",
        "product_id": "p",
        "form": "title",
        "language": "en",
    } | fields
