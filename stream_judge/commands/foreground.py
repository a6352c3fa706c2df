"""A server of ours in the foreground, until somebody stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol


class Server(Protocol):
    """What can be started, waited for and stopped."""

    async def start(self) -> None:
        """Start and wait until it is ready."""
        ...

    async def wait(self) -> int:
        """Its exit code, once it ends."""
        ...

    async def stop(self) -> None:
        """Stop it; nothing is left running."""
        ...


async def serve(server: Server, on_ready: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop, 1 if the server ended by itself."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await server.start()
        on_ready()
        ended = asyncio.create_task(server.wait())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return 0 if stopping.is_set() else 1
    finally:
        await server.stop()
