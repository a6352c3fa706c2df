"""Faults of sellers' hosts and of names, with pictures that are fetched for true."""

from __future__ import annotations

import asyncio

from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.storm import Storm

_HOSTS = ["pictures.shop.test", "stalled.shop.test", "dead-dns.shop.test"]
_ENV = {
    "CHAOS_PICTURES": "real",
    "STREAM_JUDGE_IMAGES__ALLOWED_HOSTS": str(_HOSTS).replace("'", '"'),
    "STREAM_JUDGE_IMAGES__CONNECT_TIMEOUT_S": "1",
    "STREAM_JUDGE_IMAGES__READ_TIMEOUT_S": "1",
    "STREAM_JUDGE_IMAGES__TOTAL_TIMEOUT_S": "2",
    "STREAM_JUDGE_IMAGES__ATTEMPTS": "2",
}


def _sound(number: int, port: int) -> str:
    return f"http://pictures.shop.test:{port}/a.png?n={number}"


def _some_stalled(number: int, port: int) -> str:
    return f"http://stalled.shop.test:{port}/stall" if number % 20 == 0 else _sound(number, port)


def _some_nameless(number: int, port: int) -> str:
    if number % 20 == 0:
        return f"http://dead-dns.shop.test:{port}/a.png"
    return _sound(number, port)


@fault(env=_ENV, picture=_some_stalled, judged=False)
async def seller_host_stalls(storm: Storm) -> None:
    """A seller's host takes connections and answers nothing: one picture in twenty."""
    await storm.until(0.5)


@fault(env=_ENV, picture=_some_nameless, judged=False)
async def seller_names_dead(storm: Storm) -> None:
    """A seller's name server answers nothing: one picture in twenty."""
    await storm.until(0.5)


@fault(
    env={**_ENV, "STREAM_JUDGE_IMAGES__RESOLVER_CANARY": "pictures.shop.test"},
    picture=_sound,
)
async def resolver_out(storm: Storm) -> None:
    """The name server fails for 5 s, then is silent for 10: nothing becomes unjudgeable."""
    await storm.until(0.3)
    asked = len(storm.names.asked)
    async with storm.fault():
        storm.names.out = "fails"
        await asyncio.sleep(5)
        storm.names.out = "silent"
        await asyncio.sleep(10)
        storm.names.out = ""
    assert len(storm.names.asked) > asked, "no name was looked up meanwhile"
