"""Publishing runs of outcomes; the only module that imports aiokafka's producer.

A run is what is finished at the head of one partition's lane. The plain publisher
confirms every record before the run counts as published; after a crash a run can be
published again (see `docs/reliability.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_judge.connection import client_options
from stream_judge.errors import PublishError
from stream_judge.settings import KafkaSettings
from stream_judge.verdict import Outcome


class Publisher(Protocol):
    """Publishes runs; an implementation decides what a run's confirmation means."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def publish(self, run: Sequence[Outcome]) -> None:
        """Publish one partition's run, in order; returns when the broker has confirmed all.

        Raises:
            PublishError: Something was not confirmed; the run counts as not published.
        """
        ...

    async def stop(self) -> None:
        """Flush and disconnect."""
        ...


class PlainPublisher:
    """At-least-once: records are sent in order, each is confirmed by all replicas.

    Args:
        settings: Broker, topics, deadline.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topics = {
            "verdicts": settings.verdict_topic,
            "dead_letters": settings.dead_letter_topic,
        }
        self._timeout_s = settings.request_timeout_s
        self._settings = settings
        self._producer: Any = None

    async def start(self) -> None:
        """Connect.

        Raises:
            PublishError: No broker answers.
        """
        self._producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            request_timeout_ms=int(self._timeout_s * 1000),
            max_request_size=self._settings.max_record_bytes + 10_000,
            linger_ms=2,
        )
        try:
            await self._producer.start()
        except (KafkaError, OSError) as exc:
            raise PublishError(f"no broker at {self._settings.bootstrap_servers}: {exc}") from exc

    async def publish(self, run: Sequence[Outcome]) -> None:
        """See `Publisher.publish`."""
        futures = []
        try:
            async with asyncio.timeout(self._timeout_s + 5):
                for output in (o for outcome in run for o in outcome.outputs):
                    sent = await self._producer.send(
                        self._topics[output.destination],
                        key=output.key,
                        value=output.value,
                        headers=list(output.headers),
                    )
                    futures.append(sent)
                results = await asyncio.gather(*futures, return_exceptions=True)
        except (KafkaError, TimeoutError, OSError) as exc:
            raise self._failed(run, exc) from exc
        for result in results:
            if isinstance(result, BaseException):
                raise self._failed(run, result) from result

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    def _failed(self, run: Sequence[Outcome], exc: BaseException) -> PublishError:
        first, last = run[0].record, run[-1].record
        return PublishError(
            f"{first.place} to offset {last.offset}: the broker did not confirm: {exc!r}"
        )
