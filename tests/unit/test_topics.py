from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.admin import DescribeConfigsRequest

from stream_judge import connection, topics
from stream_judge.errors import BrokerError
from stream_judge.findings import Status
from stream_judge.settings import KafkaSettings
from stream_judge.topics import check_topics, create_topics, judge_configs

SETTINGS = KafkaSettings()
GOOD = {
    "max.message.bytes": "1048588",
    "cleanup.policy": "delete",
    "retention.ms": "2592000000",
    "retention.bytes": "-1",
    "min.insync.replicas": "1",
}
OUTPUTS = (SETTINGS.verdict_topic, SETTINGS.dead_letter_topic)
SOUND = {"error_code": 0, "partition": 0, "leader": 1, "replicas": [1], "isr": [1]}


class StubBroker:
    """A broker whose three topics are sound, until it is told otherwise.

    Args:
        partitions: Of every topic.
        least: Every topic's `min.insync.replicas`.
        metadata: Errors of the source topic's metadata, one for each time that it is asked.
        configs: Errors of the source topic's configuration, likewise; or raised.
        odd: What every topic's configuration has in place of what is sound.
        refused: Error and message for a topic that is to be made, by its name.
    """

    def __init__(
        self,
        *partitions: dict[str, Any],
        least: int = 1,
        odd: dict[str, str] | None = None,
        metadata: tuple[type[KafkaError], ...] = (),
        configs: tuple[type[KafkaError], ...] | Exception = (),
        refused: dict[str, tuple[type[KafkaError], str | None]] | None = None,
    ) -> None:
        self._partitions = partitions or (SOUND,)
        self._least = least
        self._metadata = iter(metadata)
        self._configs = configs if isinstance(configs, Exception) else iter(configs)
        self._refused = refused or {}
        self._odd = odd or {}
        self.there = [SETTINGS.verdict_topic]
        self.made: dict[str, dict[str, str]] = {}
        self._client = self

    async def start(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def list_topics(self) -> list[str]:
        return self.there

    async def create_topics(self, new: list[Any]) -> SimpleNamespace:
        error, message = self._refused.get(new[0].name, (NoError, None))
        self.made[new[0].name] = new[0].topic_configs
        return SimpleNamespace(topic_errors=[(new[0].name, error.errno, message)])

    async def ask(self, client: Any, request: Any) -> SimpleNamespace:
        if isinstance(request, DescribeConfigsRequest):
            if isinstance(self._configs, Exception):
                raise self._configs
            _, name, asked = request._resources[0]
            policy = "compact" if name == SETTINGS.verdict_topic else "delete"
            found = GOOD | {"cleanup.policy": policy, "min.insync.replicas": str(self._least)}
            found |= self._odd
            entries = [
                {"config_names": key, "config_value": found[key]} for key in found if key in asked
            ]
            answer = {"error_code": self._next(name, self._configs), "config_entries": entries}
            return SimpleNamespace(to_object=lambda: {"resources": [answer]})
        (name,) = request._topics
        code = self._next(name, self._metadata)
        topic = {"error_code": code, "partitions": () if code else self._partitions}
        return SimpleNamespace(to_object=lambda: {"topics": [topic]})

    def _next(self, name: str, errors: Iterator[type[KafkaError]]) -> int:
        return next(errors, NoError).errno if name == SETTINGS.topic else 0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "_PAUSE_S", 0)


def use(monkeypatch: pytest.MonkeyPatch, broker: StubBroker) -> None:
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", lambda **_: broker)
    monkeypatch.setattr(topics, "ask_any", broker.ask)


async def faults(monkeypatch: pytest.MonkeyPatch, broker: StubBroker) -> list[str]:
    """What is wrong with the source topic."""
    use(monkeypatch, broker)
    found = await check_topics(SETTINGS)
    return [
        topic.detail
        for topic in found
        if not topic.ok and topic.detail.startswith(f"{SETTINGS.topic}:")
    ]


