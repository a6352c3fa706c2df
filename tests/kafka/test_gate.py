"""The reference gate on Apache Kafka: what is committed, the newest of each product, in time."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from structlog.testing import capture_logs

from stream_judge.errors import BrokerError
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


async def test_a_gate_starts_anew_from_the_topic_and_reads_partitions_added_later(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_judge.gate._METADATA_MS", 300)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, metadata_max_age_ms=300
    )
    await producer.start()
    await producer.send_and_wait(
        settings.verdict_topic, key=b"a", partition=0, **record(0, 1, "publish")
    )
    for _ in range(2):
        async with open_gate(settings) as gate:
            assert (await gate.decide("a", 1, timeout_s=0.1)).decision == "publish"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    async with open_gate(settings) as gate:
        await admin.start()
        await admin.create_partitions({settings.verdict_topic: NewPartitions(3)})
        await admin.close()
        async with asyncio.timeout(30):
            while len(await producer.partitions_for(settings.verdict_topic)) < 3:
                await asyncio.sleep(0.1)
        await producer.send_and_wait(
            settings.verdict_topic, key=b"b", partition=2, **record(0, 1, "block")
        )
        assert (await gate.decide("b", 1, timeout_s=30)).decision == "block"
        assert (await gate.decide("a", 1, timeout_s=30)).decision == "publish"
    await producer.stop()


async def test_what_is_no_verdict_holds_its_product_back_also_after_a_restart(
    settings: KafkaSettings,
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()

    async def send(key: bytes, **what: object) -> None:
        await producer.send_and_wait(settings.verdict_topic, key=key, **what)

    await send(b"a", **record(0, 1, "publish"))
    sent = await producer.send_and_wait(settings.verdict_topic, key=b"a", value=b"{")
    await send(b"b", **record(1, 1, "publish"))
    place = f"{sent.topic}/{sent.partition}/{sent.offset}"
    for _ in range(2):
        with capture_logs() as lines:
            async with open_gate(settings) as gate:
                assert (await gate.decide("b", 1, timeout_s=30)).decision == "publish"
                held = await gate.decide("a", 1, timeout_s=0.1, otherwise="publish")
                assert (held.decision, held.verdict) == ("review", None)
        (loud,) = [line for line in lines if line["event"] == "verdict_unreadable"]
        assert loud["error"].startswith(f"{place}: the record of product a is no verdict")
    async with open_gate(settings) as gate:
        # The same update, judged again.
        await send(b"a", **record(2, 1, "publish"))
        assert (await gate.decide("a", 1, timeout_s=30)).decision == "publish"
    await producer.stop()


async def test_a_start_that_has_no_time_names_every_partition(settings: KafkaSettings) -> None:
    with pytest.raises(BrokerError) as found:
        async with open_gate(settings, start_timeout_s=0.0):
            pass
    for number in range(2):
        assert f"{settings.verdict_topic}/{number} (not begun)" in found.value.message


async def test_a_gate_without_its_topic_says_so(settings: KafkaSettings) -> None:
    nowhere = settings.model_copy(update={"verdict_topic": f"no-{settings.verdict_topic}"})
    with pytest.raises(BrokerError, match="doctor"):
        async with open_gate(nowhere):
            pass
