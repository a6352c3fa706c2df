"""Faults of the model server, of pictures, and of the records themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.load import MIXED, long_poison, long_text, long_urls
from tests.kafka.chaos.storm import Storm


@fault()
async def triton_crash(storm: Storm) -> None:
    """The model server is gone for 8 s, and has forgotten every policy when it is back."""
    await storm.until(0.3)
    async with storm.fault():
        await storm.triton.stop()
        await asyncio.sleep(8)
        await storm.triton.start()


@fault(
    real_model=True,
    plan={"per_second": 8.0},
    env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "60"},
)
async def triton_real(storm: Storm) -> None:
    """The model server is a real Triton, which is away for 5 s."""
    assert storm.real is not None
    await storm.until(0.3, seconds=600)
    async with storm.fault():
        await storm.real.stop()
        await asyncio.sleep(5)
        await storm.real.start()


@fault()
async def triton_out_long(storm: Storm) -> None:
    """The model server refuses for 45 s, longer than any session or poll interval."""
    await storm.until(0.3)
    async with storm.fault():
        storm.triton.out = True
        await asyncio.sleep(45)
        storm.triton.out = False


async def _late(storm: Storm, answer_s: float, seconds: float) -> None:
    await storm.until(0.3)
    async with storm.fault():
        storm.latency = lambda: answer_s
        await asyncio.sleep(seconds)
        storm.latency = storm.usual_latency


@fault(env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "2"})
async def triton_hang(storm: Storm) -> None:
    """The model server takes requests and answers none, for 10 s."""
    await _late(storm, 3600.0, 10)


@fault(env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "60"})
async def triton_slow(storm: Storm) -> None:
    """Every answer takes 30 s, for a while."""
    await _late(storm, 30.0, 20)


async def _odd(storm: Storm, how: str) -> None:
    await storm.until(0.3)
    async with storm.fault():
        storm.triton.odd = how
        await asyncio.sleep(8)
        storm.triton.odd = ""


@fault()
async def triton_nan(storm: Storm) -> None:
    """The model server answers with NaN, for 8 s."""
    await _odd(storm, "nan")


@fault()
async def triton_shape(storm: Storm) -> None:
    """The model server answers with a row too few, for 8 s."""
    await _odd(storm, "shape")


@fault(plan={"poison": MIXED, "poison_share": 0.25})
async def poison(storm: Storm) -> None:
    """A quarter is poison: not JSON, bad UTF-8, nulls, deep nesting, 10,000 URLs."""
    await storm.until(0.5)


@fault(plan={"poison": (long_text,), "poison_share": 0.01})
async def huge_text(storm: Storm) -> None:
    """One in a hundred has ten megabytes of text."""
    await storm.until(0.5)


@fault(
    plan={"poison": (long_urls, long_poison), "poison_share": 0.1},
    env={"STREAM_JUDGE_POLICIES": str(Path(__file__).parent / "galleries")},
    kafka={"max_record_bytes": 32_000},
)
async def too_large(storm: Storm) -> None:
    """Verdicts and dead letters larger than the broker's limit."""
    await storm.until(0.9)
    if not any(b'"url":null' in (found.value or b"") for found in await storm.verdicts()):
        raise AssertionError("no verdict was larger than a record may be")
    if not any("sj-value-omitted" in found.headers for found in await storm.letters()):
        raise AssertionError("no dead letter was larger than a record may be")


@fault(plan={"shuffled": True})
async def revisions_shuffled(storm: Storm) -> None:
    """Revisions arrive out of order; they are published in input order."""
    await storm.until(0.5)


@fault(plan={"aborted": 0.4})
async def upstream_aborts(storm: Storm) -> None:
    """Four in ten transactions of the source's producer are aborted."""
    await storm.until(0.5)
