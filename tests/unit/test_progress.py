"""What is known of the last confirmed run, and where a partition goes on by it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from stream_judge import progress as module
from stream_judge.offsets import Committed
from stream_judge.progress import OutcomeReader, Progress, Run, State, places_of
from stream_judge.settings import KafkaSettings

A, B = TopicPartition("verdicts", 0), TopicPartition("letters", 0)
BEFORE = Committed(5, 0, lane="before")


def mine(offset: int) -> Committed:
    return Committed(offset, 1, lane="mine")


RUN = Run(("updates", 2), 7, 9, ((A, 3), (B, 0)))


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


@pytest.mark.parametrize(
    ("found", "offset"),
    [
        # The lane knows better than its group, and another owner better than the lane.
        (mine(7), 9),
        (BEFORE, 9),
        (mine(11), 11),
        (Committed(12, 2, lane="other"), 12),
        (Committed(7, 2, lane="other"), 7),
        (None, 0),
    ],
)
def test_outcomes_are_known_of_up_to_an_offset(found: Committed | None, offset: int) -> None:
    assert Progress(9, "mine", BEFORE).confirmed_to(found) == offset


def test_a_transaction_is_looked_for_by_its_last_record_in_each_partition() -> None:
    sent = [
        SimpleNamespace(topic=tp.topic, partition=0, offset=o) for tp, o in ((B, 7), (A, 3), (A, 4))
    ]
    assert places_of(sent) == ((B, 7), (A, 4))


SOURCE = [
    ("sj-source-topic", b"updates"),
    ("sj-source-partition", b"2"),
    ("sj-source-offset", b"8"),
]


def record(offset: int, headers: Any = SOURCE) -> Any:
    return SimpleNamespace(offset=offset, headers=headers)


class Reader:
    """A consumer of logs, each with records of which some are aborted, and a stable end."""

    def __init__(self, **options: Any) -> None:
        self.committed = options["isolation_level"] == "read_committed"
        self.at: dict[TopicPartition, int] = {}
        self.stopped = False
        # aiokafka's own, whose closing is mended.
        self._fetcher = SimpleNamespace(close=None)
        READERS.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, places: list[TopicPartition]) -> None: ...

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: LOGS[tp].end for tp in places}

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: LOGS[tp].begin for tp in places}

    async def getmany(self, tp: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        if LOGS[tp].error is not None:
            raise LOGS[tp].error
        records = [*LOGS[tp].records, *(() if self.committed else LOGS[tp].aborted)]
        records.sort(key=lambda found: found.offset)
        found = [found for found in records if self.at[tp] <= found.offset < LOGS[tp].end]
        self.at[tp] = LOGS[tp].end
        return {tp: found} if found else {}

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]


@dataclass
class Log:
    records: list[Any]
    end: int
    aborted: list[Any] = field(default_factory=list)
    begin: int = 0
    error: Exception | None = None


READERS: list[Reader] = []
LOGS: dict[TopicPartition, Log] = {}


@pytest.fixture(autouse=True)
def _readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AIOKafkaConsumer", Reader)
    READERS.clear()
    LOGS[B] = Log([record(0)], 2)


async def look_for(run: Run) -> State:
    reader = OutcomeReader(KafkaSettings())
    state = await reader.look_for(run)
    assert await reader.look_for(run) == state
    await reader.stop()
    assert [found.committed for found in READERS if found.committed] == [True], "one for all"
    assert all(found.stopped and found._fetcher.close for found in READERS)
    return state


FOREIGN = [(name, b"5" if name == "sj-source-partition" else value) for name, value in SOURCE]
EARLIER = [(name, b"6" if name == "sj-source-offset" else value) for name, value in SOURCE]


@pytest.mark.parametrize(
    ("log", "state"),
    [
        (Log([record(1), record(3), record(4)], 6), "there"),
        # It was aborted there.
        (Log([record(1), record(5)], 6, aborted=[record(3)]), "gone"),
        # Compaction has dropped it, as it does with what was decided; with others' aborted ones.
        (Log([record(1), record(5)], 6), "there"),
        (Log([record(1), record(5)], 6, aborted=[record(2), record(4)]), "there"),
        # So does retention.
        (Log([record(5)], 6, begin=5), "there"),
        # A log was cut, and the offset is another lane's now, or an earlier run's.
        (Log([record(3, FOREIGN)], 6), "gone"),
        (Log([record(3, EARLIER)], 6), "gone"),
        (Log([record(3, [])], 6), "gone"),
        # The stable end lies before it.
        (Log([record(1)], 3), "open"),
        (Log([], 6, error=TopicAuthorizationFailedError("verdicts")), "unknown"),
    ],
)
async def test_outcomes_are_looked_for_as_a_gate_reads_them(log: Log, state: State) -> None:
    LOGS[A] = log
    assert await look_for(RUN) == state


async def test_outcomes_on_every_topic_are_looked_for() -> None:
    LOGS[A] = Log([record(3)], 4)
    LOGS[B] = Log([], 2, aborted=[record(0)])
    assert await look_for(RUN) == "gone"
    LOGS[B] = Log([], 0)
    READERS.clear()
    assert await look_for(RUN) == "open"


async def test_whose_outcomes_are_open_is_read_from_them() -> None:
    LOGS[A] = Log([], 6, aborted=[record(3)])
    LOGS[B] = Log([record(0, FOREIGN)], 2)
    reader = OutcomeReader(KafkaSettings())
    assert await reader.source_offsets({A: 3, B: 0}, RUN.source) == {A: 8, B: None}
    assert await reader.source_offsets({A: 4}, RUN.source) == {A: None}
    assert [found.stopped for found in READERS] == [True, True]


async def test_a_reader_that_fails_or_stands_still_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = OutcomeReader(KafkaSettings())
    LOGS[A] = Log([], 6, error=KafkaConnectionError())
    with pytest.raises(KafkaConnectionError):
        await reader.look_for(RUN)
    # Nothing is ever found at an offset below the end.
    LOGS[A] = Log([record(3)], 4)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(Reader, "getmany", lambda *_, **__: asyncio.sleep(1))
    with pytest.raises(TimeoutError):
        await reader.look_for(RUN)
    assert [found.stopped for found in READERS] == [True, True]
