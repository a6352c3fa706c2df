"""Finds a worker that makes no progress while it has work, and ends it.

Time is counted in ticks, not on a clock: a process that was frozen has not ticked, and is
not stuck. An outage that is known and waited for is not a stall, however long it lasts.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable

import structlog

from stream_judge import exits
from stream_judge.errors import StalledError

_log = structlog.get_logger(__name__)
_TICK_S = 1.0
_LAST_WORDS_S = 5.0


class Watchdog:
    """Counts ticks without progress; logs once at half of the limit.

    Two of them watch: a task in the event loop looks at the work, and a thread looks at
    whether the task still ticks, which it does not when something blocks the loop.

    Args:
        limit_s: How long there may be no progress, seconds.
        progress: Anything that changes as long as no record is stuck.
        busy: Whether there is work: records in flight, or lag.
        outage: Whether something of the operator's is known to be out.
        on_stall: Told once, with the error.
        stuck: The place of the oldest record in flight; None without one.
        die: Ends the process, when the loop is stuck and cannot be told.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        progress: Callable[[], object],
        busy: Callable[[], bool],
        outage: Callable[[], bool],
        on_stall: Callable[[StalledError], None],
        stuck: Callable[[], str | None] = lambda: None,
        die: Callable[[int], None] = os._exit,
    ) -> None:
        self._limit_s = limit_s
        self._progress = progress
        self._busy = busy
        self._outage = outage
        self._on_stall = on_stall
        self._stuck = stuck
        self._die = die
        self._seen = progress()
        self._stalled_s = 0.0
        self._place: str | None = None
        self._beats = 0
        self._beats_seen = 0
        self._stuck_s = 0.0
        self._stopped = threading.Event()

    @property
    def stalled(self) -> str | None:
        """What is stuck, and for how many seconds; None until half of the limit is over."""
        if self._stalled_s < self._limit_s / 2:
            return None
        return f"{self._place or 'nothing read'} for {self._stalled_s:.0f} s"

    async def run(self) -> None:
        """Watch until cancelled, or until there is a stall."""
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                if self.tick(_TICK_S):
                    return
        finally:
            self._stopped.set()

    def tick(self, seconds: float) -> bool:
        """Look at the work after so many seconds; True if it has stalled."""
        self._beats += 1
        now = self._progress()
        if now != self._seen or not self._busy() or self._outage():
            self._seen, self._stalled_s = now, 0.0
            return False
        was_stalled = self.stalled
        self._stalled_s += seconds
        self._place = self._stuck()
        if self.stalled and not was_stalled:
            self._warn()
        if self._stalled_s < self._limit_s:
            return False
        self._on_stall(StalledError(self._problem()))
        return True

    def _warn(self) -> None:
        if self._place is None:
            _log.warning("source_stuck", seconds=self._stalled_s)
        else:
            _log.warning("record_stuck", place=self._place, seconds=self._stalled_s)

    def _problem(self) -> str:
        place, limit = self._place, f"for {self._limit_s:.0f} s although no outage is known"
        if place is None:
            return f"nothing of what the source has was read {limit}; restart"
        return f"{place} had no outcome {limit}; restart, and see `stream-judge explain {place}`"

    def tick_thread(self, seconds: float) -> None:
        """Look at the event loop after so many seconds."""
        if self._beats != self._beats_seen:
            self._beats_seen, self._stuck_s = self._beats, 0.0
            return
        self._stuck_s += seconds
        if self._stuck_s >= self._limit_s:
            self._end()

    def _end(self) -> None:
        # It may be the reader of the log that holds the loop up, and it would this line, too.
        certain = threading.Timer(_LAST_WORDS_S, self._die, (exits.STALLED,))
        certain.daemon = True
        certain.start()
        _log.critical("event_loop_stuck", seconds=self._stuck_s, stack=_main_stack())
        self._die(exits.STALLED)
        certain.cancel()

    def _watch_loop(self) -> None:
        while not self._stopped.wait(_TICK_S):
            self.tick_thread(_TICK_S)


def _main_stack() -> str:
    """Where the main thread is, which runs the event loop."""
    ident = threading.main_thread().ident
    frame = sys._current_frames().get(ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else ""
