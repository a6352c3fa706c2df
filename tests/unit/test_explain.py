from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_judge import explain as module
from stream_judge.errors import BrokerError, ConfigError, DecodeError
from stream_judge.events import ProductUpdate, SourceRecord
from stream_judge.explain import Explanation, explain, parse_place
from stream_judge.settings import KafkaSettings
from stream_judge.verdict import Findings, OutputRecord, VerdictWriter
from tests.unit.memory_log import MemoryConsumer, MemoryLog

SETTINGS = KafkaSettings()
WRITER = VerdictWriter(source="/test", max_record_bytes=32_000)


class Shop:
    """A source topic keyed by shelf, whose values are product ids, and what came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = MemoryLog()
        self.log.install(monkeypatch)
        self.committed = 0
        self.expired = False
        for topic in (SETTINGS.verdict_topic, SETTINGS.dead_letter_topic):
            self.log.topics[topic] = {0: []}

        async def committed(settings: KafkaSettings, partition: tuple[str, int]) -> int | None:
            return None if self.expired else self.committed

        monkeypatch.setattr(module, "_committed", committed)

    def update(self, product: str, *, timestamp: int = 0) -> SourceRecord:
        self.log.add(SETTINGS.topic, key=b"shelf", value=product.encode(), timestamp=timestamp)
        self.committed += 1
        return SourceRecord(
            SETTINGS.topic, 0, self.committed - 1, timestamp, b"shelf", product.encode()
        )

    def judge(self, record: SourceRecord, *, timestamp: int = 0) -> None:
        update = ProductUpdate((record.value or b"").decode(), None, (), ())
        self._publish(WRITER.unjudgeable(record, Findings(update), "text_empty").outputs, timestamp)

    def bury(self, record: SourceRecord) -> None:
        error = DecodeError("no")
        letter = WRITER.dead_letter(record, error, stage="d", attempts=1, product_id=None)
        self._publish(letter.outputs, 0)

    def _publish(self, outputs: tuple[OutputRecord, ...], timestamp: int) -> None:
        topics = {"verdicts": SETTINGS.verdict_topic, "dead_letters": SETTINGS.dead_letter_topic}
        for out in outputs:
            self.log.add(
                topics[out.destination],
                key=out.key,
                value=out.value,
                headers=out.headers,
                timestamp=timestamp,
            )

    async def explain(self, offset: int) -> Explanation:
        def product_id(record: Any) -> str:
            return (record.value or b"").decode()

        return await explain(SETTINGS, SETTINGS.topic, 0, offset, product_id=product_id)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(monkeypatch)


async def test_an_outcome_is_found(shop: Shop) -> None:
    shop.judge(shop.update("mug"))
    shop.bury(shop.update("cup"))
    assert [(await shop.explain(offset)).state for offset in (0, 1)] == ["judged", "dead_letter"]


async def test_a_producer_whose_clock_is_ahead_has_lost_nothing(shop: Shop) -> None:
    shop.judge(shop.update("mug", timestamp=60_000), timestamp=1_000)
    assert (await shop.explain(0)).state == "judged"


async def test_a_verdict_that_gave_way_to_a_later_one_is_not_lost(shop: Shop) -> None:
    shop.update("mug")
    shop.judge(shop.update("cup"))
    shop.judge(shop.update("mug"))
    found = await shop.explain(0)
    assert found.state == "superseded"
    assert "offset 2" in found.detail


async def test_a_later_verdict_of_another_product_or_an_earlier_one_hides_no_loss(
    shop: Shop,
) -> None:
    shop.judge(shop.update("mug"))
    shop.update("mug")
    shop.judge(shop.update("cup"))
    assert (await shop.explain(1)).state == "lost"


async def test_what_is_to_come_is_in_lag(shop: Shop) -> None:
    shop.update("mug")
    shop.committed = 0
    assert (await shop.explain(0)).state == "in_lag"
    assert (await shop.explain(1)).state == "not_there"


@pytest.mark.parametrize("topic", [SETTINGS.verdict_topic, SETTINGS.dead_letter_topic])
async def test_an_outcome_behind_an_open_transaction_is_not_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    shop.judge(shop.update("mug"))
    missing = shop.update("cup")
    if topic == SETTINGS.verdict_topic:
        shop.judge(missing)
    else:
        shop.log.add(topic)
    shop.log.hold_back(monkeypatch, topic)
    assert (await shop.explain(0)).state == "judged"
    found = await shop.explain(1)
    assert found.state == "unsettled"
    assert "ask again in about 10 s" in found.detail


async def test_an_outcome_is_found_though_the_groups_offsets_have_expired(shop: Shop) -> None:
    shop.judge(shop.update("mug"))
    shop.update("cup")
    shop.expired = True
    assert (await shop.explain(0)).state == "judged"
    found = await shop.explain(1)
    assert found.state == "in_lag"
    assert "committed nothing for this partition" in found.detail
    assert "1 records come first" in found.detail


async def test_a_record_that_is_gone_is_judged_though_the_groups_offsets_have_expired(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(
        self: MemoryConsumer, places: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return {place: 2 if place.topic == SETTINGS.topic else 0 for place in places}

    shop.judge(shop.update("mug"))
    for product in ("cup", "jug"):
        shop.update(product)
    monkeypatch.setattr(MemoryConsumer, "beginning_offsets", first)
    shop.expired = True
    assert (await shop.explain(0)).state == "judged"
    found = await shop.explain(1)
    assert found.state == "gone"
    assert "committed nothing" in found.detail
    assert "before it was judged" not in found.detail


async def test_a_group_that_the_broker_does_not_tell_of_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        def __init__(self, _: KafkaSettings) -> None: ...

        async def start(self) -> None: ...

        async def committed(self) -> dict[tuple[str, int], int]:
            await asyncio.Event().wait()
            return {}

        async def stop(self) -> None: ...

    monkeypatch.setattr(module, "GroupOffsets", Silent)
    log = MemoryLog()
    log.install(monkeypatch)
    log.add(SETTINGS.topic)
    hasty = SETTINGS.model_copy(update={"request_timeout_s": 0.02})
    with pytest.raises(BrokerError, match="where the group stream-judge stands"):
        await explain(hasty, SETTINGS.topic, 0, 0, product_id=lambda _: "mug")


def test_a_place_is_read() -> None:
    assert parse_place("product-updates/3/1207") == ("product-updates", 3, 1207)


@pytest.mark.parametrize(
    "text", ["product-updates", "a/b/1", "a/1", "/1/2", "a/1/-2", "a/1/\u00b2", "a/\u2460/2"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="TOPIC/PARTITION/OFFSET"):
        parse_place(text)
