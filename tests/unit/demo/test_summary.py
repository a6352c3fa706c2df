from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_judge.demo.feed import Fed
from stream_judge.demo.readback import Seen
from stream_judge.demo.report import write_report
from stream_judge.demo.summary import summarise


def fed(line: int, partition: int = 0) -> Fed:
    event = {"title": f"<b>{line}</b>", "images": [{"url": "http://x/none.jpg"}]}
    return Fed(line, (partition, line), 1000 + line, event)


def seen(line: int, *, relevant: bool = True, dead: bool = False, partition: int = 0) -> Seen:
    verdict: dict[str, Any] | None = {
        "outcome": "judged",
        "verdict": "relevant" if relevant else "not_relevant",
        "decision": "publish" if relevant else "block",
        "score": 0.9,
        "reason": "above_publish",
    }
    return Seen(dead, (partition, line), 0, 1100 + line, None if dead else verdict)


def truth(relevant: bool) -> dict[str, Any]:
    values = {"category": "mug", "colour": "red"}
    return {
        "relevant": relevant,
        "expect": "judged",
        "differs": None if relevant else "colour",
        "shown": values,
        "policy": "exact",
        "product_id": "p",
        "form": "title",
        "language": "en",
    }


def test_a_complete_run() -> None:
    summary = summarise([fed(0), fed(1)], [seen(0), seen(1)], [truth(True), truth(False)], 2.0)
    assert summary.delivered
    assert (summary.accuracy, summary.false_publish, summary.false_block) == (0.5, 1, 0)
    assert summary.latency_p50_ms == 100


@pytest.mark.parametrize(
    ("records", "lost", "duplicates", "order_breaks"),
    [
        ([seen(0)], 1, 0, 0),
        ([seen(0), seen(1), seen(1)], 0, 1, 0),
        ([seen(1), seen(0)], 0, 0, 1),
        ([seen(0), seen(1), seen(0)], 0, 1, 1),
    ],
)
def test_what_goes_wrong_is_counted(
    records: list[Seen], lost: int, duplicates: int, order_breaks: int
) -> None:
    summary = summarise([fed(0), fed(1)], records, [truth(True)] * 2, 0.0)
    assert (summary.lost, summary.duplicates, summary.order_breaks) == (
        lost,
        duplicates,
        order_breaks,
    )
    assert not summary.delivered


def test_a_dead_letter_and_its_verdict_are_one_outcome() -> None:
    verdict = Seen(False, (0, 0), 0, 1100, {"outcome": "unjudgeable", "decision": "review"})
    summary = summarise([fed(0)], [seen(0, dead=True), verdict], [truth(True)], 0.0)
    assert (summary.dead_letters, summary.unjudgeable, summary.duplicates) == (1, 0, 0)


def test_the_report_escapes_what_sellers_write_and_shows_wrong_ones_first(tmp_path: Path) -> None:
    entries, records = [fed(0), fed(1)], [seen(0), seen(1)]
    lines = [truth(True), truth(False)]
    summary = summarise(entries, records, lines, 0.0)
    write_report(tmp_path / "r.html", summary, entries, records, lines, tmp_path)
    page = (tmp_path / "r.html").read_text()
    assert "<b>1</b>" not in page.split("<body>")[1].split("cards")[1]
    assert page.index("&lt;b&gt;1") < page.index("&lt;b&gt;0")
    assert "http" not in page.split("<style>")[0]
