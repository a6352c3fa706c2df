from __future__ import annotations

from pathlib import Path

import pytest

from stream_judge.errors import ConfigError
from stream_judge.settings import meant_variable, read_settings


def refused(**kafka: object) -> str:
    with pytest.raises(ConfigError) as problem:
        read_settings(kafka=kafka)
    assert "\n" not in problem.value.message
    return problem.value.message


@pytest.mark.parametrize(
    "topics",
    [
        {"topic": "x", "verdict_topic": "x"},
        {"topic": "x", "dead_letter_topic": "x"},
        {"verdict_topic": "x", "dead_letter_topic": "x"},
        {"verdict_topic": "product-updates"},
    ],
)
def test_outcomes_do_not_go_where_updates_come_from(topics: dict[str, str]) -> None:
    assert refused(**topics) == (
        "settings: kafka: topic, verdict_topic and dead_letter_topic have to be three topics"
    )


@pytest.mark.parametrize("name", ["topic", "verdict_topic", "dead_letter_topic"])
@pytest.mark.parametrize("topic", ["", "a b", "a/b", "t" * 250])
def test_a_name_that_no_topic_can_have_is_refused(name: str, topic: str) -> None:
    assert f"kafka.{name}: " in refused(**{name: topic})


def test_a_choice_that_only_the_other_publisher_asks_for_is_refused() -> None:
    assert "on_missing_offset" in refused(publisher="plain", on_missing_offset="latest")
    read_settings(kafka={"publisher": "plain"})
    read_settings(kafka={"on_missing_offset": "latest"})


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[kafka\n", "line 1, column 7"), (b'[web]\nbind = "\xff"', "utf-8")],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^settings file {path}: .*{said}"):
        read_settings(path)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    with pytest.raises(ConfigError, match=r"^settings file .*mine.toml: Permission denied$"):
        read_settings(tmp_path / "mine.toml")


