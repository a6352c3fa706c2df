"""What is known of the last confirmed run, and where a partition goes on by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from stream_judge import progress as module
from stream_judge.offsets import Committed
from stream_judge.progress import OutcomeReader, Progress, Run, State, places_of
from stream_judge.settings import KafkaSettings

A, B = TopicPartition("verdicts", 0), TopicPartition("letters", 0)
BEFORE = Committed(5, 0, lane="before")


def mine(offset: int) -> Committed:
    return Committed(offset, 1, lane="mine")


RUN = Run(7, 9, ((A, 3), (B, 0)))


@pytest.mark.parametrize(
    ("found", "forgotten"),
    [
        # The lane's own last but one, and what it began behind.
        (mine(7), True),
        (BEFORE, True),
        # Nothing is missing.
        (mine(9), False),
        # Somebody else's, also of the same generation, as of a static member's; an operator's.
        (Committed(7, 2, lane="other"), False),
        (Committed(7, 1, lane="other"), False),
        (Committed(6, 0), False),
        (Committed(7, -1), False),
        (None, False),
    ],
)
def test_what_a_broker_forgot_is_told_from_what_another_owner_did(
    found: Committed | None, forgotten: bool
) -> None:
    assert Progress(9, "mine", BEFORE).is_forgotten(found) is forgotten
    assert Progress(9, "mine", None).is_forgotten(None)


@pytest.mark.parametrize(
    ("found", "failed", "doubtful"),
    [
        (mine(7), False, True),
        # Offset and outcomes have markers of their own: each of them may be missing.
        (mine(9), True, True),
        (mine(9), False, False),
        (Committed(9, 1, lane="other"), True, False),
        # Another lane has gone on behind this one.
        (Committed(12, 1, lane="other"), True, False),
    ],
)
def test_outcomes_are_looked_for_after_a_failure(
    found: Committed, failed: bool, doubtful: bool
) -> None:
    assert Progress(9, "mine", BEFORE, RUN, failed).is_doubtful(found) is doubtful


@pytest.mark.parametrize(
    ("found", "state", "offset"),
    [
        # The offset alone was lost.
        (mine(7), "there", 9),
        # All of the transaction was.
        (mine(7), "gone", 7),
        (None, "gone", None),
        # The outcomes alone were.
        (mine(9), "gone", 7),
        (mine(9), "there", 9),
        # Who may not look repeats outcomes, and loses none.
        (mine(7), "unknown", 7),
        (mine(9), "unknown", 9),
    ],
)
def test_where_a_partition_goes_on(
    found: Committed | None, state: State, offset: int | None
) -> None:
    before = None if found is None else BEFORE
    assert Progress(9, "mine", before, RUN).resume_at(found, state) == offset


def test_a_transaction_is_looked_for_by_its_last_record_in_each_partition() -> None:
    sent = [
        SimpleNamespace(topic=tp.topic, partition=0, offset=o) for tp, o in ((B, 7), (A, 3), (A, 4))
    ]
    assert places_of(sent) == ((B, 7), (A, 4))


class Reader:
    """A `read_committed` consumer of logs, each with offsets that can be read and a stable end."""

    def __init__(self, **options: Any) -> None:
        assert options["isolation_level"] == "read_committed"
        self.at: dict[TopicPartition, int] = {}
        self.stopped = False
        READERS.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, places: list[TopicPartition]) -> None: ...

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: LOGS[tp][1] for tp in places}

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: BEGINS.get(tp, 0) for tp in places}

    async def getmany(self, tp: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        offsets, end = LOGS[tp]
        if offsets is None:
            raise TopicAuthorizationFailedError(tp.topic)
        found = [SimpleNamespace(offset=o) for o in offsets if self.at[tp] <= o < end]
        self.at[tp] = end
        return {tp: found} if found else {}

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]


READERS: list[Reader] = []
LOGS: dict[TopicPartition, tuple[list[int] | None, int]] = {}
BEGINS: dict[TopicPartition, int] = {}


@pytest.mark.parametrize(
    ("verdicts", "letters", "state"),
    [
        (([1, 3, 4], 6), ([0], 2), "there"),
        # What comes next is another's: the run was aborted there.
        (([1, 5], 6), ([0], 2), "gone"),
        (([1, 3], 6), ([], 2), "gone"),
        # The stable end lies before it.
        (([1], 3), ([0], 2), "open"),
        (([1, 3], 6), ([], 0), "open"),
        ((None, 6), ([0], 2), "unknown"),
    ],
)
async def test_outcomes_are_looked_for_as_a_gate_reads_them(
    verdicts: Any, letters: Any, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AIOKafkaConsumer", Reader)
    LOGS.update({A: verdicts, B: letters})
    reader, before = OutcomeReader(KafkaSettings()), len(READERS)
    assert await reader.look_for(RUN) == state
    assert await reader.look_for(RUN) == state
    await reader.stop()
    # One for all.
    assert [found.stopped for found in READERS[before:]] == [True]


async def test_outcomes_that_retention_has_dropped_are_not_judged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AIOKafkaConsumer", Reader)
    monkeypatch.setitem(BEGINS, A, 5)
    LOGS.update({A: ([5], 6), B: ([0], 2)})
    reader = OutcomeReader(KafkaSettings())
    assert await reader.look_for(RUN) == "there"
    await reader.stop()
