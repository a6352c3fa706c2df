"""Fetching a picture from wherever a seller's URL points."""

from __future__ import annotations

import asyncio
from functools import partial

import aiohttp
from yarl import URL

from stream_judge.errors import (
    ImageAnswerError,
    ImageBlockedError,
    ImageError,
    ImageNotFoundError,
    ImageTimeoutError,
    ImageTooLargeError,
    ImageUnreachableError,
    ImageUrlError,
    NameUnresolvedError,
    ResolverOutError,
    StoreOutError,
)
from stream_judge.freeze import FreezeTicker
from stream_judge.images.guard import AddressGuard
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.resolver import Canary, GuardedResolver

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 64 * 1024
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "stream_judge"}


class ImageFetcher:
    """Fetches pictures within bounds.

    Concurrency: any number of callers; connections are bounded in all and per host, and
    never shared between hosts.

    Args:
        options: Bounds.
        patience: Waits while the operator's own parts are out.
        freeze: Tells attempts that ran out of time from those that were frozen.
    """

    def __init__(
        self,
        options: ImageOptions,
        patience: Patience | None = None,
        freeze: FreezeTicker | None = None,
    ) -> None:
        self._options = options
        self._own_hosts = frozenset(host.lower() for host in options.own_hosts)
        self._canary = Canary(options.resolver_canary)
        self._patience = patience or Patience(options.own_hosts)
        self._freeze = freeze or FreezeTicker()
        self._guard = AddressGuard(
            options.allowed_hosts, options.allowed_networks, options.allowed_ports
        )
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        options = self._options
        connector = aiohttp.TCPConnector(
            limit=options.max_connections,
            limit_per_host=options.max_connections_per_host,
            resolver=GuardedResolver(self._guard),
            socket_factory=self._guard.socket_factory(),
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # A proxy from the environment would resolve names itself, past the guard.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
            max_line_size=8190,
            max_field_size=8190,
            timeout=aiohttp.ClientTimeout(
                total=options.total_timeout_s,
                sock_connect=options.connect_timeout_s,
                sock_read=options.read_timeout_s,
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
        self._canary.close()

    async def fetch(self, text: str) -> bytes:
        """The bytes behind a URL; retriable failures are tried again, with backoff.

        Raises:
            ImageError: The subclass says why; after the last attempt also retriable ones.
        """
        url = self._guard.parse(text)
        attempts = 0
        while True:
            started = self._freeze.now()
            try:
                return await self._patience.call(url, partial(self._attempt, url))
            except StoreOutError:
                # It was waited for already, and comes to nobody else: see `Patience`.
                raise
            except ImageError as exc:
                failure = exc
            if isinstance(failure, ImageTimeoutError) and self._freeze.frozen_since(started):
                # Its time ran out while this process stood still: it never had it.
                continue
            attempts += 1
            if not failure.retriable or attempts >= self._options.attempts:
                raise failure
            await asyncio.sleep(self._options.backoff_s * 2 ** (attempts - 1))

    async def _attempt(self, url: URL) -> bytes:
        hops = [url]
        try:
            async with asyncio.timeout(self._options.total_timeout_s):
                return await self._follow(hops)
        except TimeoutError as exc:
            late = ImageTimeoutError("the picture did not arrive in time")
            raise await self._blamed(late, hops[-1]) from exc
        except (ImageTimeoutError, ImageUnreachableError) as exc:
            raise await self._blamed(exc, hops[-1]) from exc.__cause__

    async def _blamed(self, failure: ImageError, url: URL) -> ImageError:
        """The failure, or the outage of the operator's that it comes of.

        Whose host it was is that of the last redirect, not of the URL in the event.
        """
        host = (url.raw_host or "").lower()
        if host in self._own_hosts and not isinstance(failure, ImageAnswerError):
            return StoreOutError(f"{host} is out: {failure.message}", host=host)
        # A resolver that hangs shows as a time-out.
        nameless = isinstance(failure, (ImageTimeoutError, NameUnresolvedError))
        if nameless and not await self._canary.sings():
            return ResolverOutError("no name resolves, the canary's neither")
        return failure

    async def _follow(self, hops: list[URL]) -> bytes:
        """The bytes behind the first of `hops`; redirects that were followed are added."""
        for _ in range(self._options.max_redirects + 1):
            try:
                found = await self._get(hops[-1])
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                raise _mapped(exc) from exc
            if isinstance(found, bytes):
                return found
            hops.append(self._guard.parse(str(found)))
        raise ImageUrlError(f"more than {self._options.max_redirects} redirects")

    async def _get(self, url: URL) -> bytes | URL:
        with self._guard.connecting(url):
            return await self._exchange(url)

    async def _exchange(self, url: URL) -> bytes | URL:
        assert self._session is not None, "start() first"
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status in _REDIRECTS:
                location = answer.headers.get("Location")
                if not location:
                    raise ImageAnswerError("a redirect without a location")
                return url.join(URL(location))
            _check_status(answer.status)
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise ImageAnswerError("the host compresses the answer unasked")
            limit = self._options.max_bytes
            if (answer.content_length or 0) > limit:
                raise ImageTooLargeError(f"{answer.content_length} bytes, limit {limit}")
            return await self._read(answer, limit)

    @staticmethod
    async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
        data = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise ImageTooLargeError(f"more than {limit} bytes")
            # A fast host must not keep the loop from its timers.
            await asyncio.sleep(0)
        return bytes(data)


def _check_status(status: int) -> None:
    if status == 200:
        return
    if status in (408, 425, 429) or status >= 500:
        raise ImageUnreachableError(f"the host answers {status}")
    raise ImageNotFoundError(f"the host answers {status}")


def _mapped(exc: Exception) -> ImageError:
    """Which error of ours an error of aiohttp is."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ImageBlockedError):
            return ImageBlockedError(cause.message)
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, (aiohttp.ServerTimeoutError, TimeoutError)):
        return ImageTimeoutError("the picture did not arrive in time")
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return NameUnresolvedError("the host's name leads nowhere")
    if isinstance(exc, aiohttp.InvalidURL):
        return ImageUrlError("not a URL that can be fetched")
    if isinstance(exc, (aiohttp.ClientResponseError, ValueError)):
        return ImageAnswerError(f"the host's answer cannot be read: {type(exc).__name__}")
    return ImageUnreachableError(f"the host cannot be read: {type(exc).__name__}")
