"""Accidents inside a worker, at a place of its own code, and what has to come of them.

What happens in `worker_process.py`; here a worker is started with it and looked at.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

from tests.kafka.chaos.crew import StormWorker, in_time
from tests.kafka.chaos.storm import Storm

_ACCIDENT = "CHAOS_ACCIDENT"
#: Waits for what comes of an accident, or brings it about.
Comes = Callable[[Storm, StormWorker], Awaitable[None]]
# What a worker logs when its group, or its own transaction, is not what it was.
_TELLING = (
    "transaction_failed",
    "worker_fatal",
    "worker_stopping",
    "lane_lost",
    "partitions_revoked",
    "partitions_assigned",
)


def _with_accident(storm: Storm) -> list[StormWorker]:
    return [worker for worker in storm.crew.workers if _ACCIDENT in worker.env]


async def accident(
    storm: Storm,
    what: str,
    comes: Comes,
    *,
    shares: Sequence[float] = (0.1, 0.3, 0.5),
    provoke: Comes | None = None,
) -> None:
    """A worker with an accident joins, at each of these shares.

    Args:
        storm: Where.
        what: The accident; a number is put in for `{}`.
        comes: Waits for what has to come of it, and raises if something else does.
        shares: Of the records that are committed.
        provoke: Brings the accident about, where joining is not enough.
    """
    happened = 0
    for share in shares:
        await storm.until(share)
        # What joins later would end the accident before its time.
        await storm.crew.until_settled(storm.options.partitions)
        async with storm.fault():
            unlucky = await _unlucky(storm, what.format(storm.rng.randint(2, 6)))
            await storm.crew.until_working(unlucky)
            if provoke is not None:
                await provoke(storm, unlucky)
            if await in_time(lambda unlucky=unlucky: unlucky.said("accident"), 15.0):
                happened += 1
                await comes(storm, unlucky)
            elif storm.done < 0.9 * storm.options.records:
                raise AssertionError(f"{what} has not happened to worker {unlucky.number}")
        await asyncio.sleep(1.0)
    # At the very end there may be too few records left for a later one.
    if not happened:
        raise AssertionError(f"{what} has not happened")


async def _unlucky(storm: Storm, what: str) -> StormWorker:
    """A worker with an accident, in the place of an owner that was stopped."""
    before = len(_with_accident(storm))
    old = await storm.crew.owner()
    storm.crew.next_env = {_ACCIDENT: what}
    # One whose own accident never came may meet it while it drains.
    if _ACCIDENT in old.env and not old.said("accident"):
        old.signal(signal.SIGKILL)
    else:
        await storm.crew.end(old)
    if not await in_time(lambda: len(_with_accident(storm)) > before, 30.0):
        raise AssertionError("no worker was started in an old one's place")
    return _with_accident(storm)[-1]


async def killed(storm: Storm, unlucky: StormWorker) -> None:
    """Nothing but the end of the process came of it."""
    await storm.crew.until_ended(unlucky, -signal.SIGKILL)


async def killed_inside(storm: Storm, unlucky: StormWorker) -> None:
    """The process has ended, and its transaction holds up readers for 1.5 s at least."""
    await killed(storm, unlucky)
    held: dict[int, int] = {}
    for look in range(4):
        ends = await storm.cluster.ends(storm.settings.verdict_topic)
        now = {number: stable for number, (stable, end) in ends.items() if stable < end}
        # Transactions of the living come and go: theirs do not stay at one offset.
        held = now if look == 0 else {n: at for n, at in now.items() if held.get(n) == at}
        await asyncio.sleep(0.5)
    if not held:
        raise AssertionError(f"worker {unlucky.number} has left no transaction open")


def logs(event: str, *words: str, code: int | None = None) -> Comes:
    """What comes next in the unlucky worker's log is this event with one of the words.

    Args:
        event: Its name.
        words: Of its error.
        code: The exit code with which the worker ends; None if it goes on.
    """

    async def comes(storm: Storm, unlucky: StormWorker) -> None:
        def told() -> str:
            at = next(n for n, line in enumerate(unlucky.lines) if line.startswith("accident"))
            rest = unlucky.lines[at + 1 :]
            telling = [f'"event": "{name}"' for name in _TELLING]
            return next((line for line in rest if any(name in line for name in telling)), "")

        await in_time(told, 30.0)
        line = told()
        if f'"event": "{event}"' not in line or not any(word in line for word in words):
            raise AssertionError(f"not {event} with {' or '.join(words)}, but {line or 'nothing'}")
        if code is not None:
            await storm.crew.until_ended(unlucky, code)

    return comes
