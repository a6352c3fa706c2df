"""A few telling faults of the chaos suite, small; the whole is `python -m tests.kafka.chaos`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kafka.chaos.__main__ import run_fault
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.fault import FAULTS
from tests.kafka.chaos.storm import StormOptions

RECORDS = 240
# Side by side on one broker: each has topics, a group and workers of its own.
GROUPS = (
    ("kill", "join_before_commit", "kill_inside", "end_txn_answer_lost"),
    ("zombie", "kill_before_ack", "poison"),
    ("hook_assign_raises", "transaction_timeout", "triton_crash"),
    ("init_producer_refused", "resolver_out", "upstream_aborts"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(needs_kafka: None) -> AsyncIterator[StormCluster]:
    made = StormCluster()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("names", GROUPS, ids=" ".join)
async def test_no_promise_is_broken(cluster: StormCluster, names: tuple[str, ...]) -> None:
    storms = [
        run_fault(fault, StormOptions(records=RECORDS, seed=1, workers=fault.workers), cluster)
        for fault in map(FAULTS.__getitem__, names)
    ]
    for result in await asyncio.gather(*storms):
        assert result.sound, result


async def test_a_broker_that_is_killed_comes_back_to_no_broken_promise(needs_kafka: None) -> None:
    fault = FAULTS["broker_kill"]
    cluster = StormCluster()
    await cluster.start()
    try:
        result = await run_fault(fault, StormOptions(records=RECORDS, seed=1), cluster)
    finally:
        await cluster.stop()
    assert result.sound, result
