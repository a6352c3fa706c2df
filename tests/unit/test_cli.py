from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from stream_judge import cli, docs, exits
from stream_judge.errors import BrokerError, ConfigError, StalledError, StreamJudgeError
from stream_judge.settings import read_settings, unknown_variables


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_judge", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_error_is_one_line_with_its_code(tmp_path: Path) -> None:
    result = run("worker", "--settings", str(tmp_path / "none.toml"))
    assert result.returncode == 2
    assert result.stderr.startswith("stream-judge: config: settings file")
    assert "Traceback" not in result.stderr


def test_doctor_fails_when_something_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    nowhere = "127.0.0.1:1"
    path.write_text(f'[kafka]\nbootstrap_servers = "{nowhere}"\n[triton]\nurl = "{nowhere}"\n')
    result = run("doctor", "--settings", str(path))
    assert result.returncode == exits.UNAVAILABLE, result.stderr
    assert "WRONG" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["topics", "create"],
        ["topics", "check"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "0/1"],
        ["dead-letters", "redrive", "--all"],
        ["explain", "product-updates/0/1"],
    ],
)
def test_a_question_that_no_broker_answers_is_no_bad_answer(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, *command, "--set", "kafka.bootstrap_servers=127.0.0.1:1") == 69
    assert capsys.readouterr().err.startswith(
        "stream-judge: broker_unavailable: no broker lets us in at 127.0.0.1:1"
    )


@pytest.mark.parametrize(("error", "code"), [(BrokerError, 1), (StalledError, 1), (ConfigError, 2)])
def test_a_worker_that_cannot_start_keeps_to_its_own_codes(
    error: type[StreamJudgeError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(_: object) -> int:
        raise error("no")

    monkeypatch.setattr("stream_judge.worker.run_worker", fail)
    monkeypatch.setattr("stream_judge.logs.set_up_logs", lambda _: None)
    assert main(monkeypatch, "worker") == code
    assert capsys.readouterr().err == f"stream-judge: {error.code}: no\n"


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "p-000001-0.jpg")

    monkeypatch.setattr("stream_judge.catalogue.events.make_catalogue", full)
    monkeypatch.setattr(sys, "argv", ["stream-judge", "catalogue", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "stream-judge: environment: no room left on the disk: p-000001-0.jpg\n"
    )


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["stream-judge", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_a_place_where_nothing_can_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    taken = tmp_path / "shop"
    taken.write_text("")
    assert main(monkeypatch, "catalogue", "--count", "1", "--out", str(taken / "x")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"stream-judge: environment: {taken}")
    assert said.endswith(": Not a directory\n")


def test_an_error_of_the_system_that_names_no_file_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("stream_judge.catalogue.events.make_catalogue", broken)
    monkeypatch.setattr(sys, "argv", ["stream-judge", "catalogue", "--out", str(tmp_path)])
    with pytest.raises(OSError, match="Bad file"):
        cli.main()


@pytest.mark.parametrize(
    "command",
    [
        ["worker"],
        ["judge", "event.json"],
        ["doctor"],
        ["topics", "create"],
        ["topics", "check"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "0/1"],
        ["dead-letters", "redrive"],
        ["explain", "updates/0/1"],
    ],
)
def test_every_command_with_settings_takes_them_as_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(monkeypatch, *command, "--set", "web.port=1", "--set", "kafka.topic=a b") == 2
    assert "config: settings: kafka.topic: " in capsys.readouterr().err


def test_help_lists_the_commands() -> None:
    said = run("--help").stdout
    for command in ("worker", "judge", "demo", "doctor", "topics", "export", "triton", "train"):
        assert command in said


def test_catalogue_draws_into_a_folder(tmp_path: Path) -> None:
    result = run("catalogue", "--count", "6", "--seed", "9", "--out", str(tmp_path / "shop"))
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "shop/truth.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "shop/pictures").iterdir())) >= 1


def test_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[kafka]\ntopic = "file"\nverdict_topic = "file"\n')
    monkeypatch.setenv("STREAM_JUDGE_KAFKA__TOPIC", "environment")
    settings = read_settings(path)
    assert (settings.kafka.topic, settings.kafka.verdict_topic) == ("environment", "file")


@pytest.mark.parametrize("content", ["[kafka]\nnope = 1\n", "[window]\nmax_records = 0\n", "{"])
def test_settings_that_cannot_work_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        read_settings(path)


def test_a_list_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_JUDGE_KAFKA__INSTANCE_ID", "pod-0")
    monkeypatch.setenv("STREAM_JUDGE_IMAGES__ALLOWED_HOSTS", "store.internal")
    with pytest.raises(ConfigError, match=r"IMAGES__ALLOWED_HOSTS is 'store.internal'.*JSON"):
        read_settings()


def test_a_mistyped_variable_is_found() -> None:
    environment = {
        "STREAM_JUDGE_KAFKA_TOPIC": "one underscore",
        "STREAM_JUDGE_KAKFA__TOPIC": "another section",
        "stream_judge_kafka__topic": "as good as in capitals",
        "STREAM_JUDGE_MAPPING": "a value of its own",
        "PATH": "/bin",
    }
    found = unknown_variables(environment)
    assert found == ["STREAM_JUDGE_KAFKA_TOPIC", "STREAM_JUDGE_KAKFA__TOPIC"]


def test_a_password_is_never_shown() -> None:
    account = {"sasl_username": "judge", "sasl_password": "hunter2"}
    settings = read_settings(kafka={"security_protocol": "SASL_SSL", **account})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_docs_cover_every_setting() -> None:
    page = docs.pages()["settings.md"]
    for name in ("KAFKA__TOPIC", "WINDOW__MAX_BYTES", "IMAGES__MAX_PIXELS", "TRITON__URL"):
        assert f"STREAM_JUDGE_{name}`" in page


@pytest.mark.parametrize(
    ("command", "work", "result"),
    [
        (["judge", "event.json"], "commands.judge_event.judge_event", 0),
        (["doctor"], "doctor.examine", []),
    ],
)
def test_logs_are_set_up_before_the_work(
    command: list[str], work: str, result: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def do(*_: object) -> object:
        done.append("work")
        return result

    monkeypatch.setattr(f"stream_judge.{work}", do)
    monkeypatch.setattr("stream_judge.logs.set_up_logs", lambda log: done.append(log.level))
    monkeypatch.setenv("STREAM_JUDGE_LOG__LEVEL", "error")
    assert main(monkeypatch, *command) in (0, None)
    assert done == ["error", "work"]
