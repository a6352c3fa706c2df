"""Fetching a picture from wherever a seller's URL points."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from stream_judge.errors import (
    BrokenInvariantError,
    EnvironmentProblem,
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
    StreamJudgeError,
)
from stream_judge.freeze import FreezeTicker
from stream_judge.images.guard import AddressGuard, host_of
from stream_judge.images.line import Place
from stream_judge.images.lookup import make_lookup
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.probe import StoreProbe, origin_of, tells
from stream_judge.images.resolver import Canary, GuardedResolver
from stream_judge.images.turns import Slots, Turn

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 64 * 1024
# About what the last of 500 pictures of one host waits, eight at a time and a second each.
# Much longer, and a host that answers nothing would hold its records until they count as stuck.
_SPARE_S = 60.0
# What a machine says that has no more files, or memory, for a connection: of any host.
_MACHINE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "stream_judge"}


class _OnceConnector(aiohttp.TCPConnector):
    """Connections for one request each, cut off behind it.

    Kept alive they would be as many as a seller has names, and a host that never ends its TLS
    would hold one for half a minute.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            connection.add_callback(connection.transport.abort)
        return connection


class ImageFetcher:
    """Fetches pictures within bounds.

    Concurrency: any number of callers; downloads are bounded in all and per host, and
    connections never shared between hosts. Only those to the operator's own hosts are kept.
    Who waits for a slot is not late: see `Turn`.

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
        look_up = make_lookup(options.name_servers)
        self._canary = Canary(options.resolver_canary, look_up)
        self._patience = patience or Patience()
        self._freeze = freeze or FreezeTicker()
        self._guard = AddressGuard(
            options.allowed_hosts, options.allowed_networks, options.allowed_ports
        )
        self._resolver = GuardedResolver(self._guard, look_up)
        self._slots = Slots(options.max_connections, options.max_connections_per_host)
        self._probe = StoreProbe(self._ask, options.own_hosts, options.allowed_ports)
        self._own_session: aiohttp.ClientSession | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pools."""
        self._own_session = self._opened(aiohttp.TCPConnector)
        self._session = self._opened(partial(_OnceConnector, force_close=True))

    def _opened(self, connector: Callable[..., aiohttp.TCPConnector]) -> aiohttp.ClientSession:
        options = self._options
        return aiohttp.ClientSession(
            connector=connector(
                # Its own wait for a connection would be charged to the host.
                limit=0,
                limit_per_host=0,
                resolver=self._resolver,
                socket_factory=self._guard.socket_factory(),
                use_dns_cache=False,
            ),
            # A proxy from the environment would resolve names itself, past the guard.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
            max_line_size=8190,
            max_field_size=8190,
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=options.connect_timeout_s,
                sock_read=options.read_timeout_s,
            ),
        )

    async def close(self) -> None:
        """Close all connections, and let go of the lookups."""
        await self._probe.close()
        for session in (self._own_session, self._session):
            if session is not None:
                await session.close()
        # aiohttp closes only a resolver that it has made itself.
        await self._resolver.close()
        self._canary.close()

    async def fetch(self, text: str, place: Place | None = None) -> bytes:
        """The bytes behind a URL; retriable failures are tried again, with backoff.

        Args:
            text: The URL.
            place: In the line of those who are decoded next; None: there is always room.

        Raises:
            ImageError: The subclass says why; after the last attempt also retriable ones.
        """
        hops = [self._guard.parse(text)]
        turn = self._turn(place)
        attempts = 0
        while True:
            started = self._freeze.now()
            try:
                return await self._patience.call(
                    hops[0],
                    partial(self._attempt, hops, turn),
                    lambda: self._probe.answers(hops[-1]),
                    partial(tells, hops),
                )
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

    def _turn(self, place: Place | None = None) -> Turn:
        time_s = self._options.total_timeout_s
        return Turn(self._slots, time_s=time_s, spare_s=_SPARE_S, place=place)

    async def _attempt(self, hops: list[URL], turn: Turn) -> bytes:
        """The bytes behind the first of `hops`; the others are those of this attempt."""
        del hops[1:]
        try:
            async with turn.attempt():
                return await self._follow(hops, turn)
        except TimeoutError as exc:
            late = ImageTimeoutError("the picture did not arrive in time")
            raise await self._blamed(late, hops[-1], turn) from exc
        except (ImageTimeoutError, ImageUnreachableError) as exc:
            raise await self._blamed(exc, hops[-1], turn) from exc.__cause__
        except EnvironmentProblem:
            turn.refund()
            raise

    async def _blamed(self, failure: ImageError, url: URL, turn: Turn) -> ImageError:
        """The failure, or the outage of the operator's that it comes of.

        Whose it was is told by the last redirect, not by the URL in the event.
        """
        if self._probe.owns(url) and not isinstance(failure, ImageAnswerError):
            turn.refund()
            origin = origin_of(url)
            return StoreOutError(f"{origin} is out: {failure.message}", origin=origin)
        # A resolver that hangs shows as a time-out.
        nameless = isinstance(failure, (ImageTimeoutError, NameUnresolvedError))
        if nameless and not await self._canary.sings():
            turn.refund()
            return ResolverOutError("no name resolves, the canary's neither")
        return failure

    async def _follow(self, hops: list[URL], turn: Turn) -> bytes:
        """The bytes behind the first of `hops`; redirects that were followed are added."""
        for _ in range(self._options.max_redirects + 1):
            try:
                found = await self._get(hops[-1], turn)
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                raise _mapped(exc) from exc
            if isinstance(found, bytes):
                self._probe.came(hops[-1])
                return found
            hops.append(self._guard.parse(str(found)))
        raise ImageUrlError(f"more than {self._options.max_redirects} redirects")

    async def _get(self, url: URL, turn: Turn) -> bytes | URL:
        async with self._requested(url, turn) as answer:
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

    @asynccontextmanager
    async def _requested(self, url: URL, turn: Turn) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of an answer; within it, a slot is held, and the body can be read."""
        own = self._probe.owns(url)
        session = self._own_session if own else self._session
        if session is None:
            raise BrokenInvariantError("pictures are fetched before start()")
        async with turn.slot(host_of(url), own=own):
            with self._guard.connecting(url):
                async with session.get(url, allow_redirects=False) as answer:
                    yield answer

    async def _ask(self, url: URL) -> int | None:
        """The status that a URL of an own host is answered with, and some of a body behind it."""
        turn = self._turn()
        try:
            # The probe also asks at origins that no event named.
            self._guard.parse(str(url))
            async with turn.attempt(), self._requested(url, turn) as answer:
                # A store that stalls behind its head does not answer.
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await answer.content.readexactly(_CHUNK)
                return answer.status
        except (ImageError, aiohttp.ClientError, OSError, ValueError):
            return None

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
    raise ImageNotFoundError(f"the host answers {status}", status=status)


def _mapped(exc: Exception) -> StreamJudgeError:
    """Which error of ours an error of aiohttp is."""
    for cause in _causes(exc):
        if isinstance(cause, ImageBlockedError):
            return ImageBlockedError(cause.message)
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRNOS:
            return EnvironmentProblem(f"no connection can be opened: {cause.strerror}")
    if isinstance(exc, (aiohttp.ServerTimeoutError, TimeoutError)):
        return ImageTimeoutError("the picture did not arrive in time")
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return NameUnresolvedError("the host's name leads nowhere")
    if isinstance(exc, aiohttp.InvalidURL):
        return ImageUrlError("not a URL that can be fetched")
    if isinstance(exc, (aiohttp.ClientResponseError, ValueError)):
        return ImageAnswerError(f"the host's answer cannot be read: {type(exc).__name__}")
    return ImageUnreachableError(f"the host cannot be read: {type(exc).__name__}")


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
