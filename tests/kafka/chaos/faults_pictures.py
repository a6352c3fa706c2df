"""Faults of sellers' hosts and of names, with pictures that are fetched for true."""

from __future__ import annotations

import asyncio

import orjson

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


def _is_struck(number: int) -> bool:
    return number % 20 == 0


def _some_stalled(number: int, port: int) -> str:
    if _is_struck(number):
        return f"http://stalled.shop.test:{port}/stall"
    return _sound(number, port)


def _some_nameless(number: int, port: int) -> str:
    if _is_struck(number):
        return f"http://dead-dns.shop.test:{port}/a.png"
    return _sound(number, port)


# The others have to be judged: a seller's outage is that seller's.
_SOME = {"expect": lambda number: "unjudgeable" if _is_struck(number) else "verdict"}


async def _gave_up(storm: Storm, *reasons: str) -> None:
    """Half of the storm is over, and some pictures were given up, all for these reasons."""
    await storm.until(0.5)
    verdicts = [orjson.loads(verdict.value) for verdict in await storm.verdicts() if verdict.value]
    # Poison has no picture.
    found = {verdict["reason"] for verdict in verdicts} - {"bad_event", "above_publish"}
    if not found or not found <= set(reasons):
        raise AssertionError(
            f"pictures were given up for {found or 'no reason'}, not for {reasons}"
        )


@fault(env=_ENV, picture=_some_stalled, plan=_SOME)
async def seller_host_stalls(storm: Storm) -> None:
    """A seller's host takes connections and answers nothing: one picture in twenty."""
    await _gave_up(storm, "image_timeout")


@fault(env=_ENV, picture=_some_nameless, plan=_SOME)
async def seller_names_dead(storm: Storm) -> None:
    """A seller's name server answers nothing: one picture in twenty."""
    # The look-up runs out of time, or the whole attempt does.
    await _gave_up(storm, "image_unreachable", "image_timeout")


@fault(
    env={**_ENV, "STREAM_JUDGE_IMAGES__RESOLVER_CANARY": "pictures.shop.test"},
    picture=_sound,
)
async def resolver_out(storm: Storm) -> None:
    """The name server fails for 5 s, then is silent for 10: nothing becomes unjudgeable."""
    await storm.until(0.3)
    async with storm.fault('"dependency": "resolver", "event": "outage_began"'):
        storm.names.out = "fails"
        await asyncio.sleep(5)
        storm.names.out = "silent"
        await asyncio.sleep(10)
        storm.names.out = ""
