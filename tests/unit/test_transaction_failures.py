"""What a transaction fails of, as aiokafka's own producer tells it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    ProducerFenced,
    TopicAuthorizationFailedError,
)

from stream_judge import transactional_sink
from stream_judge.errors import PublishError
from stream_judge.metrics import Metrics
from stream_judge.offsets import Committed
from stream_judge.open_transactions import LeftOpen
from stream_judge.outage import Outages
from stream_judge.publisher import make_producer
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.transaction_errors import code_of, root_of
from stream_judge.transactional_sink import Shared, TransactionalSink
from stream_judge.verdict import Outcome, OutputRecord

# No lane waits to be told that its partition has moved.
SETTINGS = KafkaSettings().model_copy(update={"session_timeout_s": 0.0})
Fail = Callable[[Any], None]


def refuse(producer: Any) -> None:
    """The broker denies a topic: what is open can still be aborted."""
    producer._txn_manager.error_transaction(TopicAuthorizationFailedError("verdicts"))


def end_sender(make: Callable[[], Exception]) -> Fail:
    """The task that sends ends with an error, and aiokafka does what it does then."""

    def end(producer: Any) -> None:
        task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task.set_exception(make())
        producer._sender._sender_task = task
        # What is called when a task ends breaks where its producer had no transaction yet.
        with contextlib.suppress(AttributeError):
            producer._sender._fail_all(task)
        for batch in (
            b for found in producer._message_accumulator._batches.values() for b in found
        ):
            # Nobody waits for it; the loop would complain.
            batch._drain_waiter.exception()

    return end


def reset() -> KafkaError:
    """A broken connection, as the task that sends wraps it."""
    exc = KafkaError("Unexpected error during batch delivery")
    exc.__cause__ = KafkaConnectionError("reset")
    return exc


class Producers:
    """aiokafka's own, without a broker. Each fails at one point of a run of two records.

    Args:
        fail: What happens then.
        at: "begin": before the run. "send": while the second record waits for metadata. "full":
            while it waits for a batch with room. "never".
    """

    def __init__(self, fail: Fail, at: str) -> None:
        self._fail = fail
        self.at = at
        self.made: list[Any] = []

    def make(self, *_: Any, **__: Any) -> Any:
        producer = make_producer(SETTINGS, transactional_id="id", max_batch_size=200)
        self.made.append(producer)
        producer.start = self._start
        # It holds nothing that would have to be closed.
        producer._closed = True
        producer._txn_manager.set_pid_and_epoch(1, 0)
        producer.commit_transaction = self._done
        producer.send_offsets_to_transaction = self._done
        producer._metadata.partitions_for_topic = lambda topic: {0}
        producer._metadata.available_partitions_for_topic = lambda topic: {0}
        asked = iter(("begin", "first", self.at))
        producer.client._wait_on_metadata = lambda topic: self._know(producer, next(asked))
        return producer

    async def _know(self, producer: Any, point: str) -> set[int]:
        if point == self.at != "full":
            self._fail(producer)
        if point == "full":
            asyncio.get_running_loop().call_soon(self._fail_and_drain, producer)
        return {0}

    def _fail_and_drain(self, producer: Any) -> None:
        self._fail(producer)
        producer._message_accumulator._pop_batch(TopicPartition(SETTINGS.verdict_topic, 0))

    async def _start(self) -> None: ...

    async def _done(self, *_: Any) -> None: ...


class Group:
    """The offsets and outcomes of a group that has committed 5."""

    async def committed(self) -> dict[Any, Committed]:
        return {(SETTINGS.topic, 0): Committed(5, 1)}

    async def of(self, producer_id: int) -> LeftOpen:
        """Nothing is open."""
        return LeftOpen({})


async def sink_on(
    producers: Producers, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> TransactionalSink:
    monkeypatch.setattr(transactional_sink, "make_producer", producers.make)
    monkeypatch.setattr(transactional_sink, "_FIRST_PAUSE_S", 0.0)
    group: Any = Group()
    shared = Shared(SETTINGS, group, group, group, Outages(), metrics, {})
    sink = TransactionalSink(shared, (SETTINGS.topic, 0), 1)
    await sink.open()
    await sink.begin_at(5, Committed(5, 1))
    return sink


def run_of_two() -> list[Outcome]:
    # One fills a batch.
    verdict = OutputRecord("verdicts", b"p", b"x" * 100, ())
    records = [make_record(b"", key=None, offset=offset) for offset in (5, 6)]
    return [Outcome(record, "judged", "above_publish", "publish", (verdict,)) for record in records]


def failures(metrics: Metrics) -> dict[str, float]:
    """How many there were, by code."""
    (family,) = metrics.transaction_failures.collect()
    return {s.labels["code"]: s.value for s in family.samples if s.name.endswith("_total")}


@pytest.mark.parametrize(
    ("fail", "at", "code", "said"),
    [
        (refuse, "send", "refused", "TopicAuthorizationFailed"),
        (refuse, "full", "refused", "TopicAuthorizationFailed"),
        (end_sender(ProducerFenced), "begin", "fenced", "ProducerFenced"),
        (end_sender(ProducerFenced), "send", "fenced", "ProducerFenced"),
        (end_sender(ProducerFenced), "full", "fenced", "ProducerFenced"),
    ],
)
async def test_a_transaction_that_fails_between_two_calls_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, fail: Fail, at: str, code: str, said: str
) -> None:
    metrics = Metrics()
    producers = Producers(fail, at)
    sink = await sink_on(producers, monkeypatch, metrics)
    with pytest.raises(PublishError, match=f"3 new producers made no progress: {said}"):
        await sink.publish(run_of_two())
    assert failures(metrics) == {code: 4.0}
    assert len(producers.made) == 4


@pytest.mark.parametrize("at", ["begin", "send", "full"])
async def test_an_outage_that_ends_the_sender_between_two_calls_is_waited_out(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    metrics = Metrics()
    producers = Producers(end_sender(reset), at)
    sink = await sink_on(producers, monkeypatch, metrics)
    publishing = asyncio.create_task(sink.publish(run_of_two()))
    async with asyncio.timeout(5):
        # More often than refusals are borne.
        while failures(metrics).get("outage", 0) < 6:
            await asyncio.sleep(0)
    assert sink._outages.names == ["kafka"]
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert set(failures(metrics)) == {"outage"}


async def test_an_assertion_without_a_failed_transaction_stays_a_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics()
    sink = await sink_on(Producers(refuse, "never"), monkeypatch, metrics)
    neither = OutputRecord("verdicts", None, None, ())
    record = make_record(b"", key=None, offset=5)
    with pytest.raises(AssertionError, match="key or value"):
        await sink.publish([Outcome(record, "judged", "above_publish", "publish", (neither,))])
    assert failures(metrics) == {}


async def test_a_partition_beside_a_refused_one_tells_of_the_refusal() -> None:
    producer = make_producer(SETTINGS, transactional_id="id")
    producer._closed = True
    producer._txn_manager.set_pid_and_epoch(1, 0)
    exc = InvalidTxnState()
    assert root_of(exc, producer) is exc
    producer._txn_manager.begin_transaction()
    assert root_of(exc, producer) is exc
    refuse(producer)
    found = root_of(exc, producer)
    assert isinstance(found, TopicAuthorizationFailedError)
    assert code_of(found) == "refused"
