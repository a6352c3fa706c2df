"""Outages of what the operator owns: known while they last, waited for, never an outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


class Outages:
    """Which dependencies are out now; one for a worker.

    Args:
        on_change: Told the name of a dependency, and whether it is out.
    """

    def __init__(self, on_change: Callable[[str, bool], None] = lambda name, out: None) -> None:
        self._on_change = on_change
        self._out: dict[str, set[str]] = {}

    @property
    def names(self) -> list[str]:
        """What is out, in alphabetical order."""
        return sorted(self._out)

    def begin(self, name: str, part: str = "") -> None:
        """A dependency, or a part of it, does not answer."""
        if name not in self._out:
            self._on_change(name, True)
        self._out.setdefault(name, set()).add(part)

    def end(self, name: str, part: str = "") -> None:
        """It answers; the dependency is out until its last part does."""
        parts = self._out.get(name)
        if parts is None:
            return
        parts.discard(part)
        if not parts:
            del self._out[name]
            self._on_change(name, False)


class Circuit:
    """Repeats attempts at one dependency for as long as it is out.

    Closed, all attempts go through at once. An attempt that meets an outage opens it: then
    one caller at a time tries, after a wait that doubles with every failure; the others wait
    for what it finds. So a server that comes back is met by one request, not by a window of
    them, and no time-out ever becomes an outcome.

    Args:
        name: Of the dependency.
        outages: Told when it opens and closes.
        part: Which part of the dependency, where several have circuits.
        first_s: First wait, seconds.
        last_s: Longest wait, seconds; a dependency that is back is noticed within it.
        is_outage: Whether an error is an outage; any other is the caller's to handle.
        on_retry: Told of every failed attempt, and the wait before the next one.
        sleep: Waits.
    """

    def __init__(
        self,
        name: str,
        outages: Outages,
        *,
        part: str = "",
        first_s: float,
        last_s: float,
        is_outage: Callable[[Exception], bool],
        on_retry: Callable[[Exception, float], None] = lambda exc, wait_s: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name = name
        self._outages = outages
        self._part = part
        self._first_s = first_s
        self._last_s = last_s
        self._is_outage = is_outage
        self._on_retry = on_retry
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._wait_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the dependency is known to be out."""
        return self._wait_s > 0

    async def call(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """The result of an attempt, however long the dependency is out.

        Raises:
            Exception: What the attempt raises that is no outage.
        """
        while True:
            if not self.is_open:
                try:
                    return await attempt()
                except Exception as exc:
                    if not self._is_outage(exc):
                        raise
                    self._fail(exc, probing=False)
            async with self._turn:
                if self.is_open:
                    # Jitter spreads the workers' attempts; it touches no score.
                    await self._sleep(self._wait_s * random.uniform(0.5, 1.0))  # noqa: S311
                    try:
                        result = await attempt()
                    except Exception as exc:
                        if not self._is_outage(exc):
                            # It was reached: whatever is wrong is wrong with this attempt.
                            self._close()
                            raise
                        self._fail(exc, probing=True)
                    else:
                        self._close()
                        return result

    def _fail(self, exc: Exception, *, probing: bool) -> None:
        if not self.is_open:
            self._wait_s = self._first_s
        elif probing:
            self._wait_s = min(2 * self._wait_s, self._last_s)
        self._outages.begin(self._name, self._part)
        self._on_retry(exc, self._wait_s)

    def _close(self) -> None:
        self._wait_s = 0.0
        self._outages.end(self._name, self._part)
