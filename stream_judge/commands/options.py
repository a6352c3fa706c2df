"""Options that every command with settings takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="TOML file; the environment goes before it.")
]
Flags = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.NAME=VALUE",
        help="One setting, such as kafka.topic=updates, before environment and file; repeatable.",
    ),
]
