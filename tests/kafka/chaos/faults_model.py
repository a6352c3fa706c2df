"""Faults of the model server, of pictures, and of the records themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from stream_judge.triton_options import TritonOptions
from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.load import MIXED, Update, long_poison, long_text, long_urls
from tests.kafka.chaos.storm import Storm


def _says(code: str) -> str:
    """What a worker logs while the model server is out for this reason."""
    return f'"code": "{code}"'


_UNAVAILABLE, _TIMEOUT = _says("triton_unavailable"), _says("triton_timeout")
_BAD_OUTPUT = _says("bad_output")
_DEFAULT_LIMIT_S = TritonOptions().timeout_s


def _has_sent(storm: Storm, *makers: Callable[[bytes], Update]) -> None:
    """Some poison of each kind is in the load."""
    missing = [maker.__name__ for maker in makers if not storm.load.poison[maker.__name__]]
    if missing:
        raise AssertionError(f"the load has none of {', '.join(missing)}: take more records")


@fault()
async def triton_crash(storm: Storm) -> None:
    """The model server is gone for 8 s, and has forgotten every policy when it is back."""
    await storm.until(0.3)
    async with storm.fault(_UNAVAILABLE):
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
    async with storm.fault(_UNAVAILABLE):
        await storm.real.stop()
        await asyncio.sleep(5)
        await storm.real.start()


@fault()
async def triton_out_long(storm: Storm) -> None:
    """The model server refuses for 45 s, longer than the group's session and rebalance limits."""
    await storm.until(0.3)
    async with storm.fault(_UNAVAILABLE):
        storm.triton.out = True
        await asyncio.sleep(45)
        storm.triton.out = False


async def _late(storm: Storm, answer_s: float, seconds: float) -> float:
    """For so long every answer takes so long; when the last of them was asked for."""
    asked: list[float] = []

    def late() -> float:
        asked.append(time.monotonic())
        return answer_s

    storm.latency = late
    await asyncio.sleep(seconds)
    storm.latency = storm.usual_latency
    if not asked:
        raise AssertionError("the model server was asked for nothing meanwhile")
    return asked[-1]


@fault(env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "2"})
async def triton_hang(storm: Storm) -> None:
    """The model server takes requests and answers none, for 10 s."""
    await storm.until(0.3)
    async with storm.fault(_TIMEOUT):
        await _late(storm, 3600.0, 10)


@fault(env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "60"})
async def triton_slow(storm: Storm) -> None:
    """Every answer takes 30 s, for a while; workers wait for longer."""
    await storm.until(0.3)
    async with storm.fault():
        await _late(storm, 30.0, 20)


@fault(env={"STREAM_JUDGE_TRITON__TIMEOUT_S": str(_DEFAULT_LIMIT_S)})
async def triton_too_slow(storm: Storm) -> None:
    """Every answer takes longer than workers wait by default, for 40 s: none comes in time."""
    await storm.until(0.3)
    async with storm.fault(_TIMEOUT):
        asked = await _late(storm, _DEFAULT_LIMIT_S + 5, 40)
        # Whoever asked last waits for an answer that is still late.
        await asyncio.sleep(asked + _DEFAULT_LIMIT_S - time.monotonic())


async def _odd(storm: Storm, how: str) -> None:
    await storm.until(0.3)
    async with storm.fault(_BAD_OUTPUT):
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
    _has_sent(storm, *MIXED)


@fault(plan={"poison": (long_text,), "poison_share": 0.01})
async def huge_text(storm: Storm) -> None:
    """One in a hundred has ten megabytes of text."""
    await storm.until(0.5)
    _has_sent(storm, long_text)


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
    if not storm.load.aborted:
        raise AssertionError("no transaction was aborted")
