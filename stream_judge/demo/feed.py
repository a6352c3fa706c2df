"""Publishing the drawn shop's updates, paced by what has come out."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_judge.catalogue.events import PLACEHOLDER

Place = tuple[int, int]
# The embedded broker keeps 5 MB of a partition; nobody may fall behind further than this.
_MOST_AHEAD = 400


@dataclass(frozen=True, slots=True)
class Fed:
    """One published update.

    Attributes:
        line: Line of the event file, from 0.
        place: Source partition and offset.
        timestamp_ms: When it was published, milliseconds since the epoch.
        event: The parsed event; empty if it was malformed or a tombstone.
    """

    line: int
    place: Place
    timestamp_ms: int
    event: dict[str, Any]


def read_events(path: Path, base_url: str) -> list[tuple[bytes, bytes | None, dict[str, Any]]]:
    """Key, value and parsed event of each line, with picture URLs that lead to `base_url`."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.replace(PLACEHOLDER, base_url))
        event = entry.get("value") or {}
        if "value_base64" in entry:
            value: bytes | None = base64.b64decode(entry["value_base64"])
        elif entry["value"] is None:
            value = None
        else:
            value = json.dumps(event, ensure_ascii=False).encode()
        found.append((entry["key"].encode(), value, event))
    return found


async def feed(
    bootstrap: str,
    topic: str,
    events: list[tuple[bytes, bytes | None, dict[str, Any]]],
    *,
    finished: Callable[[], int],
    on_fed: Callable[[Fed], None],
) -> None:
    """Publish all events in order; `finished` says how many have come out."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=1)
    await producer.start()
    try:
        for line, (key, value, event) in enumerate(events):
            while line - finished() > _MOST_AHEAD:  # noqa: ASYNC110 - paced, not woken
                await asyncio.sleep(0.05)
            # Given, not asked for: not every broker tells it back.
            now_ms = int(time.time() * 1000)
            sent = await producer.send_and_wait(topic, key=key, value=value, timestamp_ms=now_ms)
            on_fed(Fed(line, (sent.partition, sent.offset), now_ms, event))
    finally:
        await producer.stop()
