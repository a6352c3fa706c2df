"""A producer that is thrown away ends, whatever it is waiting for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError

from stream_judge.publisher import make_producer, throw_away
from stream_judge.settings import KafkaSettings


async def stuck_producer(monkeypatch: pytest.MonkeyPatch, closed: asyncio.Event) -> Any:
    """aiokafka's own, with a record that waits for a coordinator; the search for it has no end."""
    producer = make_producer(KafkaSettings(), transactional_id="t")

    async def nothing(*_: Any) -> None: ...

    async def partitions(*_: Any) -> set[int]:
        return {0}

    async def close() -> None:
        closed.set()

    async def away(*_: Any) -> int:
        raise NodeNotReadyError

    for name, answer in (
        ("bootstrap", nothing),
        ("force_metadata_update", nothing),
        ("_wait_on_metadata", partitions),
        ("coordinator_lookup", away),
        ("close", close),
    ):
        monkeypatch.setattr(producer.client, name, answer)
    producer._txn_manager.set_pid_and_epoch(7, 0)
    monkeypatch.setattr(producer, "_partition", lambda *_: 0)
    await producer.start()
    await producer.begin_transaction()
    await producer.send("verdicts", b"value")
    await asyncio.sleep(0.05)
    return producer


async def test_no_search_for_a_coordinator_outlives_its_producer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = asyncio.Event()
    await throw_away(await stuck_producer(monkeypatch, closed))
    await alone()
    assert closed.is_set()


async def test_a_lane_that_ends_while_its_producer_stops_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = asyncio.Event()
    stopping = asyncio.create_task(throw_away(await stuck_producer(monkeypatch, closed)))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await alone()
    assert stopping.cancelled()
    assert closed.is_set()


async def alone() -> None:
    """Until no other task is left."""
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
