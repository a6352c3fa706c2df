"""Faults of the broker, and of the way to it."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from stream_judge.embedded.kafka import KafkaNode
from stream_judge.exits import LANE_LOST, OFFSETS, PUBLISH
from tests.kafka.chaos.fault import fault
from tests.kafka.chaos.load import some_poison, some_urls
from tests.kafka.chaos.proxy import END_TXN, INIT_PRODUCER_ID, PRODUCE, TXN_OFFSET_COMMIT, Rule
from tests.kafka.chaos.storm import Storm
from tests.kafka.chaos.topics import create_one, denied_writes, limit_records

_TX = ("transactional",)
# A lone broker can forget what it has confirmed; docs/reliability.md says when.
_FORGOTTEN = {LANE_LOST: "commit_forgotten"}
_OFFSETS_GONE = {OFFSETS: "OffsetError"}
_DENIED = {PUBLISH: "TopicAuthorizationFailedError"}
_TOO_LARGE = {PUBLISH: "MessageSizeTooLargeError"}
_TRANSACTION_FAILED = '"event": "transaction_failed"'


async def _rule(
    storm: Storm,
    api: int,
    action: Literal["delay", "refuse", "lose_answer"],
    times: int,
    delay_s: float = 0.0,
) -> None:
    """Put a rule on the storm's way to the broker, and see that it was met so many times."""
    proxy = storm.cluster.proxy
    assert proxy is not None
    rule = Rule(api, action, times, storm.name.encode(), delay_s)
    proxy.rules.append(rule)
    async with storm.fault():
        for _ in range(600):
            if rule.hits == times:
                break
            await asyncio.sleep(0.1)
        # The last of them, too.
        await asyncio.sleep(delay_s)
    proxy.rules.remove(rule)
    if rule.hits < times:
        raise AssertionError(f"the fault has happened {rule.hits} times, not {times}")


@fault(publishers=_TX)
async def end_txn_answer_lost(storm: Storm) -> None:
    """The broker commits, and its answer is lost."""
    for share in (0.1, 0.3, 0.5):
        await storm.until(share)
        await _rule(storm, END_TXN, "lose_answer", 2)


@fault(publishers=_TX)
async def end_txn_lost(storm: Storm) -> None:
    """The commit does not reach the broker."""
    for share in (0.1, 0.3, 0.5):
        await storm.until(share)
        await _rule(storm, END_TXN, "refuse", 2)


@fault(publishers=_TX)
async def offsets_answer_lost(storm: Storm) -> None:
    """The transaction has its offsets, and the answer that says so is lost."""
    for share in (0.1, 0.3, 0.5):
        await storm.until(share)
        await _rule(storm, TXN_OFFSET_COMMIT, "lose_answer", 2)


@fault()
async def produce_answer_lost(storm: Storm) -> None:
    """Records are in the log, and the answer that says so is lost."""
    for share in (0.1, 0.3, 0.5):
        await storm.until(share)
        await _rule(storm, PRODUCE, "lose_answer", 2)


@fault(publishers=_TX)
async def init_producer_slow(storm: Storm) -> None:
    """Opening a partition's producer takes 2 s, in the hook."""
    # A worker that joins on a busy machine takes a while, and something must be left to be done.
    await storm.until(0.05)
    joining = asyncio.create_task(storm.crew.start())
    # Each partition has one opened, whoever gets it.
    times = min(3, storm.options.partitions)
    await _rule(storm, INIT_PRODUCER_ID, "delay", times, delay_s=2.0)
    await joining


@fault(publishers=_TX)
async def init_producer_refused(storm: Storm) -> None:
    """Opening a partition's producer is refused, in the hook."""
    await storm.until(0.2)
    joining = asyncio.create_task(storm.crew.start())
    await _rule(storm, INIT_PRODUCER_ID, "refuse", 6)
    await joining


