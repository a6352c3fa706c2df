"""Names of sellers' hosts, and how to tell their outage from the operator's."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from stream_judge.images.guard import AddressGuard

# A name server that answers nothing holds a thread for as long as the system waits (10 s and
# more), whatever deadline its caller has.
_THREADS = 32
_CANARY_S = 5.0


class GuardedResolver(AbstractResolver):
    """The second net: every answer of the resolver must be allowed, or none is used.

    Lookups have threads of their own, and those of one name share one: a single seller's
    dead name server holds up nobody else.

    Args:
        guard: Says which addresses are allowed.
    """

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(_THREADS, "names")
        self._pending: dict[tuple[str, int, int], asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: Its name leads nowhere.
            ImageBlockedError: An address is not allowed.
        """
        key = (host, port, int(family))
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._look_up(host, port, family))
            self._pending[key] = task
            task.add_done_callback(partial(self._forget, key))
        # Whoever gives up leaves the lookup to those who still wait.
        found = await asyncio.shield(task)
        self._guard.resolved(host, (entry["host"] for entry in found))
        return found

    async def close(self) -> None:
        """Let go of the threads."""
        for task in self._pending.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, key: tuple[str, int, int], task: asyncio.Task[Any]) -> None:
        del self._pending[key]
        if not task.cancelled():
            # All who asked may have given up: an error is then nobody's.
            task.exception()

    async def _look_up(
        self, host: str, port: int, family: socket.AddressFamily
    ) -> list[ResolveResult]:
        infos = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            partial(
                socket.getaddrinfo,
                host,
                port,
                family=family,
                type=socket.SOCK_STREAM,
                flags=socket.AI_ADDRCONFIG,
            ),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, address in infos
        ]


class Canary:
    """A name of the operator's that resolves whenever the resolver works.

    Args:
        name: Host name; None says that the resolver always works.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        # Apart from the sellers' lookups, which may take all threads there are.
        self._thread = ThreadPoolExecutor(1, "canary")
        self._pending: asyncio.Task[bool] | None = None

    async def sings(self) -> bool:
        """Whether the name resolves, within 5 s."""
        if self._name is None:
            return True
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._look_up(self._name))
        try:
            return await asyncio.wait_for(asyncio.shield(self._pending), _CANARY_S)
        except TimeoutError:
            return False

    async def _look_up(self, name: str) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, socket.getaddrinfo, name, None)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the thread."""
        if self._pending is not None:
            self._pending.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
