from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaTimeoutError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
)
from pydantic import ValidationError

from stream_judge.errors import PublishError
from stream_judge.publisher import PlainPublisher, id_prefix, transactional_id
from stream_judge.settings import KafkaSettings
from stream_judge.testing import make_record
from stream_judge.verdict import Outcome, OutputRecord

SETTINGS = KafkaSettings()


class Producer:
    """Confirms, refuses or keeps what it is sent, as the test says.

    Args:
        answers: To one record after the other: an error, True, or None for none.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []
        self.futures: list[asyncio.Future[bool]] = []

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Any
    ) -> asyncio.Future[bool]:
        assert isinstance(headers, list)
        self.sent.append((topic, key, value))
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future


def publisher_on(producer: Any, *, request_timeout_s: float = 60.0) -> PlainPublisher:
    # Not checked: its bound is above what a test can wait for.
    settings = SETTINGS.model_copy(update={"request_timeout_s": request_timeout_s})
    publisher = PlainPublisher(settings)
    publisher._producer = producer
    return publisher


def run_of(*offsets: int) -> list[Outcome]:
    run = []
    for offset in offsets:
        verdict = OutputRecord("verdicts", b"%d" % offset, b"{}", (("h", b""),))
        run.append(
            Outcome(
                make_record(b"", offset=offset), "judged", "above_publish", "publish", (verdict,)
            )
        )
    return run


async def test_a_run_is_sent_in_order_and_its_end_is_every_confirmation() -> None:
    producer = Producer(True, None)
    publisher = publisher_on(producer)
    letter = OutputRecord("dead_letters", None, b"x", ())
    record = make_record(b"x", offset=6)
    run = [*run_of(5), Outcome(record, "dead_letter", "bad_event", None, (letter,))]
    publishing = asyncio.create_task(publisher.publish(run))
    await asyncio.sleep(0.01)
    assert producer.sent == [
        (SETTINGS.verdict_topic, b"5", b"{}"),
        (SETTINGS.dead_letter_topic, None, b"x"),
    ]
    assert not publishing.done()
    producer.futures[1].set_result(True)
    await asyncio.wait_for(publishing, 1)


@pytest.mark.parametrize("refused", [0, 1, 2])
async def test_a_run_of_which_a_part_is_confirmed_is_not(refused: int) -> None:
    answers: list[Any] = [True] * 3
    answers[refused] = NotEnoughReplicasError()
    publisher = publisher_on(Producer(*answers))
    said = "product-updates/0/5 to offset 7: the broker did not confirm: NotEnoughReplicas"
    with pytest.raises(PublishError, match=said):
        await publisher.publish(run_of(5, 6, 7))


async def test_a_refusal_waits_for_what_else_was_sent() -> None:
    # A producer that is stopped while records of it are open could still write them.
    producer = Producer(TopicAuthorizationFailedError("verdicts"), None)
    publishing = asyncio.create_task(publisher_on(producer).publish(run_of(5, 6)))
    await asyncio.sleep(0.01)
    assert not publishing.done()
    producer.futures[1].set_result(True)
    with pytest.raises(PublishError, match="TopicAuthorizationFailed"):
        await asyncio.wait_for(publishing, 1)


async def test_a_run_that_cannot_be_handed_over_is_not_confirmed() -> None:
    class Full(Producer):
        async def send(self, topic: str, **_: Any) -> Any:
            raise KafkaTimeoutError

    with pytest.raises(PublishError, match="KafkaTimeoutError"):
        await publisher_on(Full()).publish(run_of(5))


async def test_a_broker_that_never_answers_has_a_deadline() -> None:
    producer = Producer(True, None)
    # Five seconds are its own.
    publisher = publisher_on(producer, request_timeout_s=-4.99)
    with pytest.raises(PublishError, match="did not confirm: TimeoutError"):
        await asyncio.wait_for(publisher.publish(run_of(5, 6)), 5)
    assert producer.futures[1].cancelled()


async def test_a_lane_that_ends_lets_go_of_its_run_and_says_nothing() -> None:
    producer = Producer(None)
    publishing = asyncio.create_task(publisher_on(producer).publish(run_of(5)))
    await asyncio.sleep(0.01)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert producer.futures[0].cancelled()


def test_no_two_groups_share_a_transactional_id() -> None:
    one = KafkaSettings(application="judge", topic="eu-updates")
    other = KafkaSettings(application="judge-eu", topic="updates")
    ids = [transactional_id(settings, settings.topic, 0) for settings in (one, other)]
    assert ids == ["judge:eu-updates:0", "judge-eu:updates:0"]
    # Nor does the right to use the ones include the others.
    assert id_prefix(one) == "judge:"
    assert not ids[1].startswith(id_prefix(one))


@pytest.mark.parametrize("field", ["application", "topic"])
def test_no_name_has_what_stands_between_the_parts_of_an_id(field: str) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings(**{field: "judge:eu"})  # type: ignore[arg-type]  # only strings
