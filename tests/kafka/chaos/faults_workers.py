"""Faults of workers: killed, stopped, frozen, joined by others, failing inside."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from pathlib import Path

import orjson

from tests.kafka.chaos.crew import INSTANCE_ID, StormWorker
from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.storm import Storm

_TX = ("transactional",)
_ACCIDENT = "CHAOS_ACCIDENT"


@fault()
async def calm(storm: Storm) -> None:
    """Nothing goes wrong."""
    await storm.until(0.5)


async def _work_under_way(storm: Storm) -> None:
    """For a second every answer takes 3 s: what comes next meets workers with records."""
    storm.latency = lambda: 3.0
    await asyncio.sleep(1.0)
    storm.latency = storm.usual_latency


async def _unanswered_from_the_start(storm: Storm) -> None:
    storm.triton.holds = True
    await storm.create_topics()


@fault(
    create=_unanswered_from_the_start,
    workers=1,
    # Poison is not judged, and would be committed.
    plan={"poison": ()},
    env={"STREAM_JUDGE_TRITON__TIMEOUT_S": "60"},
)
async def join_before_commit(storm: Storm) -> None:
    """Workers join while records are under way and nothing is committed yet."""
    async with storm.fault():
        for _ in range(2):
            await storm.crew.until_working(await storm.crew.start())
            await asyncio.sleep(1.0)
        if storm.done:
            raise AssertionError(f"{storm.done} records were committed before")
        storm.triton.holds = False


@fault()
async def kill(storm: Storm) -> None:
    """kill -9 of any worker, five times."""
    for share in (0.1, 0.25, 0.4, 0.55, 0.7):
        await storm.until(share)
        await _work_under_way(storm)
        async with storm.fault():
            (await storm.crew.owner()).signal(signal.SIGKILL)
        await asyncio.sleep(storm.rng.uniform(0.0, 1.0))


@fault()
async def terminate(storm: Storm) -> None:
    """SIGTERM of any worker, four times."""
    for share in (0.15, 0.35, 0.5, 0.7):
        await storm.until(share)
        async with storm.fault():
            storm.crew.any().signal(signal.SIGTERM)


@fault()
async def rolling_restart(storm: Storm) -> None:
    """Every worker gets SIGTERM, one after the other, and is replaced."""
    await storm.until(0.2)
    for old in storm.crew.living():
        async with storm.fault():
            old.signal(signal.SIGTERM)
            await old.process.wait()
        while len(storm.crew.living()) < storm.crew.wanted:
            await asyncio.sleep(0.1)
        await storm.crew.until_working(storm.crew.living()[-1])


@fault(static=True, kafka={"session_timeout_s": 20.0})
async def static_restart(storm: Storm) -> None:
    """Static members are killed and stopped, and come back under their names: nothing moves."""
    for worker in list(storm.crew.workers):
        await storm.crew.until_working(worker)
    # Whoever came last has made the others give partitions up.
    await asyncio.sleep(3.0)
    for share, number in ((0.15, signal.SIGTERM), (0.35, signal.SIGKILL), (0.55, signal.SIGTERM)):
        await storm.until(share)
        async with storm.fault():
            old = storm.crew.any()
            others = [worker for worker in storm.crew.living() if worker is not old]
            before = [worker.said("partitions_") for worker in others]
            old.signal(number)
            await old.process.wait()
        while len(storm.crew.living()) < storm.crew.wanted:
            await asyncio.sleep(0.1)
        heir = storm.crew.workers[-1]
        await storm.crew.until_working(heir)
        if heir.instance_id != old.instance_id:
            raise AssertionError(f"{heir.instance_id} came after {old.instance_id}")
        if [worker.said("partitions_") for worker in others] != before:
            raise AssertionError("partitions moved although a static member came back in time")


@fault(static=True, publishers=_TX)
async def static_twins(storm: Storm) -> None:
    """A worker has the name of a static member that is alive, for 10 s."""
    for share in (0.15, 0.45):
        await storm.until(share)
        first = storm.crew.any()
        before = first.said("partitions_assigned")
        storm.crew.next_env = {INSTANCE_ID: first.instance_id}
        async with storm.fault():
            twin = await storm.crew.start()
            await storm.crew.until_working(twin)
            await asyncio.sleep(10)
            twin.signal(signal.SIGKILL)
        if not twin.said("partitions_assigned"):
            raise AssertionError("the twin got no partitions")
        if first.alive and first.said("partitions_assigned") == before:
            raise AssertionError("the first of the two has not noticed the other")


@fault(workers=1)
async def churn(storm: Storm) -> None:
    """Workers join and leave every 2 s."""
    await storm.until(0.1)
    async with storm.fault():
        for _ in range(6):
            guest = await storm.crew.start()
            await asyncio.sleep(2)
            guest.signal(signal.SIGTERM)


@fault()
async def zombie(storm: Storm) -> None:
    """SIGSTOP past the session timeout, then SIGCONT: its partitions have moved."""
    for share in (0.15, 0.5):
        await storm.until(share)
        await _work_under_way(storm)
        frozen = await storm.crew.owner()
        async with storm.fault():
            frozen.signal(signal.SIGSTOP)
            await asyncio.sleep(storm.options.session_timeout_s * 1.6)
            await _until_moved(storm)
            frozen.signal(signal.SIGCONT)


async def _until_moved(storm: Storm) -> None:
    """Wait until the workers that are not frozen have all partitions."""
    if not storm.crew.says_it_works:
        return
    end = time.monotonic() + 40.0
    while sum(worker.partitions for worker in storm.crew.living()) < storm.options.partitions:
        if time.monotonic() > end:
            raise AssertionError("the frozen worker's partitions have not moved")
        await asyncio.sleep(0.1)


def _with_accident(storm: Storm) -> list[StormWorker]:
    return [worker for worker in storm.crew.workers if _ACCIDENT in worker.env]


async def _accident(storm: Storm, what: str) -> None:
    """A worker with an accident joins, three times."""
    met: list[StormWorker] = []
    for share in (0.1, 0.3, 0.5):
        await storm.until(share)
        storm.crew.next_env = {_ACCIDENT: what.format(storm.rng.randint(2, 6))}
        async with storm.fault():
            storm.crew.any().signal(signal.SIGTERM)
            # It drains first; then the supervisor starts the one with the accident.
            async with asyncio.timeout(30):
                while len(found := _with_accident(storm)) == len(met):
                    await asyncio.sleep(0.1)
            met = found
            unlucky = met[-1]
            # It may own nothing that has records left.
            for _ in range(150):
                if unlucky.said("accident"):
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
    # At last when a later one's turn was to end it.
    if not any(worker.said("accident") for worker in met):
        raise AssertionError(f"{what} has not happened")


@fault(publishers=_TX)
async def kill_inside(storm: Storm) -> None:
    """kill -9 inside a transaction, its records sent and its offsets not."""
    await _accident(storm, "sent:{}:kill")


@fault(publishers=_TX)
async def kill_before_ack(storm: Storm) -> None:
    """kill -9 between a transaction's commit and the ack of its records."""
    await _accident(storm, "committed:{}:kill")


