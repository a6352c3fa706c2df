"""What an operator asks: dead letters, redriving them, what became of a record."""

from __future__ import annotations

import orjson
import pytest

from stream_judge.dead_letters import Selection, dead_letter, dead_letters, plan_redrive, redrive
from stream_judge.embedded.kafka import EmbeddedKafka, KafkaOptions
from stream_judge.errors import ConfigError, DecodeError
from stream_judge.events import SourceRecord
from stream_judge.explain import Explanation, explain
from stream_judge.rights import check_rights
from stream_judge.settings import KafkaSettings
from stream_judge.topic_reader import open_reader
from stream_judge.topics import check_topics, create_topics
from stream_judge.transactions import TransactionalPublisher
from stream_judge.verdict import VerdictWriter
from tests.kafka.chaos.topics import delete_source
from tests.kafka.log import send

WRITER = VerdictWriter(source="/test", max_record_bytes=200_000)


async def publish_dead_letters(settings: KafkaSettings, records: list[SourceRecord]) -> None:
    publisher = TransactionalPublisher(settings)
    await publisher.start()
    sinks = await publisher.open([(settings.topic, 0)], 1)
    error = DecodeError("no JSON; look at the mapping")
    await sinks[settings.topic, 0].publish(
        [
            WRITER.dead_letter(r, error, stage="decode", attempts=1, product_id="p-1")
            for r in records
        ]
    )
    await sinks[settings.topic, 0].close()
    await publisher.stop()


def source(settings: KafkaSettings, offset: int, value: bytes | None) -> SourceRecord:
    headers = (("shop", b"north"), ("empty", None))
    return SourceRecord(settings.topic, 0, offset, 1_700_000_000_000, b"k", value, headers)


async def test_dead_letters_go_back_as_they_came(settings: KafkaSettings) -> None:
    values = [b"{not json", b"\xff\xfe", b"x" * 300_000]
    await send(settings, [(b"k", value, 0) for value in values])
    broken = [source(settings, i, value) for i, value in enumerate(values)]
    await publish_dead_letters(settings, broken[:2])
    plan = await plan_redrive(settings, Selection())
    await publish_dead_letters(settings, broken[2:])
    found = [letter async for letter in dead_letters(settings, Selection(["bad_event"]))]
    assert [letter.code for letter in found] == ["bad_event"] * 3
    assert [letter.whole for letter in found] == [True, True, False]
    assert [letter async for letter in dead_letters(settings, Selection(["other"]))] == []
    assert [letter async for letter in dead_letters(settings, Selection(until_ms=1))] == []
    shown = await dead_letter(settings, found[1].partition, found[1].offset)
    assert shown == found[1]
    with pytest.raises(ConfigError, match="too large to keep whole"):
        await plan_redrive(settings, Selection())

    sent: list[int] = []
    await redrive(settings, plan, on_sent=lambda letter: sent.append(letter.offset))
    assert sent == [letter.offset for letter in found[:2]]
    async with open_reader(settings) as reader:
        records = [record async for record in reader.records(settings.topic)]
    again = [r for r in records if dict(r.headers).get("sj-redriven")]
    assert sorted(r.value for r in again) == sorted(values[:2])
    assert all(
        r.key == b"k" and r.headers[:2] == (("shop", b"north"), ("empty", None)) for r in again
    )


async def test_named_letters_go_alone_and_a_redrive_goes_on_where_it_broke_off(
    settings: KafkaSettings,
) -> None:
    values = [b"{%d" % number for number in range(4)]
    await publish_dead_letters(settings, [source(settings, i, v) for i, v in enumerate(values)])
    letters = [letter async for letter in dead_letters(settings, Selection())]
    one, two = ((letter.partition, letter.offset) for letter in letters[1:3])
    for selection in (Selection(places=[two]), Selection(after=one)):
        plan = await plan_redrive(settings, selection)
        await redrive(settings, plan, on_sent=lambda _: None)
    with pytest.raises(ConfigError, match="there is no dead letter"):
        await plan_redrive(settings, Selection(places=[one, (one[0], 999)]))
    async with open_reader(settings) as reader:
        sent = [record.value async for record in reader.records(settings.topic)]
    assert sorted(sent) == sorted([values[2], *values[2:]])


async def ask(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Explanation:
    return await explain(settings, topic, partition, offset, product_id=lambda _: "p-1")


async def test_a_record_is_explained(settings: KafkaSettings) -> None:
    await send(settings, [(b"k", b"{not json", 0)] * 3)
    await publish_dead_letters(settings, [source(settings, i, b"{not json") for i in range(2)])
    found = await ask(settings, settings.topic, 0, 1)
    assert found.state == "dead_letter"
    verdict, letter = found.outputs
    assert verdict["value"]["reason"] == "bad_event"
    assert letter["headers"]["sj-source-offset"] == "1"
    assert orjson.dumps(found.outputs)
    waiting = await ask(settings, settings.topic, 0, 2)
    assert (waiting.state, waiting.detail) == (
        "in_lag",
        "the group stands at offset 2; 0 records come first",
    )
    assert (await ask(settings, settings.topic, 0, 3)).state == "not_there"
    assert (await ask(settings, settings.topic, 1, 0)).state == "not_there"
    with pytest.raises(ConfigError, match="has partitions 0 to"):
        await ask(settings, settings.topic, 99, 0)
    await delete_source(settings, 2)
    gone = await ask(settings, settings.topic, 0, 2)
    assert gone.state == "gone"
    assert "dropped before it was judged" in gone.detail


async def test_doctor_makes_no_topic_where_the_broker_would(needs_kafka: None) -> None:
    kafka = EmbeddedKafka(KafkaOptions(config={"auto.create.topics.enable": "true"}))
    await kafka.start()
    try:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        for _ in range(2):
            found = await check_topics(settings)
            assert [topic.ok for topic in found] == [False] * 3
            assert all("topics create" in topic.detail for topic in found)
            assert all(ok for ok, _ in await check_rights(settings))
            with pytest.raises(ConfigError, match="is not there"):
                await plan_redrive(settings, Selection())
        await create_topics(settings, 1, 1)
        assert all(topic.ok for topic in await check_topics(settings))
        assert all("does not tell" not in line for _, line in await check_rights(settings))
    finally:
        await kafka.stop()
