"""Tells one picture of the operator's store that fails from a store that is out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from yarl import URL

from stream_judge.errors import ImageAnswerError, ImageNotFoundError, ImageTooLargeError
from stream_judge.images.guard import host_of
from stream_judge.outage import Tells

# Beside the picture that fails: a store has to look for it, as for the picture.
_NOWHERE = URL("stream_judge_probe")
# What a store says that has looked. A refusal (401, 403) and a redirect can come from something
# in front of a store that is out: an old signature is refused before anything is looked for.
_HAS_LOOKED = frozenset({200, 404, 410})
# Where a host's store is by itself; any other port is one that the operator has named.
_DEFAULTS = (("http", 80), ("https", 443))


class StoreProbe:
    """Knows which URLs are the operator's store's, and asks it for something else than one.

    An origin (scheme, host, port) of an own host is the store's if its port is the default one
    or allowed to all URLs, or if it gave a picture since the start. Any other a seller may have
    made up: no store was ever seen there, and what fails there says nothing of one.

    What is asked for is the picture that an origin gave last, or, where that is the one that
    fails, a name that it does not have. For an origin that gave none yet, which may be the
    wrong scheme, the others of its host answer, too. Concurrency: any number of callers; one
    request at a time for each thing that is asked for.

    Args:
        ask: The status that a URL is answered with; None if it is not.
        hosts: Hosts of the store.
        ports: Ports that all URLs may name.
    """

    def __init__(
        self,
        ask: Callable[[URL], Awaitable[int | None]],
        hosts: Collection[str],
        ports: Collection[int],
    ) -> None:
        self._ask = ask
        self._hosts = frozenset(map(str.lower, hosts))
        named = sorted(set(ports) - {port for _, port in _DEFAULTS})
        self._meant = (*_DEFAULTS, *((way, port) for port in named for way in ("http", "https")))
        self._last: dict[str, URL] = {}
        self._asking: dict[URL, asyncio.Task[bool]] = {}

    def owns(self, url: URL) -> bool:
        """Whether what a URL leads to is the operator's, so that its outage is waited for."""
        meant = (url.scheme, url.port) in self._meant or origin_of(url) in self._last
        return meant and host_of(url) in self._hosts

    def came(self, url: URL) -> None:
        """Remember a picture, if a host of the store gave it."""
        if host_of(url) in self._hosts:
            self._last[origin_of(url)] = url

    async def answers(self, failing: URL) -> bool:
        """Whether the store of a picture that fails answers something else."""
        # Whoever gives up leaves the answers to those who still wait.
        asking = [asyncio.shield(self._answer(url)) for url in self._something_else(failing)]
        return any(await asyncio.gather(*asking))

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _something_else(self, failing: URL) -> list[URL]:
        beside, last = failing.join(_NOWHERE), self._last.get(origin_of(failing))
        if last is not None:
            # Another port is another server: that it answers tells nothing of this one.
            return [beside if last == failing else last]
        others = [url for url in self._last.values() if host_of(url) == host_of(failing)]
        if not others:
            # No picture came yet: where the store is, it says so itself, if it is not out.
            others = [beside.with_scheme(way).with_port(port) for way, port in self._meant]
        return list({origin_of(url): url for url in (*others, beside)}.values())

    def _answer(self, url: URL) -> asyncio.Task[bool]:
        task = self._asking.get(url)
        if task is None:
            task = self._asking[url] = asyncio.create_task(self._has_looked(url))
            task.add_done_callback(partial(self._forget, url))
        return task

    async def _has_looked(self, url: URL) -> bool:
        return await self._ask(url) in _HAS_LOOKED

    def _forget(self, url: URL, task: asyncio.Task[Any]) -> None:
        del self._asking[url]


def origin_of(url: URL) -> str:
    """Scheme, host and port of a URL: which server is asked."""
    return f"{url.scheme}://{host_of(url)}:{url.port}"


def tells(hops: Sequence[URL], origin: str, end: Exception | None) -> Tells:
    """What an attempt tells of an origin of the store.

    Args:
        hops: The URLs that it was led to, one by another.
        origin: Of `origin_of`.
        end: What it ended with, None: the picture.
    """
    *passed, last = (origin_of(url) == origin for url in hops)
    if last and (end is None or _shows_a_look(end)):
        return Tells.ANSWERS
    # A redirect, a refusal and what cannot be used may come from in front of a store that is
    # out. They are taken for its return all the same, or after an outage that outlasted many
    # signatures their refusals would pass one by one; what then fails is waited for again.
    if any(passed) or (last and isinstance(end, (ImageNotFoundError, ImageAnswerError))):
        return Tells.REACHED
    return Tells.NOTHING


def _shows_a_look(end: Exception) -> bool:
    if isinstance(end, ImageNotFoundError):
        return end.context.get("status") in _HAS_LOOKED
    return isinstance(end, ImageTooLargeError)
