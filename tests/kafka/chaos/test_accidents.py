"""What the suite takes for an accident that was met, and for a group that has settled."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from tests.kafka.chaos.accidents import logs
from tests.kafka.chaos.crew import Crew, StormWorker

FENCED = '{"error": "ProducerFenced()", "event": "transaction_failed"}'
LATE = '{"error": "TimeoutError()", "event": "transaction_failed"}'
MOVED = '{"partitions": 2, "event": "partitions_revoked"}'


class Running:
    pid, exit_code = 1, None


def worker(number: int, *lines: str) -> StormWorker:
    return StormWorker(number, cast(Any, Running()), list(lines), {})


def assigned(partitions: int, generation: int) -> str:
    return (
        f'{{"partitions": {partitions}, "generation": {generation}, '
        '"event": "partitions_assigned"}'
    )


async def test_the_event_that_follows_an_accident_is_what_comes_of_it() -> None:
    unlucky = worker(1, MOVED, "accident sleep=14 at commit", '{"event": "x"}', FENCED, MOVED)
    await logs("transaction_failed", "ProducerFenced")(cast(Any, None), unlucky)


@pytest.mark.parametrize("first", [MOVED, LATE, '{"event": "worker_fatal"}'])
async def test_an_accident_that_was_cut_short_is_not_met(first: str) -> None:
    unlucky = worker(1, "accident sleep=14 at commit", first, FENCED)
    with pytest.raises(AssertionError, match="not transaction_failed with ProducerFenced, but"):
        await logs("transaction_failed", "ProducerFenced")(cast(Any, None), unlucky)


@pytest.mark.parametrize(
    ("first", "second", "settled"),
    [
        ((assigned(4, 1), assigned(2, 2)), (assigned(2, 2),), True),
        ((assigned(4, 1),), (), False),
        ((assigned(2, 2),), (assigned(2, 3),), False),
        ((assigned(2, 3),), (assigned(1, 3),), False),
    ],
    ids=["shared", "one has not joined", "two generations", "a partition has no owner"],
)
async def test_a_group_has_settled_when_one_generation_owns_all(
    first: tuple[str, ...], second: tuple[str, ...], settled: bool
) -> None:
    crew = Crew([], {}, 2, random.Random(0))
    crew.workers = [worker(1, *first), worker(2, *second)]
    if settled:
        await crew.until_settled(4, seconds=0.0)
        return
    with pytest.raises(TimeoutError, match="has not settled"):
        await crew.until_settled(4, seconds=0.0)


async def test_a_group_with_a_worker_too_few_has_not_settled() -> None:
    crew = Crew([], {}, 2, random.Random(0))
    crew.workers = [worker(1, assigned(4, 1))]
    with pytest.raises(TimeoutError, match="has not settled"):
        await crew.until_settled(4, seconds=0.0)
