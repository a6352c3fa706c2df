"""Whose turn it is: bounded slots, and the time of those who have to wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from stream_judge.errors import BrokenInvariantError
from stream_judge.images.line import Place

# Of the attempt that the running task makes: what aiohttp calls on its behalf finds it here.
_TURN: ContextVar[Turn | None] = ContextVar("stream_judge_image_turn", default=None)


@dataclass(slots=True)
class _Line:
    """Who has, or waits for, a slot of one key."""

    slots: asyncio.Semaphore
    people: int = 0


class Slots:
    """Slots, bounded in all and for each key; whoever waits gets one in order.

    A key that nobody uses any more is forgotten, so memory is bounded by the callers there are.

    Args:
        in_all: Slots there are.
        each: Those that one key can have.
    """

    def __init__(self, in_all: int, each: int) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._each = each
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Within it, a slot is held. The key's own comes first: a long line holds no other's."""
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(self._each)))
        line.people += 1
        try:
            async with line.slots, self._all:
                yield
        finally:
            line.people -= 1
            if not line.people:
                del self._lines[key]


class Turn:
    """What the attempts at one picture have: time, and a slot while they need it.

    An attempt's time is the host's to lose, so waiting for a slot takes none of it. At sellers'
    hosts that holds for `spare_s`, all attempts together: a host that answers nothing and has
    more pictures than slots could otherwise hold a record for as long as it likes.

    Args:
        slots: Of downloads, by host.
        time_s: For one attempt, seconds.
        spare_s: Waiting at sellers' hosts that takes no time of any attempt, seconds.
        place: Says when there is room for another picture; a wait for that takes no time of
            anybody's, and no slot. Room comes of decoding alone, which needs no slot, so nobody
            waits in a circle. None: always.
    """

    def __init__(
        self, slots: Slots, *, time_s: float, spare_s: float, place: Place | None = None
    ) -> None:
        self._slots = slots
        self._place = place
        self._time_s = time_s
        self._spare_s = spare_s
        self._left_s = spare_s
        self._timeout: asyncio.Timeout | None = None
        self._held = AsyncExitStack()
        self._host = ""
        self._own = False

    def refund(self) -> None:
        """Forget what was waited: an outage was met, and no host is to pay for it."""
        self._left_s = self._spare_s

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Within it, the time of one attempt runs; raises TimeoutError when it is over."""
        async with asyncio.timeout(self._time_s) as self._timeout:
            yield

    @asynccontextmanager
    async def slot(self, host: str, *, own: bool) -> AsyncIterator[None]:
        """Within it, a slot for a download from a host, the operator's own or not, is held."""
        self._host, self._own = host, own
        async with AsyncExitStack() as self._held:
            await self._enter()
            token = _TURN.set(self)
            try:
                yield
            finally:
                _TURN.reset(token)

    async def _enter(self) -> None:
        while True:
            with self._waiting(free=self._own):
                await self._held.enter_async_context(self._slots.one(self._host))
            # Asked with the slot in hand, so that only so many begin as there are slots.
            if self._place is None or self._place.has_room():
                return
            await self._held.aclose()
            with self._waiting(free=True):
                await self._place.room()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Within it, others have the slot; it, and room, are waited for again at the end."""
        with self._waiting(free=self._own):
            await self._held.aclose()
            yield
        # What others downloaded meanwhile may have taken the room there was.
        await self._enter()

    @contextmanager
    def _waiting(self, *, free: bool) -> Iterator[None]:
        timeout, clock = self._timeout, asyncio.get_running_loop().time
        if timeout is None or (due := timeout.when()) is None:
            raise BrokenInvariantError("a download waits outside attempt()")
        began = clock()
        timeout.reschedule(None if free else due + self._left_s)
        try:
            yield
        finally:
            waited = clock() - began
            if not free:
                waited = min(waited, self._left_s)
                self._left_s -= waited
            if not timeout.expired():
                timeout.reschedule(due + waited)


@asynccontextmanager
async def aside() -> AsyncIterator[None]:
    """Within it, the running attempt, if it is one, waits for something that is not its host."""
    turn = _TURN.get()
    if turn is None:
        yield
        return
    async with turn.aside():
        yield