@fault(own=True, exits=_FORGOTTEN)
async def broker_restart(storm: Storm) -> None:
    """The only broker is stopped and started again."""
    await storm.until(0.3)
    (node,) = storm.cluster.kafka.nodes
    async with storm.fault():
        await node.stop()
        await asyncio.sleep(3)
        await node.start()


@fault(own=True, exits=_FORGOTTEN)
async def broker_kill(storm: Storm) -> None:
    """kill -9 of the only broker; it comes back with its data."""
    await storm.until(0.3)
    (node,) = storm.cluster.kafka.nodes
    async with storm.fault():
        await node.kill()
        await asyncio.sleep(3)
        await node.start()


@fault(own=True, exits=_FORGOTTEN)
async def broker_out_long(storm: Storm) -> None:
    """The only broker is away for 45 s, longer than sessions and deadlines."""
    await storm.until(0.3)
    (node,) = storm.cluster.kafka.nodes
    async with storm.fault():
        await node.kill()
        await asyncio.sleep(45)
        await node.start()


@fault(own=True, exits=_FORGOTTEN)
async def broker_freeze(storm: Storm) -> None:
    """The only broker hangs for 15 s."""
    await storm.until(0.3)
    (node,) = storm.cluster.kafka.nodes
    async with storm.fault():
        node.freeze()
        await asyncio.sleep(15)
        node.thaw()


@fault(own=True, exits=_FORGOTTEN)
async def broker_disk_full(storm: Storm) -> None:
    """The only broker's disk is full: it gives up, and is started when there is room again."""
    await storm.until(0.3)
    (node,) = storm.cluster.kafka.nodes
    async with storm.fault():
        # No file of its may grow any more: to the broker that is a disk without room.
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        await asyncio.wait_for(node.wait(), 60)
        await asyncio.sleep(3)
        await node.start()


@fault(own=True, nodes=3)
async def coordinators_move(storm: Storm) -> None:
    """Each of three brokers is killed in turn: coordinators and leaders move."""
    await _in_turn(storm, KafkaNode.kill, away_s=4)


@fault(own=True, nodes=3)
async def brokers_roll(storm: Storm) -> None:
    """Each of three brokers is stopped in good order and started again, as for an upgrade."""
    await _in_turn(storm, KafkaNode.stop, away_s=2)


async def _in_turn(
    storm: Storm, end: Callable[[KafkaNode], Awaitable[None]], *, away_s: float
) -> None:
    for share, node in zip((0.15, 0.4, 0.65), storm.cluster.kafka.nodes, strict=True):
        await storm.until(share)
        async with storm.fault():
            await end(node)
            await asyncio.sleep(away_s)
        await node.start()


async def _without_letters(storm: Storm) -> None:
    await create_one(storm.settings, storm.settings.topic, storm.options.partitions)
    await create_one(storm.settings, storm.settings.verdict_topic, storm.options.partitions)


async def _without_verdicts(storm: Storm) -> None:
    await create_one(storm.settings, storm.settings.topic, storm.options.partitions)
    await create_one(storm.settings, storm.settings.dead_letter_topic, 1)


async def _without_source(storm: Storm) -> None:
    await create_one(storm.settings, storm.settings.verdict_topic, storm.options.partitions)
    await create_one(storm.settings, storm.settings.dead_letter_topic, 1)


@fault(create=_without_source)
async def source_missing(storm: Storm) -> None:
    """The source topic is made 15 s after the workers began."""
    async with storm.fault():
        await asyncio.sleep(15)
        await storm.create_topics()


@fault(create=_without_letters, publishers=_TX)
async def letters_out(storm: Storm) -> None:
    """The dead-letter topic is away for 20 s while the verdict topic works."""
    async with storm.fault(_TRANSACTION_FAILED):
        await asyncio.sleep(20)
        await storm.create_topics()


@fault(create=_without_verdicts, publishers=_TX)
async def verdicts_out(storm: Storm) -> None:
    """The verdict topic is away for 20 s while the dead-letter topic works."""
    async with storm.fault(_TRANSACTION_FAILED):
        await asyncio.sleep(20)
        await storm.create_topics()


