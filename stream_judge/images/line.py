"""The line before the decoders: who is next, and how much waits there."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Line:
    """Turns at the decoders, given to the picture that was begun first.

    Not to the one that came first: pictures of a slow host would stand behind all that were
    begun after them, and slow pictures of one seller hold a record until it counts as stuck.

    Args:
        turns: Pictures that are decoded at the same time.
        max_waiting_bytes: Of pictures that are in memory; from there on no download begins.
    """

    def __init__(self, turns: int, max_waiting_bytes: int) -> None:
        self._free = turns
        self._max_bytes = max_waiting_bytes
        self._bytes = 0
        self._numbers = itertools.count()
        # In the order of their numbers, as they come.
        self._begun: dict[int, None] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Within it, a picture is on its way, behind all that are."""
        number = next(self._numbers)
        self._begun[number] = None
        try:
            yield Place(self, number)
        finally:
            del self._begun[number]
            self._changed.set()

    def has_room(self, number: int) -> bool:
        """Whether a place's download may begin; that of the first one always may."""
        return self._bytes < self._max_bytes or number == next(iter(self._begun))

    async def room(self, number: int) -> None:
        """Wait until a place's download may begin."""
        while not self.has_room(number):
            self._changed.clear()
            await self._changed.wait()

    @asynccontextmanager
    async def turn(self, number: int, size: int) -> AsyncIterator[None]:
        """Within it, `size` bytes of a place are decoded; they count from the wait for it on."""
        self._bytes += size
        try:
            await self._take(number)
            try:
                yield
            finally:
                self._give()
        finally:
            self._bytes -= size
            self._changed.set()

    async def _take(self, number: int) -> None:
        if self._free:
            self._free -= 1
            return
        given = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, given))
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():
                # It was given in the same moment, and is another's now.
                self._give()
            raise

    def _give(self) -> None:
        while self._waiting:
            _, given = heapq.heappop(self._waiting)
            if not given.done():
                given.set_result(None)
                return
        self._free += 1


class Place:
    """A picture's place in a line; see there.

    Args:
        line: Which line.
        number: Lower ones were begun before.
    """

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number

    def has_room(self) -> bool:
        """Whether its download may begin."""
        return self._line.has_room(self._number)

    async def room(self) -> None:
        """Wait until its download may begin."""
        await self._line.room(self._number)

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Within it, a decoder is there for its `size` bytes."""
        async with self._line.turn(self._number, size):
            yield
