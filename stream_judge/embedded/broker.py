"""librdkafka's mock Kafka cluster in a child process: real sockets, nothing on disk.

It comes with the confluent-kafka wheel. It knows no transactions, keeps about 5 MB of a
partition (the oldest goes first) and serves one group member of aiokafka.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream_judge.errors import EnvironmentProblem
from stream_judge.extras import need
from stream_judge.processes import ChildProcess

_START_S = 15.0


class EmbeddedBroker:
    """A mock broker of our own.

    Args:
        topics: Partitions by topic.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._topics = dict(topics)
        self._address: asyncio.Future[str] | None = None
        self._process: ChildProcess | None = None
        self._said: deque[str] = deque(maxlen=3)
        self.bootstrap = ""

    async def start(self) -> None:
        """Start it and make the topics.

        Raises:
            EnvironmentProblem: confluent-kafka is missing, or the broker does not start.
        """
        need("embedded", "confluent_kafka")
        self._address = asyncio.get_running_loop().create_future()
        self._process = ChildProcess(
            [sys.executable, "-m", __name__, json.dumps(self._topics)],
            env=None,
            on_line=self._line,
        )
        await self._process.start()
        ended = asyncio.create_task(self._process.wait())
        both: tuple[asyncio.Future[Any], ...] = (self._address, ended)
        await asyncio.wait(both, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not self._address.done():
            await self.stop()
            raise EnvironmentProblem(
                f"the embedded broker did not start: {' | '.join(self._said) or 'it said nothing'}"
            )
        self.bootstrap = self._address.result()

    async def wait(self) -> int:
        """Its exit code, once it ends."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self._process is not None:
            await self._process.stop(grace_s=2.0)

    def _line(self, line: str) -> None:
        if self._address is not None and not self._address.done() and line.startswith("at "):
            self._address.set_result(line.removeprefix("at "))
        else:
            self._said.append(line)


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise SystemExit("confluent-kafka is not installed")
    folder = Path(spec.origin).parent.parent / "confluent_kafka.libs"
    (path,) = folder.glob("librdkafka-*.so*")
    # The wheel's own dependencies lie beside it; loading the module first resolves them.
    import confluent_kafka  # noqa: F401

    return ctypes.CDLL(str(path))


def _serve(topics: Mapping[str, int]) -> None:
    library = _library()
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    error = ctypes.create_string_buffer(512)
    handle = library.rd_kafka_new(0, library.rd_kafka_conf_new(), error, 512)
    if not handle:
        raise SystemExit(f"librdkafka: {error.value.decode()}")
    cluster = library.rd_kafka_mock_cluster_new(handle, 1)
    for topic, partitions in topics.items():
        library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, 1)
    address = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    print(f"at {address}", flush=True)  # noqa: T201 - read by the parent
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