@fault(publishers=_TX)
async def kill_in_rebalance(storm: Storm) -> None:
    """kill -9 while partitions are being opened."""
    await _accident(storm, "assign:1:kill")


@fault(publishers=_TX)
async def hook_assign_raises(storm: Storm) -> None:
    """An exception in the hook that opens partitions."""
    await _accident(storm, "assign:1:raise")


@fault()
async def hook_revoke_raises(storm: Storm) -> None:
    """An exception in the hook that gives partitions up."""
    await _accident(storm, "revoke:1:raise")


@fault(publishers=_TX)
async def hook_assign_hangs(storm: Storm) -> None:
    """The hook that opens partitions does not come back."""
    await _accident(storm, "assign:1:sleep=60")


@fault(publishers=_TX)
async def transaction_timeout(storm: Storm) -> None:
    """A living owner stays inside a transaction past its time-out."""
    await _accident(storm, "sent:{}:sleep=11")


@fault(publishers=_TX, kafka={"transaction_deadline_s": 30.0})
async def transaction_expires(storm: Storm) -> None:
    """The same, with a deadline so long that the broker aborts the transaction."""
    await _accident(storm, "commit:{}:sleep=14")


@fault(env={"STREAM_JUDGE_LOG__LEVEL": "debug"})
async def log_disk_full(storm: Storm) -> None:
    """Nothing can be written to the log: its disk is full."""
    await storm.until(0.2)
    python, script = storm.crew.command
    async with storm.fault():
        storm.crew.command = ["/bin/sh", "-c", f'exec "{python}" "{script}" 2>/dev/full']
        for old in storm.crew.living():
            old.signal(signal.SIGTERM)


@fault()
async def clock_steps(storm: Storm) -> None:
    """The workers' wall clock jumps 50 minutes ahead, to an hour behind, and home again."""
    # The plain build of it is not made for threads.
    found = [*Path("/usr").glob("lib/*/faketime/libfaketimeMT.so.1")]
    if not found:
        raise AssertionError("there is no libfaketime here (Debian: apt install libfaketime)")
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"

        def step(by: str) -> None:
            # Whoever reads it finds the one or the other.
            clock.with_suffix(".new").write_text(by)
            clock.with_suffix(".new").replace(clock)

        step("+0")
        storm.crew.env |= {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        for old in storm.crew.living():
            old.signal(signal.SIGTERM)
            await old.process.wait()
        await storm.until(0.2)
        # Kafka takes no record that is an hour ahead of it.
        for share, by in ((0.4, "+50m"), (0.6, "-1h"), (0.8, "+0")):
            async with storm.fault():
                step(by)
            await storm.until(share)
    judged = [orjson.loads(v.value)["judged_at"] for v in await storm.verdicts() if v.value]
    ahead = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() + 1800))
    if not any(when > ahead for when in judged):
        raise AssertionError("no verdict was judged ahead of time: the clock has not jumped")
