from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_judge import doctor
from stream_judge.doctor import examine, show
from stream_judge.errors import (
    BadOutputError,
    StreamJudgeError,
    TritonTimeoutError,
    TritonUnavailableError,
)
from stream_judge.export.repository import write_manifest
from stream_judge.findings import Finding, Status
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
    async def topics(settings: KafkaSettings) -> list[Finding]:
        return [Finding("topic", "ok", "fine")]

    async def rights(settings: KafkaSettings) -> list[tuple[bool, str]]:
        return [(True, right.says) for right in doctor.needed_rights(settings)]

    monkeypatch.setattr(doctor, "check_topics", topics)
    monkeypatch.setattr(doctor, "check_rights", rights)
    monkeypatch.setattr(doctor.os, "environ", {})


async def wrong(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, error: StreamJudgeError
) -> dict[str, str]:
    monkeypatch.setattr(doctor, "TritonJudge", lambda options: NoServer(error))
    return {found.what: found.detail for found in await examine(settings) if not found.ok}


async def notes(
    monkeypatch: pytest.MonkeyPatch, settings: Settings | None = None, **options: Any
) -> list[str]:
    """What is said and is no fault, where no model server is."""
    error = TritonUnavailableError("nobody there")
    monkeypatch.setattr(doctor, "TritonJudge", lambda options: NoServer(error))
    found = await examine(settings or read_settings(), **options)
    return [finding.detail for finding in found if finding.status == "note"]


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


@pytest.mark.parametrize("status", ["ok", "note", "wrong"])
def test_json_is_one_object_in_one_line(status: Status, capsys: pytest.CaptureFixture[str]) -> None:
    # As long as a terminal is not wide, and with what a terminal would draw.
    detail = "[red] kafka:key:1 " + "x" * 300
    findings = [Finding("broker", "ok", "fine"), Finding("topic", status, detail)]
    ok = status != "wrong"
    assert show(findings, as_json=True) == (0 if ok else 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "ok": ok,
        "findings": [
            {"what": "broker", "ok": True, "status": "ok", "detail": "fine"},
            {"what": "topic", "ok": ok, "status": status, "detail": detail},
        ],
    }


def test_a_table_tells_the_three_states_apart(capsys: pytest.CaptureFixture[str]) -> None:
    states: tuple[Status, ...] = ("ok", "note", "wrong")
    assert show([Finding("topic", state, "x") for state in states], as_json=False) == 1
    said = capsys.readouterr().out
    marks = [
        [cell.strip() for cell in line.split("│")][2]
        for line in said.splitlines()
        if "topic" in line
    ]
    assert marks == ["ok", "note", "WRONG"]


async def test_a_mistyped_variable_is_a_note_with_the_one_that_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = read_settings()
    names = ("STREAM_JUDGE_KAFKA_TOPIC", "STREAM_JUDGE_SERVICE_HOST")
    monkeypatch.setattr(doctor.os, "environ", dict.fromkeys(names, "x"))
    assert await notes(monkeypatch, settings) == [
        "STREAM_JUDGE_KAFKA_TOPIC is no setting: it does nothing; did you mean "
        "STREAM_JUDGE_KAFKA__TOPIC?",
        "STREAM_JUDGE_SERVICE_HOST is no setting: it does nothing",
    ]


async def test_a_right_that_is_missing_or_untold_is_no_plain_ok(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rights(settings: KafkaSettings) -> list[tuple[bool, str]]:
        first, second, third, *_ = (right.says for right in doctor.needed_rights(settings))
        return [
            (True, first),
            (True, f"{second}: missing, and not needed"),
            (False, f"{third}: missing"),
        ]

    monkeypatch.setattr(doctor, "check_rights", rights)
    found = await doctor._broker(read_settings().kafka)
    assert [right.status for right in found if right.what == "right"] == ["ok", "note", "wrong"]


async def test_topics_are_told_even_if_the_rights_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(settings: KafkaSettings) -> list[tuple[bool, str]]:
        raise StreamJudgeError("it went away")

    monkeypatch.setattr(doctor, "check_rights", gone)
    found = await doctor._broker(read_settings().kafka)
    assert [(one.what, one.status) for one in found] == [("topic", "ok"), ("broker", "wrong")]


@pytest.mark.parametrize(
    ("kafka", "said"),
    [
        ({"session_timeout_s": 5}, "kafka.session_timeout_s 5 is below 6"),
        ({"transaction_deadline_s": 11}, "kafka.transaction_deadline_s 11 is above"),
        ({"session_timeout_s": 6, "transaction_deadline_s": 10}, None),
        ({"transaction_deadline_s": 11, "publisher": "plain"}, None),
    ],
)
async def test_times_that_a_broker_would_not_have_are_notes(
    kafka: dict[str, Any], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await notes(monkeypatch, read_settings(kafka=kafka))
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


async def test_a_file_of_tls_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    settings = read_settings(triton={"tls": True, "ca_file": tmp_path / "none.pem"})
    found = {one.what: one for one in await examine(settings)}
    assert found["triton"].status == "wrong"
    assert "triton.ca_file" in found["triton"].detail


async def test_a_repository_is_held_against_its_manifest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/model.onnx").write_bytes(b"weights")
    (tmp_path / "m/config.pbtxt").write_text("as exported")
    write_manifest(tmp_path, name="m", version="1")
    error = TritonUnavailableError("x")
    monkeypatch.setattr(doctor, "TritonJudge", lambda options: NoServer(error))

    async def states() -> list[tuple[str, str]]:
        found = await examine(read_settings(), tmp_path)
        return [(one.status, one.detail) for one in found if one.what == "repository"]

    assert [status for status, _ in await states()] == ["ok"]
    (tmp_path / "m/config.pbtxt").write_text("with less memory")
    (_, (status, detail)) = await states()
    assert (status, "m/config.pbtxt was edited" in detail) == ("note", True)
    (tmp_path / "m/1/model.onnx").write_bytes(b"Weights")
    ((status, detail),) = await states()
    assert (status, "m/1/model.onnx is not the file" in detail) == ("wrong", True)
    (tmp_path / "manifest.json").unlink()
    ((status, detail),) = await states()
    assert (status, "no model repository" in detail) == ("wrong", True)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("policy_too_long", "shorten the texts"),
        ("policy_invalid", "export again"),
        ("internal", "answers a sound row of policy exact with internal"),
    ],
)
async def test_a_policy_that_the_server_refuses_is_told_with_what_to_do(
    status: str, said: str, make_judge: Any
) -> None:
    policy = make_judge()._policies.policies[0]
    client: Any = StubJudge(status=status)
    with pytest.raises(StreamJudgeError, match=said):
        await doctor._try(client, MODEL, policy, None)