def judged(status: Status, name: str, copies: int = 1, **changes: str) -> list[str]:
    """What is said of a topic that is sound but for some changes."""
    compact = {"cleanup.policy": "compact"} if name == SETTINGS.verdict_topic else {}
    configs = GOOD | compact | {key.replace("_", "."): value for key, value in changes.items()}
    found = judge_configs(name, configs, SETTINGS, copies, copies)
    return [topic.detail for topic in found if topic.status == status]


@pytest.mark.parametrize("name", OUTPUTS)
def test_topics_as_they_are_made_are_fine(name: str) -> None:
    for copies, least in ((1, "1"), (3, "2")):
        assert judged("wrong", name, copies, min_insync_replicas=least) == []
    assert judged("note", name, 3, min_insync_replicas="2") == []
    assert judged("wrong", SETTINGS.topic) == judged("note", SETTINGS.topic) == []


async def test_two_of_three_replicas_have_to_confirm_what_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for replication, least in ((1, None), (2, None), (3, "2"), (5, "2")):
        broker = StubBroker()
        broker.there = []
        use(monkeypatch, broker)
        await create_topics(SETTINGS, 12, replication)
        assert {name: broker.made[name].get("min.insync.replicas") for name in OUTPUTS} == (
            dict.fromkeys(OUTPUTS, least)
        )
        assert "min.insync.replicas" not in broker.made[SETTINGS.topic]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_broker_that_may_confirm_alone_is_wrong_where_there_are_others(name: str) -> None:
    (line,) = judged("wrong", name, 3)
    assert line == (
        f"{name}: one broker may confirm alone (min.insync.replicas 1), and forget alone; "
        "set it to 2"
    )
    (line,) = judged("note", name, 2)
    assert "may confirm alone" in line
    assert judged("wrong", name, 2) == []
    assert judged("wrong", SETTINGS.topic, 3) == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_single_replica_is_said_and_is_no_fault(name: str) -> None:
    (line,) = judged("note", name)
    assert line.startswith(f"{name}: there is 1 replica: a disk that is lost loses outcomes")


async def test_a_leader_that_lacks_outcomes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SOUND | {"replicas": [1, 2, 3], "isr": [1, 2, 3]}
    said = {}
    for value in ("true", "false"):
        odd = {"unclean.leader.election.enable": value}
        use(monkeypatch, StubBroker(whole, least=2, odd=odd))
        said[value] = [topic for topic in await check_topics(SETTINGS) if topic.status != "ok"]
    assert [topic.status for topic in said["true"]] == ["note", "note"]
    assert all("lacks confirmed outcomes; set it to false" in x.detail for x in said["true"])
    assert said["false"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"retention_ms": "86400000"}, "gone after 1 days, redriven or not"),
        ({"retention_bytes": "1000"}, "gone after 30 days or once a partition has 1000 bytes"),
        ({"retention_ms": "604800000"}, None),
        ({"retention_ms": "-1"}, None),
    ],
)
def test_dead_letters_that_soon_are_gone_are_said(change: dict[str, str], said: str | None) -> None:
    name = SETTINGS.dead_letter_topic
    lines = judged("note", name, 3, min_insync_replicas="2", **change)
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (SETTINGS.dead_letter_topic, {"cleanup_policy": "compact"}, "last dead letter of a key"),
        (SETTINGS.verdict_topic, {"cleanup_policy": "delete"}, "gone after 30 days"),
        # A usual default of companies.
        (
            SETTINGS.verdict_topic,
            {"cleanup_policy": "compact,delete", "retention_ms": "86400000"},
            "gone after 1 days, also the newest of a product; set cleanup.policy to compact alone",
        ),
        (
            SETTINGS.verdict_topic,
            {"cleanup_policy": "delete", "retention_ms": "-1", "retention_bytes": "1000000"},
            "gone once a partition has 1000000 bytes",
        ),
        (SETTINGS.topic, {"min_insync_replicas": "2"}, "refuses every record"),
        (SETTINGS.dead_letter_topic, {"max_message_bytes": "1000"}, "kafka.max_record_bytes"),
    ],
)
def test_what_would_lose_records_is_said(name: str, change: dict[str, str], said: str) -> None:
    (line,) = judged("wrong", name, **change)
    assert line.startswith(f"{name}: ")
    assert said in line