async def _denied(storm: Storm, topic: str) -> None:
    await storm.until(0.3)
    async with storm.fault(), denied_writes(storm.settings, topic, storm.cluster.worker_account):
        await asyncio.sleep(20)
    _ended(storm, PUBLISH)


def _ended(storm: Storm, code: int) -> None:
    """A worker ended with this code."""
    if not storm.crew.exits.get(str(code)):
        raise AssertionError(f"no worker ended with {code}: {storm.crew.exits}")


@fault(accounts=True, exits=_DENIED)
async def verdicts_denied(storm: Storm) -> None:
    """The right to write verdicts is taken away for 20 s: workers end and come again."""
    await _denied(storm, storm.settings.verdict_topic)


@fault(accounts=True, exits=_DENIED, plan={"poison_share": 0.05})
async def letters_denied(storm: Storm) -> None:
    """The right to write dead letters is taken away for 20 s: workers end and come again."""
    await _denied(storm, storm.settings.dead_letter_topic)


@fault(
    exits=_TOO_LARGE,
    plan={"poison": (some_urls, some_poison), "poison_share": 0.1},
    env={"STREAM_JUDGE_POLICIES": str(Path(__file__).parent / "galleries")},
    kafka={"max_record_bytes": 32_000},
)
async def too_large_for_topic(storm: Storm) -> None:
    """The output topics take less than workers are told: they end until an operator sees to it."""
    settings = storm.settings
    outputs = (settings.verdict_topic, settings.dead_letter_topic)
    await storm.until(0.3)
    async with storm.fault():
        # More than a batch of small records, and less than what workers send.
        await limit_records(settings, outputs, 20_000)
        await asyncio.sleep(20)
        _ended(storm, PUBLISH)
        await limit_records(settings, outputs, settings.max_record_bytes + 10_000)


@fault(publishers=_TX, exits=_OFFSETS_GONE)
async def offsets_out_of_range(storm: Storm) -> None:
    """The source loses what was not judged yet; the worker stops until an operator decides."""
    await storm.until(0.3)
    storm.crew.wanted = 0
    for old in storm.crew.living():
        old.signal(signal.SIGKILL)
        await old.process.wait()
    # Records that come meanwhile, and whatever transaction is still open.
    await asyncio.sleep(storm.settings.transaction_timeout_s)
    await storm.forget_source()
    refused = await storm.crew.start()
    if await asyncio.wait_for(refused.process.wait(), 60) != OFFSETS:
        raise AssertionError(f"exit code {refused.process.exit_code}, not {OFFSETS}")
    async with storm.fault():
        storm.crew.env["STREAM_JUDGE_KAFKA__ON_MISSING_OFFSET"] = "earliest"
        storm.crew.wanted = storm.options.workers


@fault(publishers=_TX, exits=_OFFSETS_GONE, env={"STREAM_JUDGE_WINDOW__MAX_RECORDS": "10000"})
async def offsets_lost_live(storm: Storm) -> None:
    """The source loses what comes next while workers live; they stop until an operator decides."""
    await storm.until(0.3)
    # From here on nothing is committed, so what is judged and what is lost can be told apart. The
    # window holds all there is, or workers would wait for room, and fetch nothing.
    storm.triton.holds = True
    await asyncio.sleep(3)
    storm.crew.wanted = 0
    workers = storm.crew.living()
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    # Shorter than a session. Records come that they have not fetched.
    await asyncio.sleep(2)
    await storm.forget_source()
    for worker in workers:
        worker.signal(signal.SIGCONT)
    for worker in workers:
        if await asyncio.wait_for(worker.process.wait(), 60) != OFFSETS:
            raise AssertionError(f"exit code {worker.process.exit_code}, not {OFFSETS}")
    async with storm.fault():
        storm.triton.holds = False
        storm.crew.env["STREAM_JUDGE_KAFKA__ON_MISSING_OFFSET"] = "earliest"
        storm.crew.wanted = storm.options.workers
