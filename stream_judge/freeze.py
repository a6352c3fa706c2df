"""Notices that the process was frozen: stopped, or on a machine that was suspended.

While it stood still, deadlines ran out that nobody could have met. What timed out then says
nothing about the other side, and is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)
_TICK_S = 0.5
#: A gap in the event loop from here on is a freeze, seconds.
GAP_S = 2.0


def _boot_clock() -> float:
    # Goes on while a machine is suspended, where there is such a clock.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class FreezeTicker:
    """Ticks in the event loop, and remembers when a tick came late.

    While `run` does not run nothing ticks, and nothing is called a freeze.

    Args:
        clock: Seconds, never set back.
    """

    def __init__(self, clock: Callable[[], float] = _boot_clock) -> None:
        self._clock = clock
        self._last = clock()
        self._thawed = float("-inf")
        self._running = False

    def now(self) -> float:
        """The ticker's clock, for `frozen_since`."""
        return self._clock()

    def frozen_since(self, moment: float) -> bool:
        """Whether the process stood still at some time after a moment of its clock."""
        # Right after a freeze the deadlines may be noticed before the tick is.
        if self._running:
            self.tick()
        return self._thawed > moment

    def tick(self) -> None:
        """Note that the loop is alive."""
        now = self._clock()
        gap = now - self._last
        self._last = now
        if gap > GAP_S:
            self._thawed = now
            _log.warning("process_was_frozen", seconds=round(gap, 1))

    async def run(self) -> None:
        """Tick until cancelled."""
        self.start()
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                self.tick()
        finally:
            self._running = False

    def start(self) -> None:
        """From now on ticks are due."""
        # What lies between making and running it is no freeze.
        self._last = self._clock()
        self._running = True
