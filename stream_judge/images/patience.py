"""Waits for the operator's own parts: an own picture store, the resolver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog
from yarl import URL

from stream_judge.errors import ResolverOutError, StoreOutError
from stream_judge.outage import Circuit, Outages

_log = structlog.get_logger(__name__)


class Patience:
    """Repeats attempts for as long as what fails is the operator's.

    Args:
        own_hosts: Hosts of the operator's picture store.
        outages: Told what is out.
        first_s: First wait, seconds.
        last_s: Longest wait, seconds.
        alone_s: A picture of an own host that fails for so long, while others of its host
            come, is at fault itself.
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
        self._resolver = self._circuit("resolver", _is_resolver)
        self._stores = {
            host: self._circuit(
                "object_store", partial(_is_store, host), part=host, alone_s=alone_s
            )
            for host in map(str.lower, own_hosts)
        }

    async def call(self, url: URL, attempt: Callable[[], Awaitable[bytes]]) -> bytes:
        """The bytes behind a URL.

        Raises:
            ImageError: The seller's own fault, or that of one picture in an own store.
        """
        store = self._stores.get((url.raw_host or "").lower())
        while True:
            try:
                if store is None:
                    return await self._resolver.call(attempt)
                return await store.call(lambda: self._resolver.call(attempt))
            except StoreOutError as exc:
                # The store's own circuit lets it out only if this picture fails alone.
                if store is self._stores[exc.host]:
                    raise
                # A redirect led there: it is that host that is waited for.
                store = self._stores[exc.host]

    def _circuit(
        self,
        name: str,
        is_outage: Callable[[Exception], bool],
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
            alone_s=alone_s,
            on_retry=report,
        )


def _is_resolver(exc: Exception) -> bool:
    return isinstance(exc, ResolverOutError)


def _is_store(host: str, exc: Exception) -> bool:
    return isinstance(exc, StoreOutError) and exc.host == host
