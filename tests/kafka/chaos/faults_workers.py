"""Faults of workers: killed, stopped, frozen, joined by others, failing inside."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from stream_judge.exits import FATAL
from tests.kafka.chaos.accidents import accident, killed, killed_inside, logs
from tests.kafka.chaos.crew import INSTANCE_ID, StormWorker, in_time
from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.storm import Storm

_TX = ("transactional",)
# So many more workers join before one leaves.
_STAYS = 3
# A step of the workers' clock that shows, seconds.
_STEP_S = 1800


async def _works(storm: Storm, worker: StormWorker) -> None:
    """Wait until a worker has partitions; one that ends before has none."""
    await storm.crew.until_working(worker)
    if not storm.crew.says_it_works:
        return
    # Two of three members may own all there is, until one of them leaves.
    if not await in_time(lambda: worker.partitions or not worker.alive, 40.0) or not worker.alive:
        raise AssertionError(f"worker {worker.number} was never assigned a partition")


@fault()
async def calm(storm: Storm) -> None:
    """Nothing goes wrong."""
    await storm.until(0.5)


async def _work_under_way(storm: Storm, answer_s: float = 3.0) -> None:
    """For a second every answer takes so long: what comes next meets workers with records."""
    storm.latency = lambda: answer_s
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
            guest = await storm.crew.start()
            await storm.crew.until_working(guest)
            if not guest.alive:
                raise AssertionError(f"worker {guest.number} has not joined")
            # Faust's assignor may leave the third of three without a partition.
            await storm.crew.until_settled(storm.options.partitions)
        if storm.done:
            raise AssertionError(f"{storm.done} records were committed before")
        storm.triton.holds = False


@fault()
async def kill(storm: Storm) -> None:
    """kill -9 of an owner of partitions, five times."""
    for share in (0.1, 0.25, 0.4, 0.55, 0.7):
        await storm.until(share)
        await _work_under_way(storm)
        async with storm.fault():
            await storm.crew.end(await storm.crew.owner(), signal.SIGKILL)
        await asyncio.sleep(storm.rng.uniform(0.0, 1.0))


@fault()
async def terminate(storm: Storm) -> None:
    """SIGTERM of an owner of partitions, four times: it drains and ends with 0."""
    busy = 0
    # Two drains of 2 s that the answers come in time for, and two that they do not.
    for share, answer_s in ((0.15, 1.5), (0.35, 3.0), (0.5, 1.5), (0.7, 3.0)):
        await storm.until(share)
        old = await storm.crew.owner()
        await _work_under_way(storm, answer_s)
        async with storm.fault():
            await storm.crew.end(old)
        busy += not old.said('"in_flight": 0, "event": "worker_stopping"')
    # A rebalance may have emptied the window just before.
    if busy < 2:
        raise AssertionError("the workers had nothing to drain")


@fault()
async def rolling_restart(storm: Storm) -> None:
    """Every worker gets SIGTERM, one after the other, and is replaced."""
    await storm.until(0.2)
    await storm.crew.until_settled(storm.options.partitions)
    for old in storm.crew.living():
        async with storm.fault():
            await storm.crew.end(old)
        await storm.crew.until_settled(storm.options.partitions)


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
            await storm.crew.end(old, number)
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
        await storm.crew.until_settled(storm.options.partitions)
        first = await storm.crew.owner()
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


@fault(workers=1, load_s=80.0)
async def churn(storm: Storm) -> None:
    """Every 2 s a worker joins, and every 2 s one that has partitions leaves."""
    guests: list[StormWorker] = []
    with tempfile.TemporaryDirectory() as folder:
        # A start takes seconds of a core: they are done before.
        gates = [Path(folder) / str(number) for number in range(7)]
        waiting = [await _wait_at(storm, gate) for gate in gates]
        await _all_wait(storm, waiting)
        async with storm.fault():
            for number, gate in enumerate(gates):
                gate.touch()
                guests.append(waiting[number] or await storm.crew.start())
                # Joining takes one 2 to 4 s.
                if number >= _STAYS:
                    await _leaves(storm, guests[number - _STAYS])
                await asyncio.sleep(2.0)
            for guest in guests[-_STAYS:]:
                await _leaves(storm, guest)
                await asyncio.sleep(2.0)
            for guest in guests:
                await storm.crew.until_ended(guest, 0)
    worked = sum(bool(guest.said('"event": "verdict_published"')) for guest in guests)
    if storm.crew.says_it_works and worked < len(guests) // 2:
        raise AssertionError(f"{worked} of {len(guests)} workers have published before they left")


async def _wait_at(storm: Storm, gate: Path) -> StormWorker | None:
    """A worker that begins when the gate is there; None for a program that knows of none."""
    if not storm.crew.says_it_works:
        return None
    storm.crew.next_env = {"CHAOS_GATE": str(gate)}
    return await storm.crew.start()


async def _all_wait(storm: Storm, waiting: Sequence[StormWorker | None]) -> None:
    for worker in waiting:
        if worker and not await in_time(lambda worker=worker: worker.said("at the gate"), 60.0):
            raise AssertionError(f"worker {worker.number} does not start")


async def _leaves(storm: Storm, guest: StormWorker) -> None:
    await _works(storm, guest)
    guest.signal(signal.SIGTERM)


@fault()
async def zombie(storm: Storm) -> None:
    """SIGSTOP past the session timeout, then SIGCONT: its partitions have moved."""
    for share in (0.15, 0.5):
        await storm.until(share)
        # Whoever was frozen before owns nothing until it has joined again.
        await storm.crew.until_settled(storm.options.partitions)
        await _work_under_way(storm)
        frozen = await storm.crew.owner()
        async with storm.fault():
            frozen.signal(signal.SIGSTOP)
            await asyncio.sleep(storm.options.session_timeout_s * 1.6)
            await _until_moved(storm)
            frozen.signal(signal.SIGCONT)
        if storm.crew.says_it_works and not await in_time(
            lambda frozen=frozen: frozen.said("process_was_frozen"), 10.0
        ):
            raise AssertionError("the frozen worker has not woken")


async def _until_moved(storm: Storm) -> None:
    """Wait until the workers that are not frozen have all partitions."""

    def moved() -> bool:
        owned = sum(worker.partitions for worker in storm.crew.living())
        return owned >= storm.options.partitions

    if storm.crew.says_it_works and not await in_time(moved, 40.0):
        raise AssertionError("the frozen worker's partitions have not moved")


async def _guest_joins(storm: Storm, unlucky: StormWorker) -> None:
    await storm.crew.until_working(await storm.crew.start())


@fault(publishers=_TX)
async def kill_inside(storm: Storm) -> None:
    """kill -9 inside a transaction, its records sent and its offsets not."""
    await accident(storm, "sent:{}:kill", killed_inside)


@fault(publishers=_TX)
async def kill_before_ack(storm: Storm) -> None:
    """kill -9 between a transaction's commit and the ack of its records."""
    await accident(storm, "committed:{}:kill", killed)


