from __future__ import annotations

import asyncio
import os
import signal

import pytest

from stream_judge.commands import foreground
from stream_judge.commands.foreground import serve
from stream_judge.errors import EnvironmentProblem


class Server:
    """Starts when it is let, ends when it is told."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.ended = asyncio.Event()
        self.said: list[str] = []

    async def start(self) -> None:
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            # As real ones do: what is running by now is stopped first.
            await asyncio.sleep(0)
            self.said.append("cleaned up")
            raise

    async def wait(self) -> int:
        await self.ended.wait()
        return 3

    async def stop(self) -> None:
        self.said.append("stopped")

    def ready(self) -> None:
        self.said.append("ready")

    async def serve(self) -> int:
        async with asyncio.timeout(20):
            return await serve(
                self,
                self.start,
                on_ready=self.ready,
                on_starting=lambda _: self.said.append("starting"),
            )


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_what_serves(number: signal.Signals) -> None:
    server = Server()
    server.may_start.set()
    serving = asyncio.create_task(server.serve())
    await settle()
    os.kill(os.getpid(), number)
    assert await serving == 0
    assert server.said == ["ready", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_what_still_starts(number: signal.Signals) -> None:
    server = Server()
    serving = asyncio.create_task(server.serve())
    await settle()
    os.kill(os.getpid(), number)
    assert await serving == 0
    assert server.said == ["cleaned up", "stopped"]


async def test_a_server_that_ends_by_itself_is_a_failure() -> None:
    server = Server()
    server.may_start.set()
    server.ended.set()
    assert await server.serve() == 1
    assert server.said == ["ready", "stopped"]


async def test_a_server_that_does_not_start_says_why() -> None:
    server = Server()

    async def start() -> None:
        raise EnvironmentProblem("port 1 is in use")

    with pytest.raises(EnvironmentProblem, match="port 1"):
        await serve(server, start, on_ready=server.ready)
    assert server.said == ["stopped"]


async def test_a_server_may_start_for_as_long_as_it_needs_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreground, "_SAY_EVERY_S", 0.01)
    server = Server()
    serving = asyncio.create_task(server.serve())
    while server.said.count("starting") < 3:
        await asyncio.sleep(0.01)
    server.may_start.set()
    server.ended.set()
    assert await serving == 1
    assert server.said[-2:] == ["ready", "stopped"]


async def test_nothing_is_left_running_when_serving_is_cancelled() -> None:
    server = Server()
    serving = asyncio.create_task(server.serve())
    await settle()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert server.said == ["cleaned up", "stopped"]
