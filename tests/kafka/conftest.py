"""A real Apache Kafka for the tests of delivery; see `STREAM_JUDGE_TEST_BOOTSTRAP_SERVERS`."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from stream_judge.embedded.kafka import EmbeddedKafka
from stream_judge.embedded.kafka_jars import find_java, kafka_jars
from stream_judge.errors import EnvironmentProblem
from stream_judge.settings import KafkaSettings
from stream_judge.topics import create_topics
from tests.background import BackgroundLoop

_OTHER = "STREAM_JUDGE_TEST_BOOTSTRAP_SERVERS"


@pytest.fixture(scope="session")
def needs_kafka() -> None:
    """For tests that start clusters of their own."""
    try:
        find_java()
        kafka_jars()
    except EnvironmentProblem as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Apache Kafka: {exc.message}; or set {_OTHER}")


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest) -> Iterator[str]:
    """Addresses of the cluster under test."""
    if other := os.environ.get(_OTHER):
        yield other
        return
    request.getfixturevalue("needs_kafka")
    with BackgroundLoop() as background:
        cluster = EmbeddedKafka()
        background.run(cluster.start())
        yield cluster.bootstrap
        background.run(cluster.stop())


@pytest.fixture
async def settings(bootstrap: str) -> AsyncIterator[KafkaSettings]:
    """Settings with topics and a group of the test's own; two partitions."""
    name = uuid.uuid4().hex[:8]
    found = KafkaSettings(
        bootstrap_servers=bootstrap,
        application=f"test-{name}",
        topic=f"updates-{name}",
        verdict_topic=f"verdicts-{name}",
        dead_letter_topic=f"letters-{name}",
        session_timeout_s=6.0,
        transaction_deadline_s=5.0,
    )
    await create_topics(found, 2, 1)
    yield found
