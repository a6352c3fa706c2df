"""`stream-judge doctor`: is everything there that a worker needs, and what to do if not."""

from __future__ import annotations

import importlib.metadata
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_judge.assembly import read_policies
from stream_judge.errors import StreamJudgeError, TritonUnavailableError
from stream_judge.images.loader import ImageLoader
from stream_judge.mapping import Mapping
from stream_judge.policy import Policy, PolicyFile, load_policies
from stream_judge.rights import check_rights
from stream_judge.rows import policy_refusal
from stream_judge.serving.manifest import manifest_digest
from stream_judge.settings import Settings, unknown_variables
from stream_judge.topics import check_topics
from stream_judge.triton import ModelSpec, TritonJudge

_PolicyFiles = list[tuple[Path, PolicyFile]]


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
    written, policies = _written(settings)
    findings = [_runtimes(), *written]
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
        findings += await _model(settings, client, spec, policies, repository)
    except StreamJudgeError as exc:
        # Whatever answers, but wrongly, is there already.
        out = isinstance(exc, TritonUnavailableError)
        cure = "; start one with `stream-judge triton`" if out else ""
        findings.append(Finding("triton", False, exc.message + cure))
    finally:
        await client.close()
    return findings


def show(findings: list[Finding], *, as_json: bool) -> int:
    """Print findings, as a table or as one line of JSON; 0 if all is well."""
    ok = all(finding.ok for finding in findings)
    if as_json:
        content = {"ok": ok, "findings": [asdict(finding) for finding in findings]}
        Console(soft_wrap=True).print(
            json.dumps(content), markup=False, highlight=False, emoji=False
        )
    else:
        table = Table("what", "", "found, or what to do")
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]WRONG[/]"
            table.add_row(escape(finding.what), mark, escape(finding.detail))
        Console().print(table)
    return 0 if ok else 1


def _runtimes() -> Finding:
    both = _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu")
    detail = "onnxruntime and onnxruntime-gpu overwrite each other; uninstall both, install one"
    return Finding("onnxruntime", not both, detail if both else "at most one is installed")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _written(settings: Settings) -> tuple[list[Finding], _PolicyFiles]:
    """What the operator wrote, and the policies of it; none if something is wrong there."""
    try:
        mapping = Mapping.read(settings.mapping)
    except StreamJudgeError as exc:
        return [Finding("mapping", False, exc.message)], []
    findings = [Finding("mapping", True, str(settings.mapping))]
    try:
        files = read_policies(settings, mapping)
    except StreamJudgeError as exc:
        return [*findings, Finding("policies", False, exc.message)], []
    return [*findings, Finding("policies", True, f"{len(files)} in {settings.policies}")], files


async def _model(
    settings: Settings,
    client: TritonJudge,
    spec: ModelSpec,
    policies: _PolicyFiles,
    repository: Path | None,
) -> list[Finding]:
    """Whether the model server judges under each policy."""
    loader = ImageLoader(settings.images, spec.pixels)
    await loader.start()
    try:
        return [await _policy(client, spec, loader, policy, repository) for policy in policies]
    finally:
        await loader.close()


async def _policy(
    client: TritonJudge,
    spec: ModelSpec,
    loader: ImageLoader,
    policy: tuple[Path, PolicyFile],
    repository: Path | None,
) -> Finding:
    what = f"policy {policy[1].id}"
    try:
        (ready,) = (await load_policies([policy], spec.pixels, loader.decode)).policies
        return Finding(what, True, await _try(client, spec, ready, repository))
    except StreamJudgeError as exc:
        return Finding(what, False, exc.message)


async def _try(
    client: TritonJudge, spec: ModelSpec, policy: Policy, repository: Path | None
) -> str:
    side = spec.pixels.size
    row = await client.judge(np.full((side, side, 3), 127, np.uint8), "a test", policy.bundle)
    if row.status != "ok":
        raise StreamJudgeError(policy_refusal(row.status), code=row.status)
    if repository and row.model_digest != (local := manifest_digest(repository)):
        raise StreamJudgeError(
            f"the server judges with model {row.model_digest[:12]}, {repository} is {local[:12]}; "
            "deploy the one or point to the other",
            code="config",
        )
    return f"judged by model {row.model_digest[:12]}"