@fault(publishers=_TX)
async def kill_in_rebalance(storm: Storm) -> None:
    """kill -9 while partitions are being opened."""
    await accident(storm, "assign:1:kill", killed)


@fault(publishers=_TX, exits={FATAL: "an accident at assign"})
async def hook_assign_raises(storm: Storm) -> None:
    """An exception in the hook that opens partitions."""
    fatal = logs("worker_fatal", "an accident at assign", code=FATAL)
    await accident(storm, "assign:1:raise", fatal)


@fault(exits={FATAL: "an accident at revoke"}, load_s=60.0)
async def hook_revoke_raises(storm: Storm) -> None:
    """An exception in the hook that gives partitions up, when another worker joins."""
    fatal = logs("worker_fatal", "an accident at revoke", code=FATAL)
    await accident(storm, "revoke:1:raise", fatal, provoke=_guest_joins)


@fault(publishers=_TX, exits={FATAL: "opening partitions took longer"})
async def hook_assign_hangs(storm: Storm) -> None:
    """The hook that opens partitions does not come back."""
    fatal = logs("worker_fatal", "opening partitions took longer", code=FATAL)
    await accident(storm, "assign:1:sleep=60", fatal)


@fault(publishers=_TX)
async def transaction_timeout(storm: Storm) -> None:
    """A living owner's transaction outlasts the worker's deadline, not the broker's time-out."""
    # The worker gives it up after 4 s; the broker would after 8 s.
    await accident(storm, "sent:{}:sleep=11", logs("transaction_failed", "TimeoutError"))


@fault(publishers=_TX, kafka={"transaction_deadline_s": 30.0}, load_s=60.0)
async def transaction_expires(storm: Storm) -> None:
    """The broker's time-out ends a living owner's transaction before the worker's deadline does."""
    fenced = logs("transaction_failed", "ProducerFenced", "InvalidProducerEpoch")
    # The broker ends it after 8 to 9 s.
    await accident(storm, "commit:{}:sleep=14", fenced, shares=(0.1, 0.4))


@fault(env={"STREAM_JUDGE_LOG__LEVEL": "debug"})
async def log_disk_full(storm: Storm) -> None:
    """Nothing can be written to the log: its disk is full."""
    await storm.until(0.2)
    await storm.crew.until_settled(storm.options.partitions)
    python, script = storm.crew.command
    async with storm.fault():
        storm.crew.command = ["/bin/sh", "-c", f'exec "{python}" "{script}" 2>/dev/full']
        old = storm.crew.living()
        for worker in old:
            worker.signal(signal.SIGTERM)
        for worker in old:
            await storm.crew.until_ended(worker, 0)
    await storm.until(0.8)
    # Whoever commits now was started without a place for its log.
    if any(worker.lines for worker in storm.crew.living()):
        raise AssertionError("a worker could write to its log")


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
            # Seconds. Without, every look at the clock reads the file, and workers are slow.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await storm.crew.until_settled(storm.options.partitions)
        for old in storm.crew.living():
            await storm.crew.end(old)
        await storm.until(0.2)
        await storm.crew.until_settled(storm.options.partitions)
        # Kafka takes no record that is an hour ahead of it.
        for share, by in ((0.4, "+50m"), (0.6, "-1h"), (0.8, "+0")):
            async with storm.fault():
                step(by)
            # A group that took long to settle has this share already.
            await asyncio.sleep(3.0)
            await storm.until(share)
    judged = [orjson.loads(v.value)["judged_at"] for v in await storm.verdicts() if v.value]
    behind, ahead = (_utc(time.time() + step) for step in (-_STEP_S, _STEP_S))
    if not any(when > ahead for when in judged) or not any(when < behind for when in judged):
        raise AssertionError("no verdict was judged ahead of time, or none behind: no clock jumped")


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(at))
