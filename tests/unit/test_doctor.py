from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_judge import doctor
from stream_judge.doctor import Finding, examine, show
from stream_judge.errors import (
    BadOutputError,
    StreamJudgeError,
    TritonTimeoutError,
    TritonUnavailableError,
)
from stream_judge.settings import KafkaSettings, Settings, read_settings
from stream_judge.testing import MODEL, StubJudge
from stream_judge.triton import ModelSpec


class NoServer:
    """A model server that fails alike whatever it is asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def start(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def spec(self) -> ModelSpec:
        raise self._error


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(settings: KafkaSettings) -> list[tuple[bool, str]]:
        return [(True, "fine")]

    monkeypatch.setattr(doctor, "check_topics", fine)
    monkeypatch.setattr(doctor, "check_rights", fine)


async def wrong(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, error: StreamJudgeError
) -> dict[str, str]:
    monkeypatch.setattr(doctor, "TritonJudge", lambda options: NoServer(error))
    return {found.what: found.detail for found in await examine(settings) if not found.ok}


@pytest.mark.parametrize(
    ("error", "advised"),
    [
        (TritonUnavailableError("nobody there"), True),
        (TritonTimeoutError("too slow"), False),
        (BadOutputError("another model"), False),
    ],
)
async def test_a_server_is_advised_only_where_there_is_none(
    error: StreamJudgeError, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await wrong(monkeypatch, read_settings(), error)
    assert set(found) == {"triton"}
    assert ("stream-judge triton" in found["triton"]) is advised


async def test_a_broken_policy_is_named_while_the_model_server_is_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("id: a\nversion: 1\n")
    found = await wrong(monkeypatch, read_settings(policies=tmp_path), TritonUnavailableError("x"))
    assert set(found) == {"policies", "triton"}
    assert "a.yaml" in found["policies"]


def _installed(folder: Path, name: str, metadata: str) -> None:
    (folder / name).mkdir()
    (folder / name / "METADATA").write_text(metadata)


def test_what_an_interrupted_pip_leaves_behind_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _installed(tmp_path, "~umpy-2.0.0.dist-info", "Metadata-Version: 2.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(doctor._runtimes(), Finding)


def test_two_runtimes_that_overwrite_each_other_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.30\n"
        _installed(tmp_path, f"{name}-1.30.dist-info", metadata)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert not doctor._runtimes().ok


@pytest.mark.parametrize("ok", [True, False])
def test_json_is_one_object_in_one_line(ok: bool, capsys: pytest.CaptureFixture[str]) -> None:
    # As long as a terminal is not wide, and with what a terminal would draw.
    detail = "[red] kafka:key:1 " + "x" * 300
    findings = [Finding("broker", True, "fine"), Finding("topic", ok, detail)]
    assert show(findings, as_json=True) == (0 if ok else 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "ok": ok,
        "findings": [
            {"what": "broker", "ok": True, "detail": "fine"},
            {"what": "topic", "ok": ok, "detail": detail},
        ],
    }


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("policy_too_long", "shorten the texts"),
        ("policy_invalid", "export again"),
        ("internal", "answers internal"),
    ],
)
async def test_a_policy_that_the_server_refuses_is_told_with_what_to_do(
    status: str, said: str, make_judge: Any
) -> None:
    policy = make_judge()._policies.policies[0]
    client: Any = StubJudge(status=status)
    with pytest.raises(StreamJudgeError, match=said):
        await doctor._try(client, MODEL, policy, None)
