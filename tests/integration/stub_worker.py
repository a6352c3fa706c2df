"""A worker process with stand-ins for pictures and the model server; Kafka is real.

What a listing's title asks for: `slow` takes 0.3 s, `memory` raises MemoryError, `stuck`
never ends, `block` stops the event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from stream_judge import worker
from stream_judge.events import SourceRecord
from stream_judge.judge import Judge
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.policy import Policy, PolicyFile, PolicySet
from stream_judge.resources import resource
from stream_judge.serving.bundle import digest_of, pack_bundle
from stream_judge.settings import Settings, read_settings
from stream_judge.testing import MODEL, StubImages, StubJudge
from stream_judge.triton import PolicyBundle
from stream_judge.verdict import Outcome, VerdictWriter


class OddJudge(Judge):
    async def judge(self, record: SourceRecord) -> Outcome:
        title = _title(record)
        if title == "memory":
            raise MemoryError
        if title == "block":
            time.sleep(3600)
        if title == "stuck":
            await asyncio.sleep(3600)
        if title == "slow":
            await asyncio.sleep(0.3)
        return await super().judge(record)


def _title(record: SourceRecord) -> str:
    try:
        return str(orjson.loads(record.value or b"{}").get("title"))
    except orjson.JSONDecodeError:
        return ""


@asynccontextmanager
async def build_judge(settings: Settings, metrics: Metrics, **_: Any) -> AsyncIterator[Judge]:
    file = PolicyFile(id="exact", version=1, instruction="All counts.")
    data = pack_bundle(file.instruction, [], size=8)
    bundle = PolicyBundle(digest_of(data), data)
    yield OddJudge(
        mapping=Mapping.read(resource("mappings/catalogue.yaml")),
        policies=PolicySet([Policy(file, "0" * 64, bundle)]),
        model=MODEL,
        loader=StubImages(),
        client=StubJudge(),
        writer=VerdictWriter(source="/test", max_record_bytes=1_000_000),
        window=settings.window,
        metrics=metrics,
    )


if __name__ == "__main__":
    worker.build_judge = build_judge
    sys.exit(asyncio.run(worker.run_worker(read_settings())))
