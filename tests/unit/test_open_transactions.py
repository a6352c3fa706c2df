"""How the leaders of output partitions are asked what producers have open."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge import open_transactions as module
from stream_judge.open_transactions import LeftOpen, OpenTransactions
from stream_judge.settings import KafkaSettings

SETTINGS = KafkaSettings(verdict_topic="verdicts", dead_letter_topic="letters")
A, B, C = TopicPartition("verdicts", 0), TopicPartition("verdicts", 1), TopicPartition("letters", 0)


class Cluster:
    """Two brokers; each can answer with errors, a while or for good."""

    def __init__(self) -> None:
        self.leaders = {A: 1, B: 2, C: 1}
        self.open: dict[TopicPartition, list[tuple[int, int]]] = {}
        self.errors: dict[TopicPartition, list[int]] = {}
        self.failing: list[Exception] = []
        self.asked: list[tuple[int, list[TopicPartition]]] = []
        self.pause = asyncio.Event()
        self.pause.set()
        self.started = self.closed = 0
        nodes = [SimpleNamespace(nodeId=node) for node in (1, 2)]
        self._client = SimpleNamespace(
            cluster=SimpleNamespace(update_metadata=lambda _: None, brokers=lambda: nodes),
            set_topics=lambda topics: None,
            send=lambda node, request: self._send_request(request, node),
        )
        self.away: list[Exception] = []

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    async def _send_request(self, request: Any, node: int | None = None) -> Any:
        if isinstance(request, MetadataRequest):
            if self.away:
                raise self.away.pop(0)
            return SimpleNamespace(to_object=self._metadata)
        assert node is not None
        await self.pause.wait()
        topics, _ = request.build(lambda *fields: fields)
        partitions = [TopicPartition(topic, n) for topic, numbers, _ in topics for n in numbers]
        self.asked.append((node, partitions))
        if self.failing:
            raise self.failing.pop(0)
        return SimpleNamespace(topics=[(tp.topic, [self._row(tp)], {}) for tp in partitions])

    def _metadata(self) -> dict[str, Any]:
        topics: dict[str, list[dict[str, int]]] = {"letters": [], "verdicts": []}
        for tp, leader in self.leaders.items():
            topics[tp.topic].append({"partition": tp.partition, "leader": leader})
        return {
            "topics": [{"topic": name, "partitions": rows} for name, rows in topics.items()],
        }

    def _row(self, tp: TopicPartition) -> Any:
        code = self.errors[tp].pop(0) if self.errors.get(tp) else 0
        producers = [(pid, 3, 7, 0, 0, begin, {}) for pid, begin in self.open.get(tp, ())]
        return tp.partition, code, None, None if code else producers, {}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(module, "AIOKafkaAdminClient", lambda **_: made)
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    return made


async def test_each_leader_is_asked_for_its_partitions(cluster: Cluster) -> None:
    # -1: it has written there, and nothing is open.
    cluster.open = {A: [(7, 12), (8, -1)], B: [(8, 3)], C: [(7, 0)]}
    transactions = OpenTransactions(SETTINGS)
    assert await transactions.of(7) == LeftOpen({A: 12, C: 0})
    assert await transactions.of(8) == LeftOpen({B: 3})
    assert await transactions.of(9) == LeftOpen({})
    assert await transactions.holders() == ({(7, 3), (8, 3)}, set())
    assert [(node, sorted(found)) for node, found in cluster.asked[:2]] == [(1, [C, A]), (2, [B])]
    await transactions.stop()
    assert (cluster.started, cluster.closed) == (1, 1)


async def test_lanes_that_wait_share_an_answer_and_none_gets_an_older_one(
    cluster: Cluster,
) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.pause.clear()
    first = asyncio.create_task(transactions.of(1))
    await asyncio.sleep(0.01)
    # These came after the first answer was asked for.
    others = [asyncio.create_task(transactions.of(2)) for _ in range(5)]
    await asyncio.sleep(0.01)
    cluster.pause.set()
    cluster.open = {A: [(2, 4)]}
    assert await first == LeftOpen({})
    assert await asyncio.gather(*others) == [LeftOpen({A: 4})] * 5
    assert len(cluster.asked) == 2 * 2


async def test_a_new_leader_is_waited_for_and_a_partition_without_one_only_for_a_while(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.open = {A: [(7, 12)], B: [(7, 3)], C: [(7, 1)]}
    cluster.errors = {
        A: [NotLeaderForPartitionError.errno],
        C: [UnknownTopicOrPartitionError.errno] * 2,
    }
    cluster.failing = [KafkaConnectionError()]
    assert await transactions.of(7) == LeftOpen({A: 12, B: 3, C: 1})
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    cluster.leaders[B] = -1
    assert await transactions.of(7) == LeftOpen({A: 12, C: 1}, unknown=frozenset({B}))
    assert await transactions.holders() == ({(7, 3)}, {B})


async def test_who_may_not_read_or_asks_an_old_broker_finds_nothing(cluster: Cluster) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.open = {A: [(7, 12)], C: [(7, 0)]}
    cluster.errors = {A: [TopicAuthorizationFailedError.errno]}
    assert await transactions.of(7) == LeftOpen({C: 0})
    cluster.failing = [IncompatibleBrokerVersion()] * 2
    assert await transactions.of(7) == LeftOpen({})


async def test_a_refusal_is_raised_and_asked_anew_by_another_client(cluster: Cluster) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.errors = {A: [ClusterAuthorizationFailedError.errno]}
    with pytest.raises(ClusterAuthorizationFailedError, match="producers of verdicts/0"):
        await transactions.of(7)
    cluster.open = {A: [(7, 12)]}
    assert await transactions.of(7) == LeftOpen({A: 12})
    assert (cluster.started, cluster.closed) == (2, 1)


async def test_a_broker_that_is_away_is_asked_again_and_another_one_too(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.open = {A: [(7, 12)]}
    # Both brokers are away, then one.
    cluster.away = [NodeNotReadyError()] * 3
    assert await transactions.of(7) == LeftOpen({A: 12})
    monkeypatch.setattr(module, "_PATIENCE_S", -1.0)
    cluster.away = [NodeNotReadyError()] * 2
    with pytest.raises(NodeNotReadyError):
        await transactions.of(7)
    assert (cluster.started, cluster.closed) == (1, 1)


async def test_whoever_is_cancelled_while_it_asks_leaves_nothing_that_hangs(
    cluster: Cluster,
) -> None:
    transactions = OpenTransactions(SETTINGS)
    cluster.pause.clear()
    first, second = (asyncio.create_task(transactions.of(7)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    cluster.open = {A: [(7, 12)]}
    cluster.pause.set()
    assert await asyncio.wait_for(second, 1) == LeftOpen({A: 12})
    assert (cluster.started, cluster.closed) == (2, 1)


async def test_a_leader_of_many_partitions_is_asked_for_some_at_a_time(cluster: Cluster) -> None:
    many = [TopicPartition("verdicts", number) for number in range(70)]
    cluster.leaders = dict.fromkeys(many, 1)
    cluster.open = {many[69]: [(7, 12)]}
    assert await OpenTransactions(SETTINGS).of(7) == LeftOpen({many[69]: 12})
    assert [len(partitions) for _, partitions in cluster.asked] == [32, 32, 6]
    # One that hangs would do so for each.
    cluster.asked.clear()
    cluster.failing = [KafkaConnectionError()]
    assert await OpenTransactions(SETTINGS).of(7) == LeftOpen({many[69]: 12})
    assert [len(partitions) for _, partitions in cluster.asked] == [32, 32, 32, 6]
