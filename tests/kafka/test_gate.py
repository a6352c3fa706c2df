"""The reference gate on Apache Kafka: what is committed, the newest of each product, in time."""

from __future__ import annotations

import asyncio

import orjson
from aiokafka import AIOKafkaProducer

from stream_judge.gate import open_gate
from stream_judge.settings import KafkaSettings


def record(offset: int, revision: int, decision: str) -> dict[str, object]:
    return {
        "value": orjson.dumps({"revision": revision, "decision": decision}),
        "headers": [
            ("sj-source-topic", b"t"),
            ("sj-source-partition", b"0"),
            ("sj-source-offset", b"%d" % offset),
        ],
    }


async def test_a_gate_reads_what_is_there_then_waits_for_what_comes(
    settings: KafkaSettings,
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.application
    )
    await producer.start()

    async def send(key: bytes, offset: int, revision: int, decision: str) -> None:
        await producer.send(settings.verdict_topic, key=key, **record(offset, revision, decision))

    async with producer.transaction():
        await send(b"a", 0, 1, "block")
        await send(b"b", 1, 1, "publish")
    await producer.begin_transaction()
    await send(b"b", 2, 9, "block")
    await producer.abort_transaction()

    async with open_gate(settings) as gate:
        assert len(gate.state) == 2
        assert (await gate.decide("b", 1, timeout_s=0.1)).decision == "publish"
        missing = await gate.decide("a", 2, timeout_s=0.1)
        assert (missing.decision, missing.verdict) == ("review", None)
        waiting = asyncio.create_task(gate.decide("a", 2, timeout_s=30))
        async with producer.transaction():
            await send(b"a", 3, 2, "publish")
        answer = await waiting
        assert answer.decision == "publish"
        assert answer.verdict is not None
        assert answer.verdict["revision"] == 2
    await producer.stop()
