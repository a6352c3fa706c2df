"""Whole workers on Apache Kafka: killed, frozen, joined by others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import orjson

from stream_judge.processes import ChildProcess
from stream_judge.settings import KafkaSettings
from stream_judge.testing import kafka_environment
from tests.kafka.chaos.logs import read_outcomes
from tests.kafka.log import committed, send

STUB = Path(__file__).parents[1] / "integration/stub_worker.py"
RECORDS, PRODUCTS = 400, 25


def worker(settings: KafkaSettings, log: list[str]) -> ChildProcess:
    env = kafka_environment(settings) | {
        "STREAM_JUDGE_WEB__PORT": "0",
        "STREAM_JUDGE_WINDOW__DRAIN_TIMEOUT_S": "2",
        # Slow enough that every fault hits work under way.
        "STREAM_JUDGE_WINDOW__MAX_RECORDS": "4",
    }
    return ChildProcess([sys.executable, str(STUB)], env={**os.environ, **env}, on_line=log.append)


def records() -> list[tuple[bytes, bytes, int]]:
    made = []
    for number in range(RECORDS):
        product = b"p-%d" % (number % PRODUCTS)
        event = {
            "id": product.decode(),
            "revision": number,
            "title": "slow" if number % 2 else "quick",
            "images": [{"url": "http://x.test/a.png"}],
        }
        value = b"{not json" if number % 50 == 7 else orjson.dumps(event)
        # All updates of a product are in one partition, as a keyed source has them.
        made.append((product, value, number % PRODUCTS % 2))
    return made


async def until_committed(settings: KafkaSettings, least: int, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while sum(found.offset for found in (await committed(settings)).values()) < least:
            await asyncio.sleep(0.1)


async def test_killed_frozen_and_joined_workers_leave_one_outcome_each_in_order(
    settings: KafkaSettings,
) -> None:
    sent = records()
    await send(settings, sent)
    log: list[str] = []
    first, second, third = (worker(settings, log) for _ in range(3))
    try:
        await first.start()
        await until_committed(settings, 60)
        os.kill(first.pid, signal.SIGKILL)
        await second.start()
        await until_committed(settings, 140)
        await third.start()
        async with asyncio.timeout(30):
            # It has joined: the assignment before is over.
            while sum("partitions_assigned" in line for line in log) < 4:
                await asyncio.sleep(0.05)
        os.kill(second.pid, signal.SIGSTOP)
        await until_committed(settings, 300)
        os.kill(second.pid, signal.SIGCONT)
        await until_committed(settings, RECORDS)
    finally:
        for process in (second, third):
            await process.stop(grace_s=20)
        await first.stop(grace_s=0)
    assert third.exit_code == 0, log[-20:]

    verdicts = await read_outcomes(settings, settings.verdict_topic)
    letters = await read_outcomes(settings, settings.dead_letter_topic)
    counts = Counter(found.place for found in verdicts)
    sizes = Counter(partition for _, _, partition in sent)
    assert set(counts) == {(p, offset) for p, size in sizes.items() for offset in range(size)}
    assert set(counts.values()) == {1}
    bad = [value for _, value, _ in sent if value == b"{not json"]
    assert [found.value for found in letters] == bad
    for product in {found.key for found in verdicts}:
        offsets = [found.place[1] for found in verdicts if found.key == product]
        assert offsets == sorted(offsets)
