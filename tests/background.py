"""An event loop that goes on while no test runs: for servers of a whole session.

A child process's output is read by a task of its loop. A loop that stands still between two
tests would let the pipe fill up, and the server with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class BackgroundLoop:
    """A loop in a thread of its own, until the `with` block ends."""

    def __enter__(self) -> BackgroundLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background")
        # A session that is broken off must not wait for it.
        self._thread.daemon = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Answer], seconds: float = 180.0) -> Answer:
        """What a coroutine gives back, run on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)
