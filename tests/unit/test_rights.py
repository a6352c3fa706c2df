from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    InvalidTransactionTimeout,
    KafkaConnectionError,
    KafkaError,
    NoError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)

from stream_judge import connection, rights
from stream_judge.rights import check_rights
from stream_judge.settings import KafkaSettings

ALL = frozenset({"Read", "Write"})


class StubAdmin:
    """A broker that allows everything, until it is told otherwise.

    Args:
        transactions: What it answers to whoever opens transactions.
        coordinator: Raised instead of naming a transaction coordinator.
    """

    def __init__(
        self,
        *,
        transactions: type[KafkaError] = NoError,
        coordinator: Exception | None = None,
    ) -> None:
        self._transactions = transactions
        self._coordinator = coordinator
        self.ids: list[str] = []

    async def start(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def find_coordinator(self, name: str, kind: int) -> int:
        if self._coordinator is not None:
            raise self._coordinator
        self.ids.append(name)
        return 1

    async def _send_request(self, request: Any, node: int) -> SimpleNamespace:
        return SimpleNamespace(error_code=self._transactions.errno)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def everything(admin: Any, name: str) -> frozenset[str]:
        return ALL

    # Below the pause between two questions: the first answer is the last.
    monkeypatch.setattr(rights, "_DEADLINE_S", 0.05)
    monkeypatch.setattr(rights, "topic_operations", everything)
    monkeypatch.setattr(rights, "group_operations", everything)


async def wrong(monkeypatch: pytest.MonkeyPatch, admin: StubAdmin, **kafka: Any) -> list[str]:
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", lambda **_: admin)
    return [line for ok, line in await check_rights(KafkaSettings(**kafka)) if not ok]


async def test_a_broker_with_transactions_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await wrong(monkeypatch, StubAdmin()) == []


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        (
            StubAdmin(coordinator=GroupCoordinatorNotAvailableError()),
            r"transaction\.state\.log\.replication\.factor and \.min\.isr.*kafka\.publisher",
        ),
        (
            # Its log can be made, and not be written.
            StubAdmin(transactions=GroupCoordinatorNotAvailableError),
            r"transaction\.state\.log\.replication\.factor and \.min\.isr",
        ),
        (
            StubAdmin(transactions=InvalidTransactionTimeout),
            r"kafka\.transaction_timeout_s is above .* transaction\.max\.timeout\.ms",
        ),
        (StubAdmin(coordinator=IncompatibleBrokerVersion("no")), "kafka.publisher to plain"),
        (StubAdmin(coordinator=TimeoutError()), "kafka.publisher to plain"),
        (StubAdmin(transactions=TransactionalIdAuthorizationFailed), "--transactional-id"),
    ],
)
async def test_a_broker_that_opens_no_transactions_is_wrong_with_what_to_do(
    admin: StubAdmin, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = await wrong(monkeypatch, admin)
    assert re.search(said, line), line
    assert await wrong(monkeypatch, admin, publisher="plain") == []


async def test_the_right_that_is_asked_for_is_of_the_ids_that_workers_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = StubAdmin(transactions=TransactionalIdAuthorizationFailed)
    (line,) = await wrong(monkeypatch, admin, application="judge", topic="eu-updates")
    assert line.endswith("--resource-pattern-type prefixed --transactional-id judge:")
    # Like a partition's, and none's.
    assert admin.ids == ["judge:eu-updates:doctor"]


async def test_a_group_without_coordinator_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(admin: Any, name: str) -> frozenset[str]:
        raise GroupCoordinatorNotAvailableError

    monkeypatch.setattr(rights, "group_operations", none)
    (line,) = await wrong(monkeypatch, StubAdmin())
    assert "offsets.topic.replication.factor" in line


async def test_a_broker_that_does_not_tell_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(admin: Any, name: str) -> frozenset[str]:
        raise IncompatibleBrokerVersion("too old")

    monkeypatch.setattr(rights, "topic_operations", silent)
    assert await wrong(monkeypatch, StubAdmin()) == []


async def test_a_connection_that_breaks_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(admin: Any, name: str) -> frozenset[str]:
        raise KafkaConnectionError("reset")

    monkeypatch.setattr(rights, "topic_operations", broken)
    lines = await wrong(monkeypatch, StubAdmin(), publisher="plain")
    assert len(lines) == 3
    assert all("the broker went away" in line for line in lines)


async def test_a_connection_that_breaks_once_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = [KafkaConnectionError("reset")]

    async def broken(admin: Any, name: str) -> frozenset[str]:
        if errors:
            raise errors.pop()
        return ALL

    monkeypatch.setattr(rights, "topic_operations", broken)
    monkeypatch.setattr(rights, "_DEADLINE_S", 10)
    monkeypatch.setattr(rights, "_AGAIN_S", 0)
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", lambda **_: StubAdmin())
    lines = await check_rights(KafkaSettings())
    assert not errors
    assert all(ok and "broker" not in line for ok, line in lines)


async def test_a_topic_that_is_not_there_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def absent(admin: Any, name: str) -> frozenset[str]:
        asked.append(name)
        raise UnknownTopicOrPartitionError

    monkeypatch.setattr(rights, "topic_operations", absent)
    monkeypatch.setattr(rights, "_DEADLINE_S", 10)
    assert await wrong(monkeypatch, StubAdmin(), publisher="plain") == []
    assert len(asked) == 3


async def test_reading_outcomes_back_is_advised_to_who_publishes_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = KafkaSettings()
    outputs = (settings.verdict_topic, settings.dead_letter_topic)

    async def blind(admin: Any, name: str) -> frozenset[str]:
        return ALL - {"Read"} if name in outputs else ALL

    monkeypatch.setattr(rights, "topic_operations", blind)
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", lambda **_: StubAdmin())
    lines = await check_rights(settings)
    assert all(ok for ok, _ in lines)
    missing = [line for _, line in lines if "missing" in line]
    assert [line.partition(":")[0] for line in missing] == [f"read {name}" for name in outputs]
    assert all("may repeat" in line for line in missing)
    assert all(f"--operation Read --topic {name}" in missing[i] for i, name in enumerate(outputs))
    plain = await check_rights(KafkaSettings(publisher="plain"))
    assert not any("missing" in line for _, line in plain)
