"""Generated pages of `docs/`: settings, metrics, command line, keys of a policy, schemas.

`python -m stream_judge.docs` writes them, `--check` fails when they are not up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stream_judge.mapping import MappingFile
from stream_judge.metrics import metrics_table
from stream_judge.policy import PolicyFile
from stream_judge.schema import verdict_schema
from stream_judge.settings import Settings

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def pages() -> dict[str, str]:
    """Every generated page by its path below `docs/`."""
    return {
        "settings.md": _settings_page(),
        "metrics.md": "# Metrics\n\nOn the worker's port at `/metrics`. Names and labels are a "
        "contract: they change only with a major version.\n\n" + metrics_table(),
        "cli.md": _cli_page(),
        "policy-keys.md": _policy_page(),
        "schemas/verdict-v1.json": _json(verdict_schema()),
        "schemas/policy.json": _json(PolicyFile.model_json_schema()),
        "schemas/mapping.json": _json(MappingFile.model_json_schema()),
    }


def main() -> int:
    """Write or check the pages; the exit code."""
    checking = "--check" in sys.argv[1:]
    stale = []
    for name, text in pages().items():
        path = _DOCS / name
        if checking:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if stale:
        print(f"docs/ is not up to date: {', '.join(stale)}; run `make docs`", file=sys.stderr)  # noqa: T201 - a program
    return 1 if stale else 0


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "From `--set` (`--set kafka.topic=updates`, repeatable; no secrets), then from the "
        "environment, then from the file of `--settings` (TOML, a table for each section; "
        "`policies` and `mapping` stand before the first), then "
        "the default. Lists and sets are JSON in `--set` and in the environment.",
        "",
        "| environment | default | bounds | meaning |",
        "|---|---|---|---|",
    ]
    lines += _rows(Settings, "STREAM_JUDGE_")
    return "\n".join(lines) + "\n"


def _policy_page() -> str:
    lines = [
        "# Keys of a policy",
        "",
        "[How to write one](policies.md). A key that is not here is refused.",
        "",
        "| key | default | bounds | meaning |",
        "|---|---|---|---|",
    ]
    lines += _keys(PolicyFile, "")
    return "\n".join(lines) + "\n"


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """A row for each key of a policy; of a part, or of a list of parts, one for each of theirs."""
    for name, field in model.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        part = next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)
        if part is not None:
            yield from _keys(part, f"{prefix}{name}{'[]' if part is not parts[0] else ''}.")
            continue
        if field.is_required():
            shown = "needed"
        else:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            shown = "-" if default in (None, "", []) else f"`{json.dumps(default)}`"
        yield f"| `{prefix}{name}` | {shown} | {_bounds(field)} | {field.description} |"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _rows(kind, f"{prefix}{name.upper()}__")
            continue
        default = field.default
        if default is PydanticUndefined:
            shown = "shipped with the package"
        elif isinstance(default, frozenset | tuple):
            shown = f"`{json.dumps(sorted(default))}`"
        else:
            shown = f"`{default}`"
        yield f"| `{prefix}{name.upper()}` | {shown} | {_bounds(field)} | {field.description} |"


def _bounds(field: FieldInfo) -> str:
    bounds = " ".join(
        f"{sign} {getattr(part, key)}"
        for part in field.metadata
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(part, key)
    )
    return bounds or ", ".join(f"`{choice}`" for choice in _choices(field.annotation)) or "-"


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values that a type allows, if it names them; None goes without saying."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(choice for part in get_args(kind) for choice in _choices(part))


def _cli_page() -> str:
    import typer

    from stream_judge.cli import full_app

    command = typer.main.get_command(full_app())
    return "\n".join(["# Command line", "", *_command(command, "stream-judge")])


def _command(command: Any, path: str) -> Iterator[str]:
    for name, sub in getattr(command, "commands", {}).items():
        if getattr(sub, "commands", None):
            yield from _command(sub, f"{path} {name}")
            continue
        yield f"## `{path} {name}`"
        yield ""
        yield str(sub.help or "")
        yield ""
        for parameter in sub.params:
            if parameter.name == "help":
                continue
            names = ", ".join(parameter.opts)
            default = parameter.default
            known = "" if default is None or callable(default) else f" (default `{default}`)"
            known = " (needed)" if parameter.required else known
            yield f"- `{names}`: {getattr(parameter, 'help', '') or ''}{known}"
        yield ""


if __name__ == "__main__":
    sys.exit(main())
