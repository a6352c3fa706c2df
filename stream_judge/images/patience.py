"""Waits for the operator's own parts: a picture store, the resolver, the machine, decoders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import structlog
from yarl import URL

from stream_judge.errors import EnvironmentProblem, ResolverOutError, StoreOutError
from stream_judge.images.probe import origin_of
from stream_judge.outage import Circuit, Failures, Outages, Telling, Tells

_log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class Patience:
    """Repeats attempts for as long as what fails is the operator's.

    Args:
        outages: Told what is out.
        first_s: First wait, seconds.
        last_s: Longest wait, seconds.
        alone_s: A picture of an own store that fails for so long, while the store answers for
            others, is at fault itself.
    """

    def __init__(
        self,
        outages: Outages | None = None,
        *,
        first_s: float = 0.2,
        last_s: float = 10.0,
        alone_s: float = 60.0,
    ) -> None:
        self._outages = outages or Outages()
        self._first_s = first_s
        self._last_s = last_s
        self._alone_s = alone_s
        self._machine = self._circuit("machine", _is_machine, _unless_elsewhere)
        self._resolver = self._circuit("resolver", _is_resolver, _unless_elsewhere)
        self._decoder = self._circuit("decoder", _is_machine)
        # By origin: another port is another server. Those that were out, so that no seller can
        # have one made: it is of an own store, or it gave a picture.
        self._stores: dict[str, Circuit] = {}

    async def call(
        self,
        url: URL,
        attempt: Callable[[], Awaitable[bytes]],
        answers_else: Callable[[], Awaitable[bool]],
        tells: Callable[[str, Exception | None], Tells],
    ) -> bytes:
        """The bytes behind a URL.

        Args:
            url: As in the event.
            attempt: At its picture.
            answers_else: Whether the own store that the last attempt failed at answers for
                something else. There may be nobody else to tell: while one record waits, the
                window fills behind it.
            tells: What the last attempt tells of an origin of the store, by the error that it
                ended with. It may have ended before it came there.

        Raises:
            ImageError: The seller's own fault, or that of one picture in an own store.
        """
        call = partial(self._resolver.call, partial(self._machine.call, attempt))
        origin, failed = origin_of(url), None
        # Of every origin that was met: redirects may lead to one and another by turns.
        met: dict[str, Failures] = {}
        with ExitStack() as stack:
            while True:
                try:
                    if failed is None and origin not in self._stores:
                        return await call()
                    store = self._store(origin)
                    if origin not in met:
                        met[origin] = stack.enter_context(store.caller(partial(tells, origin)))
                    return await store.repeat(met[origin], call, answers_else, failed=failed)
                except StoreOutError as exc:
                    # The store's own circuit lets it out only if this picture fails alone.
                    if exc.origin == origin and origin in met:
                        raise
                    # A redirect may have led there: it is that origin that is waited for.
                    origin, failed = exc.origin, exc

    async def started(self, start: Callable[[], Awaitable[Result]]) -> Result:
        """A decoder that has started, for as long as the machine lets none start."""
        return await self._decoder.call(start)

    def _store(self, origin: str) -> Circuit:
        if origin not in self._stores:
            self._stores[origin] = self._circuit(
                "object_store", partial(_is_store, origin), part=origin, alone_s=self._alone_s
            )
        return self._stores[origin]

    def _circuit(
        self,
        name: str,
        is_outage: Callable[[Exception], bool],
        tells: Telling = lambda end: Tells.ANSWERS,
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
            tells=tells,
            alone_s=alone_s,
            on_retry=report,
        )


def _is_resolver(exc: Exception) -> bool:
    return isinstance(exc, ResolverOutError)


def _is_machine(exc: Exception) -> bool:
    return isinstance(exc, EnvironmentProblem)


def _unless_elsewhere(end: Exception | None) -> Tells:
    # An outage of another part may come before this one is reached.
    elsewhere = isinstance(end, (ResolverOutError, StoreOutError))
    return Tells.NOTHING if elsewhere else Tells.ANSWERS


def _is_store(origin: str, exc: Exception) -> bool:
    return isinstance(exc, StoreOutError) and exc.origin == origin
