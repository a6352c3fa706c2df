"""Waits for the operator's own parts: a picture store, the resolver, the machine, decoders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import structlog
from yarl import URL

from stream_judge.errors import EnvironmentProblem, ResolverOutError, StoreOutError
from stream_judge.images.guard import host_of
from stream_judge.outage import Circuit, Failures, Outages

_log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class Patience:
    """Repeats attempts for as long as what fails is the operator's.

    Args:
        own_hosts: Hosts of the operator's picture store.
        outages: Told what is out.
        first_s: First wait, seconds.
        last_s: Longest wait, seconds.
        alone_s: A picture of an own host that fails for so long, while its host answers for
            others, is at fault itself.
    """

    def __init__(
        self,
        own_hosts: Collection[str],
        outages: Outages | None = None,
        *,
        first_s: float = 0.2,
        last_s: float = 10.0,
        alone_s: float = 60.0,
    ) -> None:
        self._outages = outages or Outages()
        self._first_s = first_s
        self._last_s = last_s
        self._machine = self._circuit("machine", _is_machine, _is_elsewhere)
        self._resolver = self._circuit("resolver", _is_resolver, _is_elsewhere)
        self._decoder = self._circuit("decoder", _is_machine)
        self._stores = {
            host: self._circuit(
                "object_store",
                partial(_is_store, host),
                _is_elsewhere,
                part=host,
                alone_s=alone_s,
            )
            for host in map(str.lower, own_hosts)
        }

    async def call(
        self,
        url: URL,
        attempt: Callable[[], Awaitable[bytes]],
        answers_else: Callable[[], Awaitable[bool]],
    ) -> bytes:
        """The bytes behind a URL.

        Args:
            url: As in the event.
            attempt: At its picture.
            answers_else: Whether the own host that the last attempt failed at answers for
                something else. There may be nobody else to tell: while one record waits, the
                window fills behind it.

        Raises:
            ImageError: The seller's own fault, or that of one picture in an own store.
        """
        call = partial(self._resolver.call, partial(self._machine.call, attempt))
        host, failed = host_of(url), None
        # Of every host that was met: redirects may lead to one and another by turns.
        met: dict[str, Failures] = {}
        with ExitStack() as stack:
            while True:
                try:
                    if host not in self._stores:
                        return await call()
                    store = self._stores[host]
                    if host not in met:
                        met[host] = stack.enter_context(store.caller())
                    return await store.repeat(met[host], call, answers_else, failed=failed)
                except StoreOutError as exc:
                    # The store's own circuit lets it out only if this picture fails alone.
                    if exc.host == host:
                        raise
                    # A redirect led there: it is that host that is waited for.
                    host, failed = exc.host, exc

    async def started(self, start: Callable[[], Awaitable[Result]]) -> Result:
        """A decoder that has started, for as long as the machine lets none start."""
        return await self._decoder.call(start)

    def _circuit(
        self,
        name: str,
        is_outage: Callable[[Exception], bool],
        says_nothing: Callable[[Exception], bool] = lambda exc: False,
        part: str = "",
        alone_s: float | None = None,
    ) -> Circuit:
        def report(exc: Exception, wait_s: float) -> None:
            _log.warning("pictures_out", dependency=name, message=str(exc), wait_s=wait_s)

        return Circuit(
            name,
            self._outages,
            part=part,
            first_s=self._first_s,
            last_s=self._last_s,
            is_outage=is_outage,
            says_nothing=says_nothing,
            alone_s=alone_s,
            on_retry=report,
        )


def _is_resolver(exc: Exception) -> bool:
    return isinstance(exc, ResolverOutError)


def _is_machine(exc: Exception) -> bool:
    return isinstance(exc, EnvironmentProblem)


def _is_elsewhere(exc: Exception) -> bool:
    # An outage of another part may come before this one is reached.
    return isinstance(exc, (ResolverOutError, StoreOutError))


def _is_store(host: str, exc: Exception) -> bool:
    return isinstance(exc, StoreOutError) and exc.host == host
