"""A server of ours in the foreground, until somebody stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

_SAY_EVERY_S = 10.0


class Server(Protocol):
    """What can be waited for and stopped."""

    async def wait(self) -> int:
        """Its exit code, once it ends."""
        ...

    async def stop(self) -> None:
        """Stop it, whether it was started or not; nothing is left running."""
        ...


async def serve(
    server: Server,
    start: Callable[[], Awaitable[None]],
    *,
    on_ready: Callable[[], None],
    on_starting: Callable[[float], None] = lambda _: None,
) -> int:
    """Serve until SIGTERM or SIGINT, also when it comes while the server starts.

    Args:
        server: What serves.
        start: Starts it and waits until it is ready; on cancel it leaves nothing running.
        on_ready: Called once it is ready.
        on_starting: Receives, every ten seconds until then, how many it has taken.

    Returns:
        0 after a clean stop, 1 if the server ended by itself.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stopped = asyncio.create_task(stopping.wait())
    try:
        if not await _started(start, stopped, on_starting):
            return 0
        on_ready()
        await _either(server.wait(), stopped)
        return 0 if stopping.is_set() else 1
    finally:
        stopped.cancel()
        await server.stop()


async def _started(
    start: Callable[[], Awaitable[None]],
    stopped: asyncio.Task[bool],
    on_starting: Callable[[float], None],
) -> bool:
    """Whether it started before somebody stopped it; raises what `start` raises."""
    starting = asyncio.ensure_future(start())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    both = (starting, stopped)
    try:
        while not any(task.done() for task in both):
            await asyncio.wait(both, timeout=_SAY_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if not any(task.done() for task in both):
                on_starting(loop.time() - begun)
    finally:
        starting.cancel()
        await asyncio.wait([starting])
    if starting.cancelled():
        return False
    starting.result()
    return True


async def _either(ended: Awaitable[int], stopped: asyncio.Task[bool]) -> None:
    waiting = asyncio.ensure_future(ended)
    try:
        await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
