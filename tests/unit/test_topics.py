from __future__ import annotations

import pytest

from stream_judge.settings import KafkaSettings
from stream_judge.topics import judge_configs

SETTINGS = KafkaSettings()
GOOD = {
    "max.message.bytes": "1048588",
    "cleanup.policy": "delete",
    "retention.ms": "2592000000",
    "retention.bytes": "-1",
    "min.insync.replicas": "1",
}


def wrong(name: str, **changes: str) -> list[str]:
    configs = GOOD | {key.replace("_", "."): value for key, value in changes.items()}
    return [line for ok, line in judge_configs(name, configs, SETTINGS, 1) if not ok]


def test_topics_as_they_are_made_are_fine() -> None:
    assert wrong(SETTINGS.topic) == []
    assert wrong(SETTINGS.verdict_topic, cleanup_policy="compact") == []
    assert wrong(SETTINGS.dead_letter_topic) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (SETTINGS.dead_letter_topic, {"cleanup_policy": "compact"}, "last dead letter of a key"),
        (SETTINGS.verdict_topic, {}, "gone after 30 days"),
        # A usual default of companies.
        (
            SETTINGS.verdict_topic,
            {"cleanup_policy": "compact,delete", "retention_ms": "86400000"},
            "gone after 1 days, also the newest of a product; set cleanup.policy to compact alone",
        ),
        (
            SETTINGS.verdict_topic,
            {"retention_ms": "-1", "retention_bytes": "1000000"},
            "gone once a partition has 1000000 bytes",
        ),
        (SETTINGS.topic, {"min_insync_replicas": "2"}, "refuses every record"),
        (SETTINGS.dead_letter_topic, {"max_message_bytes": "1000"}, "kafka.max_record_bytes"),
    ],
)
def test_what_would_lose_records_is_said(name: str, change: dict[str, str], said: str) -> None:
    (line,) = wrong(name, **change)
    assert line.startswith(f"{name}: ")
    assert said in line


def test_verdicts_may_be_kept_for_ever_without_compaction() -> None:
    assert wrong(SETTINGS.verdict_topic, retention_ms="-1") == []
