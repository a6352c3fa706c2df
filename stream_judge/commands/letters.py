"""`stream-judge dead-letters` and `stream-judge explain`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from stream_judge.commands.options import Flags, SettingsFile
from stream_judge.dead_letters import (
    DeadLetter,
    Selection,
    dead_letter,
    dead_letters,
    plan_redrive,
    redrive,
)
from stream_judge.errors import ConfigError
from stream_judge.explain import explain, parse_place
from stream_judge.mapping import Mapping
from stream_judge.settings import read_settings

app = typer.Typer(help="Records that are no product updates.", no_args_is_help=True)
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
    flags: Flags = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters: where they are, where they came from, why."""
    table = Table("dead letter", "source", "code", "time", "bytes", "message")

    def show_line(found: dict[str, Any]) -> None:
        if as_json:
            typer.echo(json.dumps(found))
            return
        # A message can quote a seller's value: it is shown as it is, and formats nothing.
        table.add_row(*(escape(str(found[name])) for name in found if name != "whole"))

    async def read() -> None:
        # A line is kept of each, never the letter: together they can be larger than the memory.
        async for letter in dead_letters(kafka, _selection(code, since, until)):
            show_line(_summary(letter))

    kafka = read_settings(settings, flags or ()).kafka
    asyncio.run(read())
    if not as_json:
        Console().print(table, f"{table.row_count} dead letters")


@app.command("show")
def show(
    place: Annotated[str, typer.Argument(help="PARTITION/OFFSET, as in the list.")],
    settings: SettingsFile = None,
    flags: Flags = None,
) -> None:
    """Show one dead letter whole: headers, stack trace, original bytes."""
    partition, _, offset = place.partition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"{place}: expected PARTITION/OFFSET, as in 0/17")
    letter = asyncio.run(
        dead_letter(read_settings(settings, flags or ()).kafka, int(partition), int(offset))
    )
    typer.echo(json.dumps(_details(letter), indent=2, ensure_ascii=False))


@app.command("redrive")
def redrive_(
    settings: SettingsFile = None,
    flags: Flags = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Send original bytes back to the source topic, once the cause is mended.

    A letter that was sent before is sent again; narrow it with --since and --until.
    """
    kafka = read_settings(settings, flags or ()).kafka
    plan = asyncio.run(plan_redrive(kafka, _selection(code, since, until)))
    if dry_run or not plan.total:
        typer.echo(f"{plan.total} dead letters would go to {kafka.topic}")
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("redriving", total=plan.total)
        sent = asyncio.run(redrive(kafka, plan, on_sent=lambda _: progress.advance(task)))
    typer.echo(f"{sent} dead letters went to {kafka.topic}")


def explain_record(
    place: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET of a source record.")],
    settings: SettingsFile = None,
    flags: Flags = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find what became of one source record.

    judged: its verdict or tombstone is shown. dead_letter: the letter is shown, and its verdict.
    superseded: a later update of the product was judged, and the verdict topic keeps only the
    newest. in_lag: it is still to be judged. gone: the source topic dropped it, and no output
    tells of it. not_there: the source topic has no record at that offset, or none yet.
    unsettled: no outcome was found, but a transaction is open that one may lie behind; ask
    again. lost: it is committed and no output tells of it, which is a defect unless outputs
    have expired; only then the exit code is 1.
    """
    place_of = parse_place(place)
    known = read_settings(settings, flags or ())
    mapping = Mapping.read(known.mapping)
    found = asyncio.run(explain(known.kafka, *place_of, product_id=mapping.product_id))
    if as_json:
        outputs = list(found.outputs)
        typer.echo(json.dumps({"state": found.state, "detail": found.detail, "outputs": outputs}))
    else:
        typer.echo(f"{place}: {found.state}: {found.detail}")
        for output in found.outputs:
            typer.echo(json.dumps(output, indent=2, ensure_ascii=False))
    raise typer.Exit(1 if found.state == "lost" else 0)


def _selection(codes: list[str] | None, since: str | None, until: str | None) -> Selection:
    return Selection(tuple(codes or ()), milliseconds(since), milliseconds(until))


def _summary(letter: DeadLetter) -> dict[str, Any]:
    about = letter.about
    origin = (
        about.get(f"__streams.errors.{name}", "?") for name in ("topic", "partition", "offset")
    )
    written = datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC)
    return {
        "place": letter.place,
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
        # A list: Kafka allows a name twice.
        "headers": [[name, readable(content)] for name, content in letter.headers],
        "value": readable(letter.value),
    }
