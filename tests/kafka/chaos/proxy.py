"""A proxy on the Kafka port that drops, delays or refuses one kind of request.

Kafka frames: a big-endian int32 length; a request begins with API key (int16), API version
(int16) and correlation id (int32), an answer with the correlation id
(https://kafka.apache.org/protocol).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass
from typing import Literal

#: API keys that the faults are about.
INIT_PRODUCER_ID, END_TXN, TXN_OFFSET_COMMIT, PRODUCE = 22, 26, 28, 0
_MAX_FRAME = 64_000_000
# Transactional id, group and the first topic's name stand near the front of a request.
_FRONT = 400


@dataclass(slots=True, eq=False)
class Rule:
    """What happens to requests of one kind.

    Attributes:
        api: API key.
        action: "delay" it before it is passed on, "refuse" it by closing the connection, or
            pass it on and close the connection when the answer comes ("lose_answer").
        times: To how many of them.
        owner: What stands in the names of the storm that it is for; no other storm's
            requests meet it.
        delay_s: For "delay", seconds.
        hits: To how many of them it happened.
    """

    api: int
    action: Literal["delay", "refuse", "lose_answer"]
    times: int
    owner: bytes
    delay_s: float = 0.0
    hits: int = 0

    def fits(self, api: int, frame: bytes) -> bool:
        """Whether it is to happen to a request."""
        return self.api == api and self.hits < self.times and self.owner in frame[:_FRONT]


class KafkaProxy:
    """Stands between clients and one listener of a broker.

    Args:
        port: Where clients come; the listener has to be advertised with it.
        target: Port of the listener itself.
    """

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        #: What storms have put on the way; each takes away its own.
        self.rules: list[Rule] = []

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            # Either side hung up, as connections do.
            return
        finally:
            self._links.discard(link)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
        doomed: set[int] = set()
        ways = [
            asyncio.create_task(self._requests(reader, broker_writer, doomed)),
            asyncio.create_task(_answers(broker_reader, writer, doomed)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            broker_writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: set[int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            api, _, number = struct.unpack(">hhi", frame[4:12])
            rule = next((r for r in self.rules if r.fits(api, frame)), None)
            if rule is not None:
                rule.hits += 1
                if rule.action == "refuse":
                    return
                if rule.action == "delay":
                    await asyncio.sleep(rule.delay_s)
                else:
                    doomed.add(number)
            writer.write(frame)
            await writer.drain()


async def _answers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: set[int]
) -> None:
    while True:
        frame = await _frame(reader)
        if struct.unpack(">i", frame[4:8])[0] in doomed:
            return
        writer.write(frame)
        await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    (length,) = struct.unpack(">i", head)
    if not 0 < length < _MAX_FRAME:
        raise OSError(f"a frame of {length} bytes is none of Kafka's")
    return head + await reader.readexactly(length)
