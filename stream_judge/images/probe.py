"""Tells one picture of the operator's store that fails from a store that is out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from yarl import URL

from stream_judge.images.guard import host_of

# Beside the picture that fails: a store has to look for it, as for the picture.
_NOWHERE = URL("stream_judge_probe")
# What a store says that has looked. A refusal (401, 403) and a redirect can come from something
# in front of a store that is out: an old signature is refused before anything is looked for.
_HAS_LOOKED = frozenset({200, 404, 410})


class StoreProbe:
    """Asks hosts of the operator's store for something else than the picture that fails.

    That is the picture that a host gave last, or, as long as it gave none or where that is the
    one that fails, a name that it does not have. Concurrency: any number of callers; one
    request at a time for each thing that is asked for.

    Args:
        ask: The status that a URL is answered with; None if it is not.
    """

    def __init__(self, ask: Callable[[URL], Awaitable[int | None]]) -> None:
        self._ask = ask
        self._last: dict[str, URL] = {}
        self._asking: dict[URL, asyncio.Task[bool]] = {}

    def came(self, url: URL) -> None:
        """Remember a picture that a host of the store gave."""
        self._last[host_of(url)] = url

    async def answers(self, failing: URL) -> bool:
        """Whether the host of a picture that fails answers something else."""
        url = self._something_else(failing)
        task = self._asking.get(url)
        if task is None:
            task = self._asking[url] = asyncio.create_task(self._has_looked(url))
            task.add_done_callback(partial(self._forget, url))
        # Whoever gives up leaves the answer to those who still wait.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _something_else(self, failing: URL) -> URL:
        last = self._last.get(host_of(failing))
        # Another port is another server.
        if last is None or last == failing or last.origin() != failing.origin():
            return failing.join(_NOWHERE)
        return last

    async def _has_looked(self, url: URL) -> bool:
        return await self._ask(url) in _HAS_LOOKED

    def _forget(self, url: URL, task: asyncio.Task[Any]) -> None:
        del self._asking[url]