def test_flags_go_before_the_environment_and_leave_the_rest_of_a_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[kafka]\ntopic = "file"\napplication = "file"\n')
    monkeypatch.setenv("STREAM_JUDGE_KAFKA__TOPIC", "environment")
    monkeypatch.setenv("STREAM_JUDGE_KAFKA__VERDICT_TOPIC", "environment")
    flags = [
        "kafka.topic=first",
        "kafka.topic=flag",
        "window.max_records=7",
        'images.own_hosts=["store.internal"]',
        "mapping=a=b.yaml",
    ]
    found = read_settings(path, flags)
    kafka = found.kafka
    assert (kafka.topic, kafka.verdict_topic, kafka.application) == ("flag", "environment", "file")
    assert found.window.max_records == 7
    assert found.images.own_hosts == {"store.internal"}
    assert found.mapping == Path("a=b.yaml")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("kafka.topic", "write section.name=value"),
        ("=x", "no such setting"),
        ("kafka.topik=x", "no such setting"),
        ("kafka.topic.name=x", "no such setting"),
        ("kafka=x", "no such setting"),
        ("window.max_records=none", "window.max_records"),
        ("images.own_hosts=store.internal", "a list is JSON"),
        ("images.own_hosts=5", "images.own_hosts"),
    ],
)
def test_a_flag_that_sets_nothing_is_refused(flag: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(None, [flag])


def test_a_secret_on_the_command_line_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="STREAM_JUDGE_KAFKA__SASL_PASSWORD") as problem:
        read_settings(None, ["kafka.sasl_password=hunter2"])
    assert "hunter2" not in problem.value.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "KAFKA__TOPIK",
            "kafka.topik (STREAM_JUDGE_KAFKA__TOPIK): there is no such setting; did "
            "you mean STREAM_JUDGE_KAFKA__TOPIC?",
        ),
        (
            "kafka__batch_size",
            "kafka.batch_size (STREAM_JUDGE_KAFKA__BATCH_SIZE): there is no such "
            "setting; did you mean STREAM_JUDGE_TRITON__BATCH_SIZE?",
        ),
        ("WEB__FOO", "web.foo (STREAM_JUDGE_WEB__FOO): there is no such setting"),
    ],
)
def test_a_variable_of_a_section_that_is_no_setting_is_named(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STREAM_JUDGE_{name}", "secret")
    with pytest.raises(ConfigError) as problem:
        read_settings()
    assert problem.value.message == f"settings: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "[kafka]\ntopik = 1\n",
            "kafka.topik (in {}): there is no such setting; did you mean kafka.topic?",
        ),
        ("[kafak]\ntopic = 1\n", "kafak (in {}): there is no such setting; did you mean kafka?"),
        ("topic = 1\n", "topic (in {}): there is no such setting; did you mean kafka.topic?"),
        (
            "[web]\nfoo = 1\nport = -1\n",
            "web.port: Input should be greater than or equal to 0; "
            "web.foo (in {}): there is no such setting",
        ),
    ],
)
def test_a_name_in_a_file_that_is_no_setting_is_told_with_the_file(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as problem:
        read_settings(path)
    assert problem.value.message == "settings: " + said.format(path)


def test_an_unknown_override_is_not_said_to_be_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"settings: web.prot: there is .* mean web.port\?$"):
        read_settings(path, web={"prot": 1})


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("kafka.topik=x", "kafka.topic"), ("kakfa.topic=x", "kafka.topic"), ("kafka=x", None)],
)
def test_a_flag_that_is_no_setting_is_told_with_the_one_that_is_meant(
    flag: str, meant: str | None
) -> None:
    with pytest.raises(ConfigError, match="write section.name=value") as problem:
        read_settings(None, [flag])
    assert ("did you mean" in problem.value.message) == (meant is not None)
    assert meant is None or f"did you mean {meant}?" in problem.value.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("STREAM_JUDGE_KAFKA_TOPIC", "STREAM_JUDGE_KAFKA__TOPIC"),
        ("stream_judge_window_retry_last_s", "STREAM_JUDGE_WINDOW__RETRY_LAST_S"),
        ("STREAM_JUDGE_KAKFA__TOPIC", "STREAM_JUDGE_KAFKA__TOPIC"),
        # As Kubernetes sets them for a service of that name.
        ("STREAM_JUDGE_SERVICE_HOST", None),
        ("STREAM_JUDGE_PORT_6066_TCP_ADDR", None),
        ("STREAM_JUDGE_PORT", None),
    ],
)
def test_the_variable_that_is_meant_is_found(name: str, meant: str | None) -> None:
    assert meant_variable(name) == meant


def test_times_that_contradict_each_other_are_refused() -> None:
    for window in ({"retry_first_s": 11}, {"retry_last_s": 0.1}):
        with pytest.raises(ConfigError, match=r"window: retry_first_s .* is above retry_last_s"):
            read_settings(window=window)
    read_settings(window={"retry_first_s": 10})
    with pytest.raises(ConfigError, match="images: connect_timeout_s 11 is above total_timeout_s"):
        read_settings(images={"connect_timeout_s": 11})
    read_settings(images={"connect_timeout_s": 10})
    # Nobody has set the connect_timeout_s that is above it.
    read_settings(images={"total_timeout_s": 1})


@pytest.mark.parametrize(
    ("triton", "said"),
    [
        ({"ca_file": "a.pem"}, "ca_file: set tls to true"),
        ({"cert_file": "a", "key_file": "b"}, "cert_file, key_file: set tls to true"),
        ({"tls": True, "cert_file": "a"}, "cert_file and key_file go together"),
        ({"tls": True, "key_file": "a"}, "cert_file and key_file go together"),
    ],
)
def test_a_protection_of_triton_that_would_not_be_there_is_refused(
    triton: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"settings: triton: {said}"):
        read_settings(triton=triton)
