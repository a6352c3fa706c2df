"""Product updates for a storm: mostly sound ones, some that are poison, from a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition

from stream_judge.settings import KafkaSettings

#: Header of a source record: what is to come of it, for the checker.
EXPECT = "chaos-expect"
#: What the text of every sound update begins with, and of no other row.
TITLE = b"Item "
_PICTURE = "http://pictures.shop.test/{}.png"


@dataclass(frozen=True, slots=True)
class Update:
    """A record to be sent.

    Attributes:
        key: Key bytes.
        value: Value bytes.
        expect: What is to come of it, a key of `checker.EXPECTED`.
    """

    key: bytes | None
    value: bytes | None
    expect: str = "verdict"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent.

    Attributes:
        records: How many.
        per_second: How many a second.
        poison: Makers of poison, one of them at random for each poison record.
        poison_share: Share of poison records.
        picture: Picture URL of the n-th sound update.
        expect: What is to come of it, a key of `checker.EXPECTED`.
        shuffled: Send revisions out of order.
        aborted: Share of transactions that are aborted; None sends outside transactions.
    """

    records: int
    per_second: float = 150.0
    poison: Sequence[Callable[[bytes], Update]] = ()
    poison_share: float = 0.02
    picture: Callable[[int], str] = _PICTURE.format
    expect: Callable[[int], str] = lambda _: "verdict"
    shuffled: bool = False
    aborted: float | None = None


def event(product: bytes, revision: int, picture: str, **more: object) -> bytes:
    """A sound product update."""
    found = {
        "id": product.decode(),
        "revision": revision,
        "title": f"{TITLE.decode()}{revision}",
        "images": [{"url": picture}],
    }
    return orjson.dumps({**found, **more})


def not_json(product: bytes) -> Update:
    """Cut off in the middle; the key still names the product."""
    return Update(product, b'{"id": "' + product, "both")


def bad_utf8(product: bytes) -> Update:
    """A byte that no UTF-8 text has."""
    return Update(product, b'{"id": "\xff\xfe"}', "both")


def null_value(product: bytes) -> Update:
    """A tombstone: the product is gone, and so is its verdict."""
    return Update(product, None, "tombstone")


def null_key(product: bytes) -> Update:
    """Sound, but without a key."""
    return Update(None, event(product + b"-unkeyed", 1, _PICTURE.format(0)))


def both_null(product: bytes) -> Update:
    """Neither key nor value."""
    return Update(None, None, "letter")


def bad_without_key(product: bytes) -> Update:
    """Not JSON, and nothing else names the product."""
    return Update(None, b"<xml/>", "letter")


def deep(product: bytes) -> Update:
    """Nested deeper than any parser goes."""
    return Update(product, b"[" * 100_000 + b"]" * 100_000, "both")


def long_text(product: bytes) -> Update:
    """Ten megabytes of text: read as far as the model reads."""
    return Update(product, event(product, 1, _PICTURE.format(0), description="word " * 2_000_000))


def many_urls(product: bytes) -> Update:
    """Ten thousand pictures: the first few are looked at."""
    images = [{"url": _PICTURE.format(n)} for n in range(10_000)]
    return Update(product, event(product, 1, "", images=images))


def long_urls(product: bytes) -> Update:
    """A verdict with all these URLs (policies of `galleries/`) is larger than a record may be."""
    images = [{"url": _PICTURE.format("x" * 3_900) + str(n)} for n in range(20)]
    return Update(product, event(product, 1, "", images=images))


def long_poison(product: bytes) -> Update:
    """A dead letter larger than a record may be: its value is left out."""
    return Update(product, b"not json " * 20_000, "both")


def some_urls(product: bytes) -> Update:
    """A verdict with all these URLs (policies of `galleries/`) has about 28 kB."""
    images = [{"url": _PICTURE.format("x" * 3_900) + str(n)} for n in range(7)]
    return Update(product, event(product, 1, "", images=images))


def some_poison(product: bytes) -> Update:
    """A dead letter of about 25 kB."""
    return Update(product, b"not json " * 2_500, "both")


SIMPLE: tuple[Callable[[bytes], Update], ...] = (not_json,)
MIXED = (not_json, bad_utf8, null_value, null_key, both_null, bad_without_key, deep, many_urls)


class LoadGenerator:
    """Sends a plan's records; every choice comes from the seed.

    Args:
        settings: Broker and source topic.
        plan: What is sent.
        partitions: Of the source topic.
        seed: Of every choice.
    """

    def __init__(self, settings: KafkaSettings, plan: LoadPlan, partitions: int, seed: int) -> None:
        self._settings = settings
        self._plan = plan
        self._partitions = partitions
        self._rng = random.Random(f"load/{seed}")
        #: Records sent so far, those of aborted transactions not among them.
        self.sent = 0
        #: Transactions that were aborted so far.
        self.aborted = 0
        #: Records of each maker of poison.
        self.poison: Counter[str] = Counter()

    def updates(self) -> list[Update]:
        """All records in the order they are sent."""
        plan, rng = self._plan, self._rng
        products = max(20, plan.records // 20)
        revisions = list(range(plan.records))
        if plan.shuffled:
            rng.shuffle(revisions)
        made = []
        for number, revision in enumerate(revisions):
            product = b"p-%d" % rng.randrange(products)
            if plan.poison and rng.random() < plan.poison_share:
                maker = rng.choice(plan.poison)
                self.poison[maker.__name__] += 1
                made.append(maker(product))
            else:
                value = event(product, revision, plan.picture(number))
                made.append(Update(product, value, plan.expect(number)))
        return made

    async def run(self) -> None:
        """Send everything, at the plan's pace."""
        updates = self.updates()
        more = (
            {} if self._plan.aborted is None else {"transactional_id": f"load-{self._rng.random()}"}
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            max_request_size=20_000_000,
            **more,
        )
        await producer.start()
        try:
            started = asyncio.get_running_loop().time()
            group = max(1, int(self._plan.per_second / 20))
            for first in range(0, len(updates), group):
                due = started + first / self._plan.per_second
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                await self._send(producer, updates[first : first + group])
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, updates: Sequence[Update]) -> None:
        if self._plan.aborted is None:
            await self._hand_over(producer, updates)
            return
        while self._rng.random() < self._plan.aborted:
            await producer.begin_transaction()
            await self._hand_over(producer, [Update(u.key, b"aborted") for u in updates])
            await producer.abort_transaction()
            self.aborted += 1
            self.sent -= len(updates)
        async with producer.transaction():
            await self._hand_over(producer, updates)

    async def _hand_over(self, producer: AIOKafkaProducer, updates: Sequence[Update]) -> None:
        futures = [await self._hand_over_one(producer, update) for update in updates]
        await asyncio.gather(*futures)
        self.sent += len(updates)

    async def _hand_over_one(
        self, producer: AIOKafkaProducer, update: Update
    ) -> asyncio.Future[object]:
        number = crc32(update.key or update.value or b"") % self._partitions
        headers = [(EXPECT, update.expect.encode())]
        topic = self._settings.topic
        if update.key is None and update.value is None:
            # Brokers take such a record; only this client's front door does not.
            await producer.client._wait_on_metadata(topic)
            if producer._txn_manager is not None and producer._txn_manager.transactional_id:
                producer._txn_manager.maybe_add_partition_to_txn(TopicPartition(topic, number))
            future: asyncio.Future[object] = await producer._message_accumulator.add_message(
                TopicPartition(topic, number), None, None, 30.0, headers=headers
            )
            return future
        sent: asyncio.Future[object] = await producer.send(
            topic, key=update.key, value=update.value, partition=number, headers=headers
        )
        return sent
