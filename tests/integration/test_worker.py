from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_judge.demo.readback import Seen, read_back
from stream_judge.embedded.broker import EmbeddedBroker
from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.processes import ChildProcess

TOPICS = {"product-updates": 2, "relevance-verdicts": 3, "relevance-dead-letters": 1}


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(TOPICS)
    await broker.start()
    yield broker
    await broker.stop()


WORKER = ["-m", "stream_judge", "worker"]
# Real Kafka and Faust, odd listings.
STUB = [str(Path(__file__).with_name("stub_worker.py"))]


def worker_process(
    broker: EmbeddedBroker,
    triton_url: str = "127.0.0.1:1",
    command: list[str] = WORKER,
    **window: float,
) -> ChildProcess:
    env = {
        **os.environ,
        "STREAM_JUDGE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
        "STREAM_JUDGE_KAFKA__PUBLISHER": "plain",
        "STREAM_JUDGE_KAFKA__SESSION_TIMEOUT_S": "10",
        "STREAM_JUDGE_TRITON__URL": triton_url,
        "STREAM_JUDGE_WEB__PORT": "0",
        "STREAM_JUDGE_WINDOW__DRAIN_TIMEOUT_S": "2",
        **{f"STREAM_JUDGE_WINDOW__{name.upper()}": str(n) for name, n in window.items()},
    }
    return ChildProcess([sys.executable, *command], env=env, on_line=lambda _: None)


async def send(broker: EmbeddedBroker, titles: list[str], *, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    for number, title in enumerate(titles):
        event = {"id": f"p-{number}", "title": title, "images": [{"url": "http://x.test/a.png"}]}
        await producer.send_and_wait("product-updates", orjson.dumps(event), partition=partition)
    await producer.stop()


async def seen_until(broker: EmbeddedBroker, enough: int, seconds: float = 60) -> list[Seen]:
    seen: list[Seen] = []
    outputs = {name: count for name, count in TOPICS.items() if name != "product-updates"}
    reader = asyncio.create_task(
        read_back(broker.bootstrap, outputs, "relevance-dead-letters", on_seen=seen.append)
    )
    async with asyncio.timeout(seconds):
        while len(seen) < enough:
            assert not reader.done(), await reader
            await asyncio.sleep(0.05)
    reader.cancel()
    return seen


async def test_compressed_topics_are_read_and_sigterm_drains(
    broker: EmbeddedBroker, triton: EmbeddedTriton
) -> None:
    worker = worker_process(broker, triton.grpc_url)
    await worker.start()
    sent = set()
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        producer = AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap, compression_type=codec, linger_ms=20
        )
        await producer.start()
        value = b'{"id": "%s", "title": "%s"}' % (codec.encode(), b"red mug " * 40)
        for record in (value, b"not json " * 40, None):
            place = await producer.send_and_wait("product-updates", record, key=codec.encode())
            sent.add((place.partition, place.offset))
        await producer.stop()

    seen: list[Seen] = []
    outputs = {name: count for name, count in TOPICS.items() if name != "product-updates"}
    reader = asyncio.create_task(
        read_back(broker.bootstrap, outputs, "relevance-dead-letters", on_seen=seen.append)
    )
    async with asyncio.timeout(60):
        while {record.place for record in seen} != sent:
            await asyncio.sleep(0.1)
    kinds = [
        "dead_letter" if r.dead_letter else r.verdict["reason"] if r.verdict else "tombstone"
        for r in seen
    ]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {"dead_letter": 4, "bad_event": 4, "image_missing": 4, "tombstone": 4}
    reader.cancel()
    await worker.stop(grace_s=30)
    assert worker.exit_code == 0


async def test_a_worker_without_its_broker_exits() -> None:
    nowhere = EmbeddedBroker({})
    nowhere.bootstrap = "127.0.0.1:1"
    worker = worker_process(nowhere, command=STUB)
    await worker.start()
    async with asyncio.timeout(60):
        assert await worker.wait() == 1


async def test_a_slow_record_does_not_break_the_order(broker: EmbeddedBroker) -> None:
    worker = worker_process(broker, command=STUB)
    await worker.start()
    await send(broker, ["slow" if i % 5 == 0 else "quick" for i in range(40)])
    seen = await seen_until(broker, 40)
    assert {record.place for record in seen} == {(0, i) for i in range(40)}
    for partition in range(TOPICS["relevance-verdicts"]):
        offsets = [record.place[1] for record in seen if record.partition == partition]
        assert offsets == sorted(offsets)
    await worker.stop(grace_s=30)
    assert worker.exit_code == 0


async def test_a_stop_gives_up_on_what_is_stuck_and_another_worker_takes_it_up(
    broker: EmbeddedBroker,
) -> None:
    worker = worker_process(broker, command=STUB)
    await worker.start()
    await send(broker, ["quick", "stuck", "quick"])
    seen = await seen_until(broker, 1)
    await worker.stop(grace_s=30)
    assert worker.exit_code == 0
    # What is behind the stuck record was judged, never published, and is not lost.
    assert [record.place for record in seen] == [(0, 0)]
    other = worker_process(broker, command=STUB)
    await other.start()
    await send(broker, ["quick"], partition=1)
    assert (1, 0) in {record.place for record in await seen_until(broker, 2)}
    await other.stop(grace_s=30)


async def test_a_fatal_error_ends_the_process(broker: EmbeddedBroker) -> None:
    worker = worker_process(broker, command=STUB)
    await worker.start()
    await send(broker, ["memory"])
    async with asyncio.timeout(60):
        assert await worker.wait() == 70


@asynccontextmanager
async def impatient_worker() -> AsyncIterator[tuple[EmbeddedBroker, ChildProcess]]:
    """A worker with the shortest stall limit, and a broker of its own."""
    broker = EmbeddedBroker(TOPICS)
    await broker.start()
    worker = worker_process(broker, command=STUB, stall_limit_s=10)
    try:
        await worker.start()
        yield broker, worker
    finally:
        await worker.stop(grace_s=0)
        await broker.stop()


async def exit_code_of_no_progress(title: str) -> int:
    async with impatient_worker() as (broker, worker), asyncio.timeout(90):
        await send(broker, [title])
        return await worker.wait()


async def exit_code_of_a_stuck_partition() -> int:
    async with impatient_worker() as (broker, worker), asyncio.timeout(90):
        await send(broker, ["stuck"])

        over = asyncio.Event()

        async def others() -> None:
            while not over.is_set():
                await send(broker, ["quick"], partition=1)
                await asyncio.sleep(0.5)

        sending = asyncio.create_task(others())
        try:
            return await worker.wait()
        finally:
            # Not cancelled: a producer that is just connecting would stay open.
            over.set()
            await sending


async def test_a_worker_without_progress_ends_by_itself_also_when_one_partition_is_stuck() -> None:
    # Side by side: each of them waits for its limit most of the time.
    codes = await asyncio.gather(
        exit_code_of_no_progress("stuck"),
        exit_code_of_no_progress("block"),
        exit_code_of_a_stuck_partition(),
    )
    assert codes == [71, 71, 71]


async def test_a_worker_that_would_dead_letter_everything_stops(broker: EmbeddedBroker) -> None:
    worker = worker_process(broker, command=STUB, max_run=5)
    await worker.start()
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    for _ in range(40):
        await producer.send_and_wait("product-updates", b"not json", partition=0)
    await producer.stop()
    async with asyncio.timeout(90):
        assert await worker.wait() == 74
    assert len(await seen_until(broker, 1)) < 40
