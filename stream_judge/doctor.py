"""`stream-judge doctor`: is everything there that a worker needs, and what to do if not."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_judge import exits
from stream_judge.assembly import read_policies
from stream_judge.errors import StreamJudgeError, TritonUnavailableError
from stream_judge.findings import Finding, Status
from stream_judge.images.loader import ImageLoader
from stream_judge.mapping import Mapping
from stream_judge.model_files import check_files
from stream_judge.policy import Policy, PolicyFile, load_policies
from stream_judge.rights import check_rights, needed_rights
from stream_judge.rows import probe_policy
from stream_judge.serving.manifest import manifest_digest
from stream_judge.settings import KafkaSettings, Settings, meant_variable, unknown_variables
from stream_judge.topics import check_topics
from stream_judge.triton import ModelSpec, RowResult, TritonJudge

_PolicyFiles = list[tuple[Path, PolicyFile]]
# Brokers' default group.min.session.timeout.ms.
_LEAST_SESSION_S = 6.0
_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]WRONG[/]"}


async def examine(settings: Settings, repository: Path | None = None) -> list[Finding]:
    """All findings; nothing here raises for what it looks for.

    Args:
        settings: The worker's settings.
        repository: A model repository that the server is expected to serve.
    """
    written, policies = _written(settings)
    findings = [_runtimes(), *written, *_variables(), *_timeouts(settings.kafka)]
    if repository is not None:
        findings += await asyncio.to_thread(_repository, repository)
        if not (repository / "manifest.json").is_file():
            repository = None
    findings += await _broker(settings.kafka)
    client = TritonJudge(settings.triton)
    try:
        await client.start()
        spec = await client.spec()
        findings.append(
            Finding("triton", "ok", f"{spec.name} {spec.version} at {settings.triton.url}")
        )
        findings += await _model(settings, client, spec, policies, repository)
    except StreamJudgeError as exc:
        # Whatever answers, but wrongly, is there already.
        out = isinstance(exc, TritonUnavailableError) and "check triton.tls" not in exc.message
        cure = "; start one with `stream-judge triton`" if out else ""
        findings.append(Finding("triton", "wrong", exc.message + cure))
    finally:
        await client.close()
    return findings


def show(findings: list[Finding], *, as_json: bool) -> int:
    """Print findings, as a table or as one line of JSON; the exit code.

    0 if none is wrong, 69 if the broker could not be asked, whatever else was found, else 1.
    """
    ok = all(finding.ok for finding in findings)
    if as_json:
        content = {"ok": ok, "findings": [_as_json(finding) for finding in findings]}
        Console(soft_wrap=True).print(
            json.dumps(content), markup=False, highlight=False, emoji=False
        )
    else:
        table = Table("what", "", "found, or what to do")
        for finding in findings:
            table.add_row(escape(finding.what), _MARKS[finding.status], escape(finding.detail))
        Console().print(table)
    unasked = any(finding.what == "broker" for finding in findings if not finding.ok)
    return exits.OK if ok else exits.UNAVAILABLE if unasked else 1


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "what": finding.what,
        "ok": finding.ok,
        "status": finding.status,
        "detail": finding.detail,
    }


def _variables() -> Iterator[Finding]:
    """Variables that set nothing: most are mistyped, some are Kubernetes' own."""
    for name in unknown_variables(os.environ):
        meant = meant_variable(name)
        advice = f"; did you mean {meant}?" if meant else ""
        yield Finding("setting", "note", f"{name} is no setting: it does nothing{advice}")


def _timeouts(kafka: KafkaSettings) -> Iterator[Finding]:
    """Times that brokers refuse or cut short, unless somebody has configured them to."""
    deadline_s, timeout_s = kafka.transaction_deadline_s, kafka.transaction_timeout_s
    if kafka.publisher == "transactional" and deadline_s > timeout_s:
        says = f"kafka.transaction_deadline_s {deadline_s:g} is above kafka.transaction_timeout_s"
        advice = f"{timeout_s:g}, at which the broker aborts; lower the one or raise the other"
        yield Finding("setting", "note", f"{says} {advice}")
    if (session_s := kafka.session_timeout_s) < _LEAST_SESSION_S:
        says = (
            f"kafka.session_timeout_s {session_s:g} is below {_LEAST_SESSION_S:g}, the least that"
        )
        advice = "brokers take by default (group.min.session.timeout.ms); raise it"
        yield Finding("setting", "note", f"{says} {advice}")


def _repository(repository: Path) -> list[Finding]:
    """Whether the files of a model repository are those that its manifest lists."""
    try:
        edited = check_files(repository)
    except StreamJudgeError as exc:
        return [Finding("repository", "wrong", exc.message)]
    says = "was edited since the export; the model keeps its digest"
    notes = [Finding("repository", "note", f"{repository}: {name} {says}") for name in edited]
    return [Finding("repository", "ok", f"{repository}: the files of its manifest"), *notes]


async def _broker(kafka: KafkaSettings) -> list[Finding]:
    """Topics and rights, as far as the broker tells."""
    findings: list[Finding] = []
    try:
        findings += await check_topics(kafka)
        rights = await check_rights(kafka)
    except StreamJudgeError as exc:
        return [*findings, Finding("broker", "wrong", exc.message)]
    granted = {right.says for right in needed_rights(kafka)}
    for ok, line in rights:
        # What is said beyond the right itself is why it is missing, or unknown.
        status: Status = "wrong" if not ok else "ok" if line in granted else "note"
        findings.append(Finding("right", status, line))
    return findings


def _runtimes() -> Finding:
    both = _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu")
    detail = "onnxruntime and onnxruntime-gpu overwrite each other; uninstall both, install one"
    if both:
        return Finding("onnxruntime", "wrong", detail)
    return Finding("onnxruntime", "ok", "at most one is installed")


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
        return [Finding("mapping", "wrong", exc.message)], []
    findings = [Finding("mapping", "ok", str(settings.mapping))]
    try:
        files = read_policies(settings, mapping)
    except StreamJudgeError as exc:
        return [*findings, Finding("policies", "wrong", exc.message)], []
    return [*findings, Finding("policies", "ok", f"{len(files)} in {settings.policies}")], files


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
        return Finding(what, "ok", await _try(client, spec, ready, repository))
    except StreamJudgeError as exc:
        return Finding(what, "wrong", exc.message)


async def _try(
    client: TritonJudge, spec: ModelSpec, policy: Policy, repository: Path | None
) -> str:
    """By which model a policy is judged.

    Raises:
        StreamJudgeError: By none, or by another than the repository's.
    """

    async def ask(pixels: NDArray[np.uint8], text: str, policy: Policy) -> RowResult:
        return await client.judge(pixels, text, policy.bundle)

    row = await probe_policy(ask, spec.pixels.size, policy)
    if repository and row.model_digest != (local := manifest_digest(repository)):
        raise StreamJudgeError(
            f"the server judges with model {row.model_digest[:12]}, {repository} is {local[:12]}; "
            "deploy the one or point to the other",
            code="config",
        )
    return f"judged by model {row.model_digest[:12]}"
