"""Fetching a picture from wherever a seller's URL points."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from stream_judge.errors import (
    ImageBlockedError,
    ImageError,
    ImageNotFoundError,
    ImageTimeoutError,
    ImageTooLargeError,
    ImageUnreachableError,
    ImageUrlError,
)
from stream_judge.images.guard import AddressGuard
from stream_judge.images.options import ImageOptions

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 64 * 1024
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "stream_judge"}


class _GuardedResolver(AbstractResolver):
    """The second net: every answer of the resolver must be allowed, or none is used."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        self._guard.resolved(host, (entry["host"] for entry in found))
        return found

    async def close(self) -> None:
        await self._inner.close()


class ImageFetcher:
    """Fetches pictures within bounds.

    Concurrency: any number of callers; connections are bounded in all and per host, and
    never shared between hosts.

    Args:
        options: Bounds.
    """

    def __init__(self, options: ImageOptions) -> None:
        self._options = options
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
            resolver=_GuardedResolver(self._guard),
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

    async def fetch(self, text: str) -> bytes:
        """The bytes behind a URL; retriable failures are tried again, with backoff.

        Raises:
            ImageError: The subclass says why; after the last attempt also retriable ones.
        """
        url = self._guard.parse(text)
        for attempt in range(1, self._options.attempts + 1):
            try:
                async with asyncio.timeout(self._options.total_timeout_s):
                    return await self._follow(url)
            except ImageError as exc:
                failure = exc
            except TimeoutError as exc:
                failure = ImageTimeoutError("the picture did not arrive in time")
                failure.__cause__ = exc
            if not failure.retriable or attempt == self._options.attempts:
                raise failure
            await asyncio.sleep(self._options.backoff_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _follow(self, url: URL) -> bytes:
        for _ in range(self._options.max_redirects + 1):
            try:
                found = await self._get(url)
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                raise _mapped(exc) from exc
            if isinstance(found, bytes):
                return found
            url = self._guard.parse(str(found))
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
                    raise ImageUnreachableError("a redirect without a location")
                return url.join(URL(location))
            _check_status(answer.status)
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise ImageUnreachableError("the host compresses the answer unasked")
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
    if isinstance(exc, aiohttp.InvalidURL):
        return ImageUrlError("not a URL that can be fetched")
    return ImageUnreachableError(f"the host cannot be read: {type(exc).__name__}")
