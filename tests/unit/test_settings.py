from __future__ import annotations

from pathlib import Path

import pytest

from stream_judge.errors import ConfigError
from stream_judge.settings import read_settings


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
