"""`stream-judge explain`: what became of one source record."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from stream_judge.commands.options import Flags, SettingsFile
from stream_judge.explain import explain, parse_place
from stream_judge.mapping import Mapping
from stream_judge.settings import read_settings


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
    have expired. The exit code is 1 where it is lost, 69 where the broker did not answer, so
    that nobody knows, and 0 in every other state.
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
