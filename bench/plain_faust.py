"""A plain Faust agent as Faust's documentation writes one, to compare with.

At-least-once by Faust's own commits, concurrency in the agent, errors caught and sent to a
dead-letter topic. Reads the same settings as the worker.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import faust
import numpy as np
import orjson

from stream_judge.serving.bundle import digest_of, pack_bundle
from stream_judge.settings import read_settings
from stream_judge.triton import PolicyBundle, TritonJudge

settings = read_settings()
kafka = settings.kafka
app = faust.App(
    kafka.application,
    broker=[f"aiokafka://{server}" for server in kafka.bootstrap_servers.split(",")],
    broker_session_timeout=kafka.session_timeout_s,
    broker_heartbeat_interval=kafka.session_timeout_s / 10,
    consumer_auto_offset_reset="earliest",
    topic_allow_declare=False,
    topic_disable_leader=True,
    store="memory://",
    web_enabled=False,
    datadir=os.environ.get("TMPDIR", "/tmp") + f"/{kafka.application}-{os.getpid()}",
)
source = app.topic(kafka.topic, key_serializer="raw", value_serializer="raw")
verdicts = app.topic(kafka.verdict_topic, key_serializer="raw", value_serializer="raw")
letters = app.topic(kafka.dead_letter_topic, key_serializer="raw", value_serializer="raw")
client = TritonJudge(settings.triton)
pixels = np.full((8, 8, 3), 127, np.uint8)
data = pack_bundle("Everything counts.", [], size=8)
bundle = PolicyBundle(digest_of(data), data)


@app.task
async def connect() -> None:
    """Connect to the model server."""
    await client.start()


@app.agent(source, concurrency=16)
async def judge(stream: Any) -> None:
    """One verdict for every event."""
    async for event in stream.events():
        message = event.message
        headers = {
            "sj-source-topic": message.topic.encode(),
            "sj-source-partition": str(message.partition).encode(),
            "sj-source-offset": str(message.offset).encode(),
        }
        try:
            update = orjson.loads(message.value)
            row = await client.judge(pixels, update["title"], bundle)
            place = {"offset": message.offset, "timestamp": int(message.timestamp * 1000)}
            verdict = {"product_id": update["id"], "score": row.raw_score, "source": place}
            await verdicts.send(
                key=update["id"].encode(), value=orjson.dumps(verdict), headers=headers
            )
        except Exception:  # noqa: BLE001 - as the documentation's examples do
            await letters.send(key=message.key, value=message.value, headers=headers)
            await verdicts.send(key=message.key, value=b"{}", headers=headers)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]
    app.main()
