"""A few telling faults of the chaos suite, small; the whole is `python -m tests.kafka.chaos`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kafka.chaos.__main__ import run_fault
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.fault import FAULTS
from tests.kafka.chaos.storm import Result, StormOptions

# Fewer are through before a worker with an accident has joined.
RECORDS = 600
# Side by side on one broker, but for one that kills its own: each has topics, a group and workers
# of its own. The plain publisher is named, and promises less.
GROUPS = (
    ("kill", "join_before_commit"),
    ("kill_inside", "end_txn_answer_lost"),
    ("zombie", "kill_before_ack"),
    ("poison", "offsets_out_of_range"),
    ("hook_assign_raises", "transaction_timeout"),
    ("triton_crash", "kill plain"),
    ("init_producer_refused", "resolver_out", "upstream_aborts"),
    ("broker_kill",),
)
AT_LEAST_ONCE = {"repeated", "order_breaks"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(needs_kafka: None) -> AsyncIterator[StormCluster]:
    made = StormCluster()
    await made.start()
    yield made
    await made.stop()


async def storm(told: str, shared: StormCluster) -> Result:
    name, _, publisher = told.partition(" ")
    fault = FAULTS[name]
    options = StormOptions(
        records=RECORDS, seed=1, workers=fault.workers, publisher=publisher or "transactional"
    )
    if not fault.own:
        return await run_fault(fault, options, shared)
    cluster = StormCluster()
    await cluster.start()
    try:
        return await run_fault(fault, options, cluster)
    finally:
        await cluster.stop()


# The checker's own clients lose their broker while they connect, and are cancelled in it; aiokafka
# leaves such a connection to the garbage collector. Workers are processes of their own.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
async def test_no_promise_is_broken(cluster: StormCluster, names: tuple[str, ...]) -> None:
    results = await asyncio.gather(*(storm(name, cluster) for name in names))
    # Here, not in the middle of a test that has nothing to do with it.
    gc.collect()
    for result in results:
        found = result.found
        allowed = AT_LEAST_ONCE if result.options.publisher == "plain" else set()
        assert not result.problems, result
        assert not found.broken.keys() - allowed, result
        assert found.dead_letters == found.dead_letters_expected, result