def test_verdicts_may_be_kept_for_ever_without_compaction() -> None:
    name = SETTINGS.verdict_topic
    assert judged("wrong", name, cleanup_policy="delete", retention_ms="-1") == []


async def test_a_partition_without_a_leader_is_named_with_its_brokers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As Kafka 4.3 answers: error 5 of the partition, none of the topic.
    dead = {"error_code": 5, "leader": -1, "replicas": [3, 2], "isr": [2]}
    broker = StubBroker(SOUND, dead | {"partition": 4}, dead | {"partition": 2})
    (line,) = await faults(monkeypatch, broker)
    assert "no leader for partition 2, 4" in line
    assert line.endswith("start the brokers that hold it (2, 3)")


async def test_a_leader_that_is_being_elected_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Electing(StubBroker):
        async def ask(self, client: Any, request: Any) -> SimpleNamespace:
            answer = await super().ask(client, request)
            self._partitions = (SOUND,)
            return answer

    assert await faults(monkeypatch, Electing(SOUND | {"error_code": 5, "leader": -1})) == []


async def test_too_few_replicas_in_sync_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SOUND | {"replicas": [1, 2, 3], "isr": [1, 2]}
    assert await faults(monkeypatch, StubBroker(whole, least=2)) == []
    (line,) = await faults(monkeypatch, StubBroker(whole, whole | {"isr": [1]}, least=2))
    assert "min.insync.replicas 2" in line
    assert "with 1 in sync; start the brokers" in line


@pytest.mark.parametrize("asked", ["metadata", "configs"])
async def test_what_passes_by_itself_is_asked_again(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = (LeaderNotAvailableError, UnknownTopicOrPartitionError)
    assert await faults(monkeypatch, StubBroker(**{asked: passing})) == []  # type: ignore[arg-type]  # by name
    (line,) = await faults(monkeypatch, StubBroker(**{asked: passing[:1] * 9}))  # type: ignore[arg-type]  # by name
    assert "LeaderNotAvailableError (5)" in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnknownTopicOrPartitionError, "missing; run `stream-judge topics create`"),
        (InvalidTopicError, "the broker answers InvalidTopicError (17)"),
        (TopicAuthorizationFailedError, "may not see it"),
    ],
)
async def test_only_a_topic_that_is_not_there_is_missing(
    error: type[KafkaError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = await faults(monkeypatch, StubBroker(metadata=(error,) * 9))
    assert said in line
    assert ("topics create" in line) is (error is UnknownTopicOrPartitionError)


@pytest.mark.parametrize(
    "broker",
    [
        StubBroker(configs=(TopicAuthorizationFailedError,)),
        StubBroker(configs=IncompatibleBrokerVersion("too old")),
    ],
)
async def test_sizes_that_nobody_tells_are_no_fault(
    broker: StubBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, broker)
    found = await check_topics(SETTINGS)
    assert all(topic.ok for topic in found)
    assert found[1].status == "note"
    assert "sizes" in found[1].detail


async def test_a_broker_that_goes_away_has_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, StubBroker(configs=KafkaConnectionError("reset")))
    with pytest.raises(BrokerError, match="went away"):
        await check_topics(SETTINGS)


async def test_a_refused_topic_is_told_with_those_that_were_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = SETTINGS.dead_letter_topic
    use(monkeypatch, StubBroker(refused={name: (PolicyViolationError, None)}))
    with pytest.raises(BrokerError) as refused:
        await create_topics(SETTINGS, 12, 3)
    assert refused.value.message == (
        f"{name}: PolicyViolationError; {SETTINGS.topic}: made with 12 partitions; "
        f"{SETTINGS.verdict_topic}: is there already"
    )


async def test_more_replicas_than_brokers_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = (InvalidReplicationFactorError, "only 1 broker(s) are registered.")
    use(monkeypatch, StubBroker(refused={SETTINGS.topic: few}))
    with pytest.raises(BrokerError) as refused:
        await create_topics(SETTINGS, 12, 3)
    assert refused.value.message == (
        f"{SETTINGS.topic}: InvalidReplicationFactorError: only 1 broker(s) are registered; "
        "lower --replication to the number of brokers"
    )
