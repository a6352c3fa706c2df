"""`stream-judge dead-letters` and `stream-judge explain`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from stream_judge.dead_letters import DeadLetter, dead_letters, redrive
from stream_judge.errors import ConfigError
from stream_judge.explain import explain, parse_place
from stream_judge.settings import KafkaSettings, read_settings

app = typer.Typer(help="Records that are no product updates.", no_args_is_help=True)
SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="TOML file; the environment goes before it.")
]
Codes = Annotated[list[str] | None, typer.Option("--code", help="Only these codes.")]
Since = Annotated[str | None, typer.Option(help="Not older than; ISO 8601, UTC if it says none.")]
Until = Annotated[str | None, typer.Option(help="Older than; the same form.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def milliseconds(text: str | None) -> int | None:
    """Milliseconds since the epoch of an ISO 8601 time; UTC where it names no zone.

    Raises:
        ConfigError: It is none.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"{text}: not a time such as 2026-11-24T09:30") from exc
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


@app.command("list")
def list_(
    settings: SettingsFile = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters: where they are, where they came from, why."""
    letters = asyncio.run(_find(read_settings(settings).kafka, code, since, until))
    if as_json:
        for letter in letters:
            typer.echo(json.dumps(_summary(letter)))
        return
    table = Table("dead letter", "source", "code", "time", "bytes", "message")
    for letter in letters:
        found = _summary(letter)
        # A message can quote a seller's value: it is shown as it is, and formats nothing.
        table.add_row(*(escape(str(found[name])) for name in found if name != "whole"))
    Console().print(table, f"{len(letters)} dead letters")


@app.command("show")
def show(
    place: Annotated[str, typer.Argument(help="PARTITION/OFFSET, as in the list.")],
    settings: SettingsFile = None,
) -> None:
    """Show one dead letter whole: headers, stack trace, original bytes."""
    letters = asyncio.run(_find(read_settings(settings).kafka, None, None, None))
    for letter in letters:
        if f"{letter.partition}/{letter.offset}" == place:
            typer.echo(json.dumps(_details(letter), indent=2, ensure_ascii=False))
            return
    raise ConfigError(f"there is no dead letter {place}; `stream-judge dead-letters list`")


@app.command("redrive")
def redrive_(
    settings: SettingsFile = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Send original bytes back to the source topic, once the cause is mended.

    A letter that was sent before is sent again; narrow it with --since and --until.
    """
    kafka = read_settings(settings).kafka
    letters = asyncio.run(_find(kafka, code, since, until))
    if dry_run or not letters:
        typer.echo(f"{len(letters)} dead letters would go to {kafka.topic}")
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("redriving", total=len(letters))
        asyncio.run(redrive(kafka, letters, on_sent=lambda _: progress.advance(task)))
    typer.echo(f"{len(letters)} dead letters went to {kafka.topic}")


def explain_record(
    place: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET of a source record.")],
    settings: SettingsFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find what became of one source record: verdict, dead letter, lag, or gone."""
    found = asyncio.run(explain(read_settings(settings).kafka, *parse_place(place)))
    if as_json:
        outputs = list(found.outputs)
        typer.echo(json.dumps({"state": found.state, "detail": found.detail, "outputs": outputs}))
    else:
        typer.echo(f"{place}: {found.state}: {found.detail}")
        for output in found.outputs:
            typer.echo(json.dumps(output, indent=2, ensure_ascii=False))
    raise typer.Exit(1 if found.state == "lost" else 0)


async def _find(
    kafka: KafkaSettings, codes: list[str] | None, since: str | None, until: str | None
) -> list[DeadLetter]:
    found = dead_letters(
        kafka,
        codes=tuple(codes or ()),
        since_ms=milliseconds(since),
        until_ms=milliseconds(until),
    )
    return [letter async for letter in found]


def _summary(letter: DeadLetter) -> dict[str, Any]:
    about = letter.about
    origin = (
        about.get(f"__streams.errors.{name}", "?") for name in ("topic", "partition", "offset")
    )
    written = datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC)
    return {
        "place": f"{letter.partition}/{letter.offset}",
        "source": "/".join(origin),
        "code": letter.code,
        "time": written.isoformat(timespec="seconds"),
        "bytes": len(letter.value or b""),
        "message": about.get("__streams.errors.message", "")[:120],
        "whole": letter.whole,
    }


def _details(letter: DeadLetter) -> dict[str, Any]:
    def readable(content: bytes | None) -> str | None:
        return None if content is None else content.decode("utf-8", "backslashreplace")

    return {
        **_summary(letter),
        "about": letter.about,
        "key": readable(letter.key),
        "headers": {name: readable(content) for name, content in letter.headers},
        "value": readable(letter.value),
    }
