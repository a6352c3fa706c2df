from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import overhead, stand
from bench.stand import Stand


class Reader:
    """Finds nothing while the worker starts, then a verdict at a time."""

    def __init__(self, records: int) -> None:
        self._batches: list[dict[str, list[Any]]] = [{}, {}]
        value = b'{"source": {"timestamp": 1}}'
        self._batches += [{"p": [SimpleNamespace(value=value, timestamp=2)]}] * records

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, places: list[Any]) -> None: ...

    async def getmany(self, **_: Any) -> dict[str, list[Any]]:
        return self._batches.pop(0)


async def test_nobody_is_told_of_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand, "AIOKafkaConsumer", lambda **_: Reader(3))
    counts: list[int] = []
    found = await Stand("b:1", "t:1", "plain", 1).read_verdicts(3, on_batch=counts.append)
    assert (len(found), counts) == (3, [1, 2, 3])


class FakeStand:
    """Ten verdicts, of which two are there at the first look."""

    partitions = 2

    def __init__(self, first: int = 2) -> None:
        self.first = first
        self.did: list[object] = []

    async def create(self) -> None: ...

    async def start_worker(self, *_: Any) -> Any:
        return SimpleNamespace(pid=1)

    async def stop_worker(self) -> None: ...

    async def send(self, count: int, size: int, *, per_second: float | None = None) -> None:
        self.did.append(("send", count))

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[FakeStand]:
        self.did.append("reader")
        yield self

    async def read(self, count: int) -> list[tuple[int, int]]:
        return await self.read_verdicts(count)

    async def read_verdicts(
        self, count: int, *, on_batch: Callable[[int], None] = lambda _: None
    ) -> list[tuple[int, int]]:
        on_batch(self.first)
        on_batch(count)
        self.did.append(("read", count))
        return [(number, number * 100) for number in range(count)]


def use(monkeypatch: pytest.MonkeyPatch, *spent_s: float) -> None:
    left = list(spent_s)
    monkeypatch.setattr(overhead, "usage", lambda pid: SimpleNamespace(cpu_s=left.pop(0)))


async def test_cpu_is_that_of_the_records_behind_the_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Worker and broker at the first verdict, and at the last.
    use(monkeypatch, 3.0, 7.0, 3.8, 7.4)
    found = await overhead._throughput(FakeStand(), Path("w"), 10, {}, 2)  # type: ignore[arg-type]  # a stand-in
    assert (found["cpu_ms"], found["broker_cpu_ms"]) == (100.0, 50.0)


async def test_verdicts_that_are_all_there_at_once_are_no_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, 3.0, 7.0)
    with pytest.raises(RuntimeError, match="take more"):
        await overhead._throughput(FakeStand(10), Path("w"), 10, {}, 2)  # type: ignore[arg-type]  # a stand-in


async def test_lateness_is_measured_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeStand()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        fake.did.append(seconds)
        await sleep(0)

    monkeypatch.setattr(overhead.asyncio, "sleep", note)
    await overhead._latency(fake, Path("w"), {})  # type: ignore[arg-type]  # a stand-in
    warm = overhead._WARM * fake.partitions
    # The reader stands before the pause: one that is still starting would count as late.
    assert fake.did[:4] == [("send", warm), "reader", ("read", warm), overhead._PAUSE_S]
    assert set(fake.did[4:]) == {("send", overhead._PACED), ("read", overhead._PACED)}
