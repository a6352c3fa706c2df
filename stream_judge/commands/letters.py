"""`stream-judge dead-letters`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
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
from stream_judge.settings import read_settings

app = typer.Typer(help="Records that could not be read, or met a defect.", no_args_is_help=True)
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
    where = _letter_place(place)
    letter = asyncio.run(dead_letter(read_settings(settings, flags or ()).kafka, *where))
    typer.echo(json.dumps(_details(letter), indent=2, ensure_ascii=False))


@app.command("redrive")
def redrive_(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="PARTITION/OFFSET of each letter that goes, as in the list."),
    ] = None,
    settings: SettingsFile = None,
    flags: Flags = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION/OFFSET",
            help="Only those behind this letter: where a redrive that broke off goes on.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All letters; without it, something has to choose.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send original bytes back to the source topic, once the cause is mended.

    Choose letters by their places, or by --code, --since and --until, or take --all. A letter
    that was sent before is sent again. With --json there is a line for each letter, once it went.
    """
    kafka = read_settings(settings, flags or ()).kafka
    chosen = bool(code or since or until)
    _check_choice(bool(places), chosen, every, dry_run=dry_run)
    selection = replace(
        _selection(code, since, until),
        places=tuple(map(_letter_place, places or ())),
        after=_letter_place(after) if after is not None else None,
    )

    def say(letter: DeadLetter) -> None:
        if as_json:
            typer.echo(json.dumps(_summary(letter)))

    on_found = say if dry_run else lambda _: None
    plan = asyncio.run(plan_redrive(kafka, selection, on_found=on_found))
    if dry_run or not plan.total:
        if not as_json:
            typer.echo(f"{plan.total} dead letters would go to {kafka.topic}")
        return
    with Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("redriving", total=plan.total)

        def went(letter: DeadLetter) -> None:
            say(letter)
            progress.advance(task)

        sent = asyncio.run(redrive(kafka, plan, on_sent=went))
    if not as_json:
        typer.echo(f"{sent} dead letters went to {kafka.topic}")


def _check_choice(named: bool, chosen: bool, every: bool, *, dry_run: bool) -> None:
    """Whether it is clear which letters go.

    Raises:
        ConfigError: It is not.
    """
    if sum((named, chosen, every)) > 1:
        raise ConfigError(
            "PARTITION/OFFSET arguments, --all, and --code with --since and --until each say "
            "which dead letters go; give one of the three"
        )
    if not (named or chosen or every or dry_run):
        raise ConfigError(
            "nothing says which dead letters go; give their PARTITION/OFFSET, --code, --since or "
            "--until, or --all for every one of them; --dry-run shows them first"
        )


def _letter_place(text: str) -> tuple[int, int]:
    """Partition and offset of "PARTITION/OFFSET".

    Raises:
        ConfigError: It has another form.
    """
    partition, _, offset = text.partition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"{text}: expected PARTITION/OFFSET, as in 0/17")
    return int(partition), int(offset)


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
