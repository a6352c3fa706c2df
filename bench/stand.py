"""A test stand: Apache Kafka, a stub model server without latency, one worker process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_judge.embedded.kafka import EmbeddedKafka, KafkaOptions
from stream_judge.processes import ChildProcess
from stream_judge.settings import KafkaSettings
from stream_judge.testing import kafka_environment
from stream_judge.testing_triton import StubTriton
from stream_judge.topics import create_topics

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "tests/kafka/chaos/worker_process.py"
PLAIN_FAUST = ROOT / "bench/plain_faust.py"
#: What is compared: name, program, publisher.
KINDS: tuple[tuple[str, Path, str], ...] = (
    ("plain Faust", PLAIN_FAUST, "plain"),
    ("plain publisher", WORKER, "plain"),
    ("transactional", WORKER, "transactional"),
)
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses.

    Attributes:
        cpu_s: User and system time so far, seconds.
        rss_mb: Resident memory, 10^6 bytes.
        threads: Threads.
        sockets: Open sockets.
    """

    cpu_s: float
    rss_mb: float
    threads: int
    sockets: int


def usage(pid: int) -> Usage:
    """What a process uses now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in _descriptors(pid)]
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICK,
        rss_mb=int(fields[21]) * _PAGE / 1e6,
        threads=int(fields[17]),
        sockets=sum(link.startswith("socket:") for link in links),
    )


def _descriptors(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        if os.path.lexists(f"/proc/{pid}/fd/{name}"):
            found.append(name)
    return found


class Stand:
    """One topic set with one worker; several may follow each other on a cluster.

    Args:
        bootstrap: The cluster.
        triton: The stub's address.
        publisher: "plain" or "transactional".
        partitions: Of source and verdict topic.
    """

    def __init__(self, bootstrap: str, triton: str, publisher: str, partitions: int) -> None:
        name = uuid.uuid4().hex[:8]
        self.partitions = partitions
        self.lines: list[str] = []
        self._triton = triton
        self._worker: ChildProcess | None = None
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap,
            application=f"bench-{name}",
            topic=f"updates-{name}",
            verdict_topic=f"verdicts-{name}",
            dead_letter_topic=f"letters-{name}",
            publisher=publisher,  # type: ignore[arg-type]  # checked by pydantic
        )

    async def create(self) -> None:
        """Make the topics."""
        await create_topics(self.settings, self.partitions, 1)

    async def send(self, count: int, size: int, *, per_second: float | None = None) -> None:
        """Send product updates with values of about `size` bytes."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers,
            linger_ms=0 if per_second else 5,
            max_request_size=10_000_000,
        )
        await producer.start()
        filler = "word " * max(0, (size - 100) // 5)
        started = time.monotonic()
        try:
            for number in range(count):
                if per_second:
                    due = started + number / per_second
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                product = f"p-{number % 997}"
                picture = [{"url": "http://pictures.shop.test/a.png"}]
                event = {"id": product, "revision": number, "title": "An item", "images": picture}
                # The mapping reads no "notes": they travel, and cost nothing to judge.
                value = orjson.dumps({**event, "notes": filler})
                partition = crc32(b"%d" % number) % self.partitions
                await producer.send(
                    self.settings.topic, key=product.encode(), value=value, partition=partition
                )
        finally:
            await producer.stop()

    async def start_worker(
        self, program: Path = WORKER, env: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """Start the worker process."""
        environment = {
            **os.environ,
            **kafka_environment(self.settings),
            "PYTHONPATH": str(ROOT),
            "STREAM_JUDGE_TRITON__URL": self._triton,
            "STREAM_JUDGE_TRITON__LINGER_S": "0",
            "STREAM_JUDGE_POLICIES": str(ROOT / "tests/kafka/chaos/policies"),
            "STREAM_JUDGE_WEB__PORT": "0",
            "STREAM_JUDGE_LOG__LEVEL": "warning",
            **(env or {}),
        }
        command = [sys.executable, str(program)]
        self._worker = ChildProcess(command, env=environment, on_line=self.lines.append)
        await self._worker.start()
        return self._worker

    async def stop_worker(self) -> None:
        """Stop it."""
        if self._worker is not None:
            await self._worker.stop(20.0)

    async def read_verdicts(
        self, count: int, *, on_batch: Callable[[int], None] = lambda _: None
    ) -> list[tuple[int, int]]:
        """As `Reader.read`, by a reader that begins with the first verdict."""
        async with self.reader() as reader:
            return await reader.read(count, on_batch=on_batch)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """A reader of the verdicts, from the first one on."""
        reader = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        await reader.start()
        try:
            topic = self.settings.verdict_topic
            reader.assign([TopicPartition(topic, n) for n in range(self.partitions)])
            yield Reader(reader, self._see_worker)
        finally:
            await reader.stop()

    def _see_worker(self) -> None:
        if self._worker is not None and self._worker.exit_code is not None:
            raise RuntimeError(f"the worker ended: {self.lines[-3:]}")


class Reader:
    """Reads verdicts as they come.

    Args:
        consumer: A started aiokafka consumer.
        see_worker: Raises where nothing more will come.
    """

    def __init__(self, consumer: AIOKafkaConsumer, see_worker: Callable[[], None]) -> None:
        self._consumer = consumer
        self._see_worker = see_worker

    async def read(
        self, count: int, *, on_batch: Callable[[int], None] = lambda _: None
    ) -> list[tuple[int, int]]:
        """Wait for so many more: when each one's source was written, and when a reader had it.

        The verdict's own timestamp would say less: the worker gives it, before the broker has
        confirmed anything and before a transaction's end.

        Args:
            count: How many.
            on_batch: Told how many there are by now, from the first on.

        Returns:
            Milliseconds since the epoch, both by this machine's clock, in the order of arrival.
        """
        found: list[tuple[int, int]] = []
        while len(found) < count:
            self._see_worker()
            batch = await self._consumer.getmany(timeout_ms=500)
            now = time.time_ns() // 1_000_000
            for records in batch.values():
                found += [(orjson.loads(r.value)["source"]["timestamp"], now) for r in records]
            if found:
                on_batch(len(found))
        return found


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[str, str, int]]:
    """A broker and a stub model server: their addresses, and the broker's process id."""
    # A topic takes a moment to be there; aiokafka says so thousands of times.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    kafka = EmbeddedKafka(KafkaOptions(heap_mb=768))
    triton = StubTriton()
    await kafka.start()
    await triton.start()
    try:
        yield kafka.bootstrap, triton.url, kafka.nodes[0].pid
    finally:
        await triton.stop()
        await kafka.stop()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
