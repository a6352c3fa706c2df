"""`stream-judge demo`: the live table and the summary."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream_judge.demo.runner import DemoOptions, Progress, run_demo
from stream_judge.demo.summary import Summary

_ROWS, _LINES = 12, 20
_COLOURS = {"publish": "green", "block": "red", "review": "yellow"}


def show_demo(options: DemoOptions, *, as_json: bool) -> int:
    """Run the demo and print it; 0 if every update has its one expected outcome, in order.

    1 if not, 143 if SIGTERM ended it.
    """
    # With --json stdout is for the last line; people read stderr.
    console = Console(stderr=as_json)
    try:
        summary = asyncio.run(_run(options, console))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    _print_summary(summary, console)
    console.print(f"report: {options.report}")
    if as_json:
        Console(soft_wrap=True).print(json.dumps(summary.as_dict()), markup=False, highlight=False)
    return 0 if summary.passed else 1


async def _run(options: DemoOptions, console: Console) -> Summary:
    progress = Progress()
    task = asyncio.current_task()
    assert task is not None
    # SIGTERM like Ctrl-C: what was started is stopped on the way out.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if not console.is_terminal:
        return await run_demo(options, progress, say=console.print)
    with Live(console=console, refresh_per_second=6, transient=False) as live:
        ticker = asyncio.create_task(_tick(live, progress, options.events))
        try:
            return await run_demo(options, progress, say=live.console.print)
        finally:
            ticker.cancel()
            live.update(_view(progress, options.events))


async def _tick(live: Live, progress: Progress, events: int) -> None:
    while True:
        live.update(_view(progress, events))
        await asyncio.sleep(0.15)


def _view(progress: Progress, events: int) -> Group:
    table = Table("product", "text", "verdict", "score", "decision", "ms", expand=True)
    for record in progress.seen[-_ROWS:]:
        fed = progress.fed.get(record.place)
        if fed is None:
            continue
        line = progress.truth[fed.line]
        verdict: dict[str, Any] = record.verdict or {}
        said = verdict.get("verdict") or verdict.get("reason") or "tombstone"
        if record.dead_letter:
            said = "dead letter"
        decision = verdict.get("decision") or "-"
        score = verdict.get("score")
        table.add_row(
            line["product_id"],
            # As it is: rich would read what stands in brackets as its own markup.
            Text(str(fed.event.get("title", "-"))[:44]),
            said,
            "-" if score is None else f"{score:.3f}",
            f"[{_COLOURS.get(decision, 'dim')}]{decision}[/]",
            str(record.timestamp_ms - fed.timestamp_ms),
        )
    return Group(table, ProgressBar(total=events, completed=len(progress.done)))


def _print_summary(summary: Summary, console: Console) -> None:
    table = Table("figure", "value", title="read back from the topics, held against the truth")
    for name, value in summary.figures().items():
        table.add_row(name, str(value))
    console.print(table)
    console.print(f"{summary.expected} of {summary.events} expected", highlight=False)
    for line in summary.unexpected[:_LINES]:
        console.print(f"  {line}", markup=False, highlight=False)
    if len(summary.unexpected) > _LINES:
        console.print(f"  and {len(summary.unexpected) - _LINES} more, all of them with --json")
