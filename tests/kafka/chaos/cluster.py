"""Apache Kafka for storms: workers come through a proxy, the checker does not."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_judge.embedded.kafka import EmbeddedKafka, KafkaOptions
from stream_judge.processes import free_port
from tests.kafka.chaos.logs import known_partitions, started
from tests.kafka.chaos.proxy import KafkaProxy

_MAX_MESSAGE = "20000000"
_CONFIG = {
    "message.max.bytes": _MAX_MESSAGE,
    "replica.fetch.max.bytes": _MAX_MESSAGE,
    # Every 10 s by default: most transactions past their time-out would be over by then.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}
_ACCOUNT = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "worker",
    "sasl_password": "storm",
}
# The workers' account may do everything until an ACL says otherwise.
_GUARDED = {
    "listener.name.proxied.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.proxied.plain.sasl.jaas.config": (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'user_{_ACCOUNT["sasl_username"]}="{_ACCOUNT["sasl_password"]}";'
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "true",
}


class StormCluster:
    """A cluster of one or three nodes.

    With one node its workers' listener is advertised at a proxy; with three there is none.

    Args:
        nodes: Brokers.
        accounts: Whether workers have to log in, and rights can be taken from them; one
            node only.
    """

    def __init__(self, nodes: int = 1, *, accounts: bool = False) -> None:
        if accounts and nodes > 1:
            raise ValueError("accounts are for one node: its workers come through the proxy")
        self.nodes = nodes
        self.proxy: KafkaProxy | None = None
        config = dict(_CONFIG)
        #: Kafka settings with which workers log in.
        self.worker_account: dict[str, str] = {}
        listeners: dict[str, tuple[str, int]] = {}
        port = 0
        if nodes == 1:
            port, proxied, front = free_port(), free_port(), free_port()
            listeners["PROXIED"] = ("SASL_PLAINTEXT" if accounts else "PLAINTEXT", proxied)
            config["advertised.listeners"] = (
                f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{front}"
            )
            self.proxy = KafkaProxy(front, proxied)
            self._front = front
        if accounts:
            config |= _GUARDED
            self.worker_account = _ACCOUNT
        self.kafka = EmbeddedKafka(
            KafkaOptions(nodes=nodes, port=port, listeners=listeners, config=config)
        )
        self._readers: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    @property
    def bootstrap(self) -> str:
        """For load and checker."""
        return self.kafka.bootstrap

    @property
    def workers_bootstrap(self) -> str:
        """For the workers."""
        return f"127.0.0.1:{self._front}" if self.proxy else self.kafka.bootstrap

    async def start(self) -> None:
        """Start it."""
        await self.kafka.start()
        if self.proxy:
            await self.proxy.start()

    async def stop(self) -> None:
        """Stop it."""
        for reader in self._readers.values():
            await reader.stop()
        self._readers.clear()
        if self.proxy:
            await self.proxy.stop()
        await self.kafka.stop()

    async def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Last stable offset and end of each partition of a topic."""
        levels = [
            await self._ends(topic, f"read_{level}") for level in ("committed", "uncommitted")
        ]
        stable, end = levels
        return {number: (stable[number], end[number]) for number in stable if number in end}

    async def _ends(self, topic: str, level: str) -> dict[int, int]:
        # Storms that share the cluster share its readers.
        async with self._lock:
            reader = await self._reader(level)
        # One that another storm has asked for may not be known yet.
        places = [TopicPartition(topic, n) for n in await known_partitions(reader, topic)]
        return {tp.partition: end for tp, end in (await reader.end_offsets(places)).items()}

    async def _reader(self, level: str) -> Any:
        reader = self._readers.get(level)
        if reader is None:
            reader = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, group_id=None, isolation_level=level
            )
            self._readers[level] = await started(reader)
        return self._readers[level]
