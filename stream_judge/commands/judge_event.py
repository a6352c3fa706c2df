"""`stream-judge judge`: one event, every step."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from stream_judge.assembly import build_judge
from stream_judge.errors import ConfigError
from stream_judge.events import SourceRecord
from stream_judge.metrics import Metrics
from stream_judge.settings import Settings


async def judge_event(path: Path, settings: Settings) -> int:
    """Judge the event in a file and print each step; 0 if it was judged.

    Raises:
        ConfigError: The file cannot be read.
    """
    console = Console()

    def observe(step: str, detail: dict[str, Any]) -> None:
        console.print(f"[bold]{step}[/bold]")
        for name, value in detail.items():
            console.print(f"  {name}: {_shown(value)}", markup=False, highlight=False)

    try:
        value = await asyncio.to_thread(path.read_bytes)
    except OSError as exc:
        raise ConfigError(f"event {path}: {exc.strerror}") from exc
    record = SourceRecord(path.name, 0, 0, 0, None, value)
    async with build_judge(settings, Metrics(), observer=observe) as judge:
        outcome = await judge.judge(record)
    console.print(f"[bold]outcome[/bold] {outcome.kind} ({outcome.code})")
    for output in outcome.outputs:
        if output.destination == "verdicts" and output.value is not None:
            console.print_json(output.value.decode())
    return 0 if outcome.kind == "judged" else 1


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 2_000 else text[:2_000] + " ..."
