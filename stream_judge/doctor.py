"""`stream-judge doctor`: is everything there that a worker needs, and what to do if not."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_judge.errors import StreamJudgeError
from stream_judge.images.loader import ImageLoader
from stream_judge.mapping import Mapping
from stream_judge.policy import Policy, check_fields, load_policies
from stream_judge.rights import check_rights
from stream_judge.serving.decoder import manifest_digest
from stream_judge.settings import Settings, unknown_variables
from stream_judge.topics import check_topics
from stream_judge.triton import ModelSpec, TritonJudge


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: What was checked.
        ok: Whether it is as needed.
        detail: What was found, or what to do.
    """

    what: str
    ok: bool
    detail: str


async def examine(settings: Settings, repository: Path | None = None) -> list[Finding]:
    """All findings; nothing here raises for what it looks for.

    Args:
        settings: The worker's settings.
        repository: A model repository that the server is expected to serve.
    """
    findings = [_runtimes(), _mapping(settings)]
    findings += [
        Finding("setting", True, f"{name} is no setting: it does nothing")
        for name in unknown_variables(os.environ)
    ]
    if repository and not (repository / "manifest.json").is_file():
        detail = f"{repository}: no model repository (manifest.json)"
        findings.append(Finding("repository", False, detail))
        repository = None
    try:
        findings += [Finding("topic", ok, line) for ok, line in await check_topics(settings.kafka)]
        findings += [Finding("right", ok, line) for ok, line in await check_rights(settings.kafka)]
    except StreamJudgeError as exc:
        findings.append(Finding("broker", False, exc.message))
    client = TritonJudge(settings.triton)
    await client.start()
    try:
        spec = await client.spec()
        findings.append(
            Finding("triton", True, f"{spec.name} {spec.version} at {settings.triton.url}")
        )
        findings += await _model(settings, client, spec, repository)
    except StreamJudgeError as exc:
        findings.append(
            Finding("triton", False, f"{exc.message}; start one with `stream-judge triton`")
        )
    finally:
        await client.close()
    return findings


def show(findings: list[Finding], *, as_json: bool) -> int:
    """Print findings; 0 if all is well."""
    if as_json:
        Console(soft_wrap=True).print(
            json.dumps([asdict(finding) for finding in findings]), markup=False, highlight=False
        )
    else:
        table = Table("what", "", "found, or what to do")
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]WRONG[/]"
            table.add_row(escape(finding.what), mark, escape(finding.detail))
        Console().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


def _runtimes() -> Finding:
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    both = {"onnxruntime", "onnxruntime-gpu"} <= installed
    detail = "onnxruntime and onnxruntime-gpu overwrite each other; uninstall both, install one"
    return Finding("onnxruntime", not both, detail if both else "at most one is installed")


def _mapping(settings: Settings) -> Finding:
    try:
        Mapping.read(settings.mapping)
    except StreamJudgeError as exc:
        return Finding("mapping", False, exc.message)
    return Finding("mapping", True, str(settings.mapping))


async def _model(
    settings: Settings, client: TritonJudge, spec: ModelSpec, repository: Path | None
) -> list[Finding]:
    loader = ImageLoader(settings.images, spec.pixels)
    await loader.start()
    findings: list[Finding] = []

    async def check(what: str, work: Callable[[], Awaitable[str]]) -> None:
        try:
            findings.append(Finding(what, True, await work()))
        except StreamJudgeError as exc:
            findings.append(Finding(what, False, exc.message))

    async def policies() -> str:
        found = await load_policies(settings.policies, spec.pixels, loader.decode)
        check_fields(found.policies, Mapping.read(settings.mapping).text_fields)
        for policy in found.policies:
            judged = functools.partial(_try, client, spec, policy, repository)
            await check(f"policy {policy.id}", judged)
        return f"{len(found.policies)} in {settings.policies}"

    try:
        await check("policies", policies)
    finally:
        await loader.close()
    return findings


async def _try(
    client: TritonJudge, spec: ModelSpec, policy: Policy, repository: Path | None
) -> str:
    side = spec.pixels.size
    row = await client.judge(np.full((side, side, 3), 127, np.uint8), "a test", policy.bundle)
    if row.status != "ok":
        raise StreamJudgeError(f"the model server answers {row.status}", code=row.status)
    if repository and row.model_digest != (local := manifest_digest(repository)):
        raise StreamJudgeError(
            f"the server judges with model {row.model_digest[:12]}, {repository} is {local[:12]}; "
            "deploy the one or point to the other",
            code="config",
        )
    return f"judged by model {row.model_digest[:12]}"
