"""Names of sellers' hosts, and how to tell their outage from the operator's."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from stream_judge.images.guard import AddressGuard
from stream_judge.images.lookup import Lookup
from stream_judge.images.turns import Slots, aside

# A name server that answers nothing holds a thread for as long as the system waits (10 s and
# more), whatever deadline its caller has.
_THREADS = 32
# Names cost a seller nothing: one domain can have any number of dead ones.
_THREADS_OF_DOMAIN = 8
# Under these, in a country's domain, names are sold: the label before is the seller's.
_SOLD = frozenset(("ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"))
_CANARY_S = 5.0

_Key = tuple[str, int, int]


class _Lookup:
    """One lookup, and how many wait for it.

    Attributes:
        begun: Set once a thread is at it, or it has ended without.
        task: Gives its answer.
        waiting: Callers.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.task: asyncio.Task[list[ResolveResult]]
        self.waiting = 0


class GuardedResolver(AbstractResolver):
    """The second net: every answer of the resolver must be allowed, or none is used.

    Lookups have threads of their own. Those of one name share one, and those of one domain
    have a quarter of the threads at most: the dead name server of one seller leaves threads to
    the others. Dead names under four domains and more can take all threads; others then wait
    for one. That takes no time of their attempts (see `Turn`), and no slot from those who need
    no lookup.

    Args:
        guard: Says which addresses are allowed.
        look_up: Knows the addresses; called in the threads.
    """

    def __init__(self, guard: AddressGuard, look_up: Lookup) -> None:
        self._guard = guard
        self._find = look_up
        self._threads = ThreadPoolExecutor(_THREADS, "names")
        self._slots = Slots(_THREADS, _THREADS_OF_DOMAIN)
        self._pending: dict[_Key, _Lookup] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: Its name leads nowhere.
            ImageBlockedError: An address is not allowed.
        """
        key = (host, port, int(family))
        lookup = self._pending.get(key) or self._begin(key)
        lookup.waiting += 1
        try:
            found = await self._answer(lookup)
        finally:
            lookup.waiting -= 1
            self._drop_unwanted(key, lookup)
        self._guard.resolved(host, (entry["host"] for entry in found))
        return found

    async def close(self) -> None:
        """Let go of the threads."""
        tasks = [lookup.task for lookup in self._pending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, key: _Key) -> _Lookup:
        lookup = self._pending[key] = _Lookup()
        lookup.task = asyncio.create_task(self._look_up(key, lookup.begun))
        lookup.task.add_done_callback(partial(self._end, key, lookup))
        return lookup

    @staticmethod
    async def _answer(lookup: _Lookup) -> list[ResolveResult]:
        if not lookup.begun.is_set():
            async with aside():
                await lookup.begun.wait()
        # Whoever gives up leaves the lookup to those who still wait.
        return await asyncio.shield(lookup.task)

    def _drop_unwanted(self, key: _Key, lookup: _Lookup) -> None:
        if not lookup.waiting and not lookup.begun.is_set():
            # It would only keep others from a thread.
            lookup.task.cancel()
            self._forget(key, lookup)

    def _end(self, key: _Key, lookup: _Lookup, task: asyncio.Task[Any]) -> None:
        lookup.begun.set()
        self._forget(key, lookup)
        if not task.cancelled():
            # All who asked may have given up: an error is then nobody's.
            task.exception()

    def _forget(self, key: _Key, lookup: _Lookup) -> None:
        if self._pending.get(key) is lookup:
            del self._pending[key]

    async def _look_up(self, key: _Key, begun: asyncio.Event) -> list[ResolveResult]:
        host, port, family = key
        async with self._slots.one(domain_of(host)):
            begun.set()
            addresses = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._find, host, family
            )
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=found,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, address in addresses
        ]


def domain_of(host: str) -> str:
    """Whose name it is: the last two labels, or three where two are a registry's."""
    labels = host.lower().rstrip(".").split(".")
    sold = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SOLD
    return ".".join(labels[-3:] if sold else labels[-2:])


class Canary:
    """A name of the operator's that resolves whenever the resolver works.

    Args:
        name: Host name; None says that the resolver always works.
        look_up: What sellers' names are looked up with.
    """

    def __init__(self, name: str | None, look_up: Lookup) -> None:
        self._name = name
        self._find = look_up
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
            await loop.run_in_executor(self._thread, self._find, name, socket.AF_UNSPEC)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the thread."""
        if self._pending is not None:
            self._pending.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
