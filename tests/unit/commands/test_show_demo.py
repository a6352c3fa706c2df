from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stream_judge.commands import show_demo as module
from stream_judge.demo.feed import Fed
from stream_judge.demo.readback import Seen
from stream_judge.demo.runner import DemoOptions, Progress
from stream_judge.demo.summary import Summary, summarise
from tests.unit.demo.shop import bad_event, fed, letter, seen, tombstone, truth, unjudgeable

OPTIONS = DemoOptions(report=Path("page.html"))
GOOD = [seen(0), unjudgeable(1), letter(2), bad_event(2), tombstone(3)]
LINES = [truth(), truth("unjudgeable"), truth("dead_letter"), truth("tombstone")]


def summary(records: list[Seen]) -> Summary:
    return summarise([fed(i) for i in range(4)], records, LINES, 1.0)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Show a run that ends with these records."""

    def show(records: list[Seen], *, as_json: bool = False) -> int:
        async def run_demo(options: DemoOptions, progress: Progress, *, say: Any) -> Summary:
            say("judging")
            return summary(records)

        monkeypatch.setattr(module, "run_demo", run_demo)
        return module.show_demo(OPTIONS, as_json=as_json)

    return show


def test_people_see_figures_and_how_many_ended_as_expected(
    show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(GOOD) == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    for row in (["events", "4"], ["dead_letters", "1"], ["accuracy", "1.0"], ["expected", "4"]):
        assert row in lines
    assert shown.endswith("4 of 4 expected\nreport: page.html\n")
    assert shown.startswith("judging\n")


def test_an_outcome_that_is_not_the_expected_one_is_named_and_fails_the_demo(
    show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [unjudgeable(0), *GOOD[1:]]
    assert summary(records).delivered
    assert show(records) == 1
    said = "3 of 4 expected\n  p: judged expected, unjudgeable came\n"
    assert said in capsys.readouterr().out


def test_an_update_without_an_outcome_fails_the_demo(show: Any) -> None:
    assert show(GOOD[1:]) == 1


def test_only_so_many_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [fed(i) for i in range(23)]
    many = summarise(entries, [unjudgeable(i) for i in range(23)], [truth()] * 23, 0.0)
    module._print_summary(many, Console())
    shown = capsys.readouterr().out
    assert shown.count("judged expected") == 20
    assert "and 3 more, all of them with --json" in shown


def test_json_is_the_only_line_of_stdout(show: Any, capsys: pytest.CaptureFixture[str]) -> None:
    records = [unjudgeable(0), *GOOD[1:]]
    assert show(records, as_json=True) == 1
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert json.loads(line)["expected"] == 3
    assert json.loads(line)["unexpected"] == ["p: judged expected, unjudgeable came"]
    assert "3 of 4 expected" in shown.err


def rendered(records: list[Seen], *entries: Fed) -> list[list[str]]:
    """The rows of the live table."""
    progress = Progress(truth=[*LINES, *LINES * 20])
    for entry in entries:
        progress.on_fed(entry)
    for record in records:
        progress.on_seen(record)
    console = Console(file=io.StringIO(), width=120)
    console.print(module._view(progress, len(entries)))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    rows = [line.split("│")[1:-1] for line in text.splitlines()]
    return [[cell.strip() for cell in row] for row in rows if row]


def test_the_live_table_has_what_became_of_each_update() -> None:
    hostile = Fed(0, (0, 0), 1000, {"title": "[/b] mug [red]"})
    assert rendered(GOOD, hostile, *(fed(i) for i in range(1, 4))) == [
        ["p", "[/b] mug [red]", "relevant", "0.900", "publish", "100"],
        ["p", "<b>1</b>", "image_undecodable", "-", "review", "100"],
        ["p", "<b>2</b>", "dead letter", "-", "-", "100"],
        ["p", "<b>2</b>", "bad_event", "-", "review", "100"],
        ["p", "<b>3</b>", "tombstone", "-", "-", "100"],
    ]


def test_the_live_table_has_the_newest_and_leaves_out_what_it_does_not_know() -> None:
    entries = [fed(i) for i in range(20)]
    rows = rendered([seen(i) for i in range(21)], *entries)
    assert [row[1] for row in rows] == [f"<b>{i}</b>" for i in range(9, 20)]
