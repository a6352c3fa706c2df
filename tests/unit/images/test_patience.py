"""The operator's own outages are waited for; the sellers' are not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from stream_judge import freeze
from stream_judge.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTimeoutError,
    ImageUnreachableError,
    ResolverOutError,
    StoreOutError,
)
from stream_judge.freeze import FreezeTicker
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.guard import AddressGuard
from stream_judge.images.lookup import make_lookup
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.probe import origin_of, tells
from stream_judge.images.resolver import GuardedResolver
from stream_judge.outage import Outages, Tells


class Names:
    """Stands for the system's resolver: names of `.test` lead to loopback, or nowhere."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not name.endswith(".test"):
            return self._real(host, *args, **kwargs)
        self.asked.append(name)
        self.gate.wait()
        if name in self.dead:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real("127.0.0.1", *args, **kwargs)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    return found


class Store:
    """A host with one picture, which can be out, or slow."""

    def __init__(self) -> None:
        self.status = 200
        self.broken = ""
        # Of anything but the pictures that there are.
        self.elsewhere = 200
        self.asked = 0
        self.paths: list[str] = []
        self.on_ask: Callable[[], None] = lambda: None
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.paths.append(request.path)
        self.on_ask()
        if request.path == "/stall":
            await asyncio.sleep(3600)
        if request.path.startswith("/to/"):
            raise web.HTTPFound(f"http://{request.path[4:]}:{self.port}/a.png")
        if request.path == "/gzip":
            return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
        status = 500 if request.path == self.broken else self.status
        if status == 200 and not request.path.endswith(".png"):
            status = self.elsewhere
        return web.Response(status=status, body=b"picture")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    found = Store()
    app = web.Application()
    app.router.add_get("/{tail:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


OPTIONS = ImageOptions(
    allowed_hosts=frozenset({"pictures.test", "seller.test"}),
    own_hosts=frozenset({"pictures.test"}),
    resolver_canary="canary.test",
    total_timeout_s=0.2,
    backoff_s=0.001,
    attempts=2,
)


def options_of(store: Store, **more: Any) -> ImageOptions:
    """With the store's port among those that are its own from the start."""
    return OPTIONS.model_copy(update={"allowed_ports": frozenset({store.port}), **more})


def make_patience(outages: Outages) -> Patience:
    return Patience(outages, first_s=0.001, last_s=0.002)


@pytest.fixture
async def outages() -> Outages:
    return Outages()


@pytest.fixture
async def fetcher(store: Store, outages: Outages) -> AsyncIterator[ImageFetcher]:
    found = ImageFetcher(options_of(store), make_patience(outages))
    await found.start()
    yield found
    await found.close()


async def test_an_own_store_that_is_out_is_waited_for(
    names: Names, store: Store, fetcher: ImageFetcher
) -> None:
    store.status = 503

    def each() -> None:
        # Far more than `attempts`.
        store.status = 503 if store.asked < 12 else 200

    store.on_ask = each
    assert await fetcher.fetch(f"http://pictures.test:{store.port}/a.png") == b"picture"
    assert store.asked >= 12


async def test_one_picture_of_an_own_store_that_never_comes_is_waited_for_only_so_long(
    names: Names, store: Store, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(outages, first_s=0.001, last_s=0.002, alone_s=0.1)
    fetcher = ImageFetcher(options_of(store), patience)
    await fetcher.start()
    store.broken = "/broken.png"
    host = f"http://pictures.test:{store.port}"
    called = 0
    wait = patience.call

    async def counted(url: URL, *more: Any) -> bytes:
        nonlocal called
        called += url.path == "/broken.png"
        return await wait(url, *more)

    monkeypatch.setattr(patience, "call", counted)
    broken = asyncio.create_task(fetcher.fetch(f"{host}/broken.png"))
    while not broken.done():
        assert await fetcher.fetch(f"{host}/a.png") == b"picture"
    with pytest.raises(StoreOutError):
        broken.result()
    # Once: the attempts are for sellers' hosts.
    assert called == 1
    assert await fetcher.fetch(f"{host}/a.png") == b"picture"
    assert outages.names == []
    await fetcher.close()


@pytest.fixture
async def impatient(store: Store, outages: Outages) -> AsyncIterator[ImageFetcher]:
    """Waits for a tenth of a second for one picture of an own store that does not come."""
    patience = Patience(outages, first_s=0.001, last_s=0.002, alone_s=0.1)
    found = ImageFetcher(options_of(store), patience)
    await found.start()
    yield found
    await found.close()


async def never(fetching: asyncio.Task[bytes]) -> bool:
    """Whether a picture does not come, and is not given up, for ten times as long."""
    await asyncio.wait({fetching}, timeout=1.0)
    return not fetching.done()


async def cancelled(fetching: asyncio.Task[bytes]) -> None:
    fetching.cancel()
    await asyncio.wait({fetching})


async def test_a_broken_picture_with_nobody_else_about_is_told_by_the_last_that_came(
    names: Names, store: Store, impatient: ImageFetcher, outages: Outages
) -> None:
    host = f"http://pictures.test:{store.port}"
    assert await impatient.fetch(f"{host}/a.png") == b"picture"
    store.broken = "/broken.png"
    # Nothing else is answered well: it is the picture itself that is asked for again.
    store.elsewhere = 503
    with pytest.raises(StoreOutError):
        await asyncio.wait_for(impatient.fetch(f"{host}/broken.png"), 5)
    assert store.paths.count("/a.png") > 5
    assert outages.names == []


@pytest.mark.parametrize("status", [404, 410, 200])
async def test_where_no_picture_came_yet_a_name_that_is_not_there_tells(
    names: Names, store: Store, impatient: ImageFetcher, outages: Outages, status: int
) -> None:
    store.broken, store.elsewhere = "/x/broken.png", status
    url = f"http://pictures.test:{store.port}/x/broken.png"
    with pytest.raises(StoreOutError):
        await asyncio.wait_for(impatient.fetch(url), 5)
    assert "/x/stream_judge_probe" in store.paths
    assert outages.names == []


async def test_a_picture_that_broke_after_it_came_does_not_tell_of_itself(
    names: Names, store: Store, impatient: ImageFetcher
) -> None:
    url = f"http://pictures.test:{store.port}/a.png"
    assert await impatient.fetch(url) == b"picture"
    store.broken, store.elsewhere = "/a.png", 404
    with pytest.raises(StoreOutError):
        await asyncio.wait_for(impatient.fetch(url), 5)


@pytest.mark.parametrize("status", [401, 403, 301, 503])
async def test_a_refusal_in_front_of_a_store_that_is_out_tells_nothing(
    names: Names, store: Store, impatient: ImageFetcher, outages: Outages, status: int
) -> None:
    url = f"http://pictures.test:{store.port}/a.png"
    assert await impatient.fetch(url) == b"picture"
    store.broken, store.elsewhere = "/a.png", status
    fetching = asyncio.create_task(impatient.fetch(url))
    assert await never(fetching)
    assert outages.names == ["object_store"]
    await cancelled(fetching)


async def test_no_picture_is_blamed_for_a_store_that_is_out(
    names: Names, store: Store, impatient: ImageFetcher
) -> None:
    host = f"http://pictures.test:{store.port}"
    assert await impatient.fetch(f"{host}/a.png") == b"picture"
    store.status = 503
    fetching = [asyncio.create_task(impatient.fetch(f"{host}/{i}.png")) for i in range(4)]
    assert all(await asyncio.gather(*map(never, fetching)))
    store.status = 200
    assert await asyncio.gather(*fetching) == [b"picture"] * 4


async def test_a_picture_that_times_out_alone_is_given_up(
    names: Names, store: Store, impatient: ImageFetcher
) -> None:
    host = f"http://pictures.test:{store.port}"
    assert await impatient.fetch(f"{host}/a.png") == b"picture"
    with pytest.raises(StoreOutError, match="in time"):
        await asyncio.wait_for(impatient.fetch(f"{host}/stall"), 10)


def wrong(store: Store) -> list[str]:
    """URLs of the store's host at which there is no store."""
    return [
        "https://pictures.test/a.png",
        "http://pictures.test:1/a.png",
        f"https://pictures.test:{store.port}/a.png",
        f"http://seller.test:{store.port}/to/pictures.test:1",
    ]


async def held(fetcher: ImageFetcher, urls: list[str]) -> list[Any]:
    """What becomes of pictures, within 5 s."""
    fetching = (fetcher.fetch(url) for url in urls)
    return await asyncio.wait_for(asyncio.gather(*fetching, return_exceptions=True), 5)


@pytest.mark.parametrize("ports", [frozenset({80, 443}), frozenset({1})])
async def test_a_url_of_the_store_with_a_wrong_port_or_scheme_holds_no_record(
    names: Names, store: Store, outages: Outages, ports: frozenset[int]
) -> None:
    patience = Patience(outages, first_s=0.001, last_s=0.002, alone_s=0.1)
    fetcher = ImageFetcher(OPTIONS.model_copy(update={"allowed_ports": ports}), patience)
    await fetcher.start()
    assert await fetcher.fetch(f"http://pictures.test:{store.port}/b.png") == b"picture"
    found = await held(fetcher, wrong(store))
    await fetcher.close()
    assert all(isinstance(exc, ImageUnreachableError) for exc in found)
    assert outages.names == []


async def test_nor_does_one_that_comes_before_any_picture(
    names: Names, store: Store, impatient: ImageFetcher, outages: Outages
) -> None:
    found = await held(impatient, wrong(store))
    assert all(isinstance(exc, ImageUnreachableError) for exc in found)
    assert outages.names == []


async def test_a_port_that_nobody_named_is_the_stores_once_a_picture_came_from_it(
    names: Names, store: Store, outages: Outages
) -> None:
    fetcher = ImageFetcher(OPTIONS, make_patience(outages))
    await fetcher.start()
    url = f"http://pictures.test:{store.port}/a.png"
    store.status = 503
    with pytest.raises(ImageUnreachableError, match="503"):
        await asyncio.wait_for(fetcher.fetch(url), 5)
    store.status = 200
    assert await fetcher.fetch(url) == b"picture"
    store.asked = 0
    store.on_ask = lambda: setattr(store, "status", 503 if store.asked < 12 else 200)
    assert await fetcher.fetch(url) == b"picture"
    assert store.asked >= 12
    await fetcher.close()


async def test_a_store_that_is_out_at_the_start_is_waited_for(
    names: Names, store: Store, impatient: ImageFetcher, outages: Outages
) -> None:
    store.status = store.elsewhere = 503
    url = f"http://pictures.test:{store.port}/a.png"
    fetching = asyncio.create_task(impatient.fetch(url))
    assert await never(fetching)
    store.status = 200
    assert await fetching == b"picture"


async def test_a_picture_that_an_own_store_does_not_have_is_gone(
    names: Names, store: Store, fetcher: ImageFetcher
) -> None:
    store.status = 404
    with pytest.raises(ImageNotFoundError):
        await fetcher.fetch(f"http://pictures.test:{store.port}/a.png")
    assert store.asked == 1


async def test_a_sellers_host_gets_its_attempts_and_no_more(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    store.status = 503
    with pytest.raises(ImageUnreachableError):
        await fetcher.fetch(f"http://seller.test:{store.port}/a.png")
    assert store.asked == 2
    assert outages.names == []


async def test_a_sellers_dead_name_is_the_sellers_fault(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    names.dead = {"seller.test"}
    with pytest.raises(ImageUnreachableError, match="name"):
        await fetcher.fetch(f"http://seller.test:{store.port}/a.png")
    assert names.asked.count("seller.test") == 2
    assert "canary.test" in names.asked
    assert outages.names == []


async def test_a_resolver_that_is_out_is_waited_for(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    names.dead = {"seller.test", "canary.test"}
    fetching = asyncio.create_task(fetcher.fetch(f"http://seller.test:{store.port}/a.png"))
    while names.asked.count("seller.test") < 6:
        await asyncio.sleep(0.001)
    assert outages.names == ["resolver"]
    assert not fetching.done()
    names.dead = set()
    assert await fetching == b"picture"
    assert outages.names == []


@pytest.mark.parametrize("host", ["seller.test", "pictures.test"])
async def test_a_machine_without_files_for_a_lookup_is_waited_for(
    names: Names, store: Store, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    changes: list[tuple[str, bool]] = []
    outages = Outages(lambda name, out: changes.append((name, out)))
    fetcher = ImageFetcher(options_of(store), make_patience(outages))
    await fetcher.start()
    real, tries = socket.socket, 0

    def scarce(*args: Any, **kwargs: Any) -> socket.socket:
        nonlocal tries
        if sys._getframe(1).f_code.co_name != "_see_to_the_machine":
            return real(*args, **kwargs)
        tries += 1
        if tries == 6:
            names.dead = set()
        raise OSError(errno.EMFILE, "Too many open files")

    # The system calls every name an unknown one then.
    names.dead = {host}
    monkeypatch.setattr("stream_judge.images.lookup.socket.socket", scarce)
    assert await fetcher.fetch(f"http://{host}:{store.port}/a.png") == b"picture"
    assert tries == 6
    assert changes == [("machine", True), ("machine", False)]
    await fetcher.close()


async def test_one_name_is_looked_up_once_at_a_time(names: Names) -> None:
    guard = AddressGuard(frozenset({"seller.test"}), (), frozenset())
    resolver = GuardedResolver(guard, make_lookup(()))
    names.gate.clear()
    asking = [asyncio.create_task(resolver.resolve("seller.test", 80)) for _ in range(50)]
    while not names.asked:
        await asyncio.sleep(0.001)
    asking[0].cancel()
    names.gate.set()
    results = await asyncio.gather(*asking[1:])
    assert names.asked == ["seller.test"]
    assert {found[0]["host"] for found in results} == {"127.0.0.1"}
    await resolver.close()


class Frozen(FreezeTicker):
    """Says for the first attempts that they were frozen."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def frozen_since(self, moment: float) -> bool:
        self.left -= 1
        return self.left >= 0


async def test_an_attempt_that_was_frozen_does_not_count(names: Names, store: Store) -> None:
    options = OPTIONS.model_copy(update={"total_timeout_s": 0.05})
    fetcher = ImageFetcher(options, make_patience(Outages()), Frozen(3))
    await fetcher.start()
    try:
        with pytest.raises(ImageTimeoutError):
            await fetcher.fetch(f"http://seller.test:{store.port}/stall")
    finally:
        await fetcher.close()
    assert store.asked == 3 + options.attempts


async def test_without_a_ticker_a_slow_host_is_not_taken_for_a_freeze(
    names: Names, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every attempt is then longer than a freeze.
    monkeypatch.setattr(freeze, "GAP_S", 0.01)
    options = OPTIONS.model_copy(update={"total_timeout_s": 0.05})
    fetcher = ImageFetcher(options, make_patience(Outages()))
    await fetcher.start()
    try:
        with pytest.raises(ImageTimeoutError):
            await asyncio.wait_for(fetcher.fetch(f"http://seller.test:{store.port}/stall"), 5)
    finally:
        await fetcher.close()
    assert store.asked == options.attempts


async def test_a_useless_answer_of_an_own_store_is_the_pictures_fault(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    with pytest.raises(ImageUnreachableError):
        await asyncio.wait_for(fetcher.fetch(f"http://pictures.test:{store.port}/gzip"), 5)
    assert outages.names == []


async def test_an_own_store_is_not_blamed_for_where_it_redirects_to(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    names.dead = {"seller.test"}
    url = f"http://pictures.test:{store.port}/to/seller.test"
    with pytest.raises(ImageUnreachableError, match="name"):
        await asyncio.wait_for(fetcher.fetch(url), 5)
    assert outages.names == []


async def test_an_own_store_behind_a_redirect_is_waited_for(
    names: Names, store: Store, fetcher: ImageFetcher, outages: Outages
) -> None:
    names.dead = {"pictures.test"}
    url = f"http://seller.test:{store.port}/to/pictures.test"
    fetching = asyncio.create_task(fetcher.fetch(url))
    async with asyncio.timeout(5):
        while names.asked.count("pictures.test") < 6:
            await asyncio.sleep(0.001)
    assert outages.names == ["object_store"]
    assert not fetching.done()
    names.dead = set()
    assert await fetching == b"picture"
    assert outages.names == []


async def test_an_own_host_is_known_in_any_case(names: Names, store: Store) -> None:
    options = options_of(store, own_hosts=frozenset({"Pictures.TEST"}))
    patience = Patience(Outages(), first_s=0.001, last_s=0.002)
    fetcher = ImageFetcher(options, patience)
    await fetcher.start()

    def each() -> None:
        store.status = 503 if store.asked < 6 else 200

    store.on_ask = each
    try:
        assert await fetcher.fetch(f"http://PICTURES.test:{store.port}/a.png") == b"picture"
    finally:
        await fetcher.close()


def out(host: str) -> StoreOutError:
    return StoreOutError("out", origin=f"http://{host}.test:80")


class ByTurns:
    """An attempt that fails at one of two own hosts and at the other, for so many times."""

    def __init__(self, times: int) -> None:
        self.tried = 0
        self._times = times

    async def __call__(self) -> bytes:
        self.tried += 1
        await asyncio.sleep(0)
        if self.tried > self._times:
            return b"picture"
        raise out("ab"[self.tried % 2])


async def no() -> bool:
    return False


async def yes() -> bool:
    return True


def of(*urls: str) -> Callable[[str, Exception | None], Tells]:
    """Tells of attempts that are led to these URLs."""
    return partial(tells, list(map(URL, urls)))


@pytest.mark.parametrize("url", ["http://seller.test/x", "http://a.test/x", "http://b.test/x"])
async def test_a_redirect_that_leads_to_two_own_hosts_by_turns_waits_for_both(url: str) -> None:
    changes: list[tuple[str, bool]] = []
    outages = Outages(lambda name, out: changes.append((name, out)))
    patience = Patience(outages, first_s=0.001, last_s=0.002)
    waits: list[float] = []
    for host in "ab":
        store = patience._store(f"http://{host}.test:80")
        store._on_retry = lambda exc, wait_s: waits.append(wait_s)
    attempt = ByTurns(12)
    assert await patience.call(URL(url), attempt, no, of(url)) == b"picture"
    assert attempt.tried == 13
    # Each failure was followed by a wait.
    assert len(waits) == 12
    assert changes[0] == ("object_store", True)


SELLER = "http://seller.test/x"


async def test_a_picture_that_fails_at_two_own_hosts_by_turns_is_at_fault_itself() -> None:
    outages = Outages()
    patience = Patience(outages, first_s=0.001, last_s=0.002, alone_s=0.01)
    attempt = ByTurns(10**6)
    with pytest.raises(StoreOutError):
        await asyncio.wait_for(patience.call(URL(SELLER), attempt, yes, of(SELLER)), 5)
    assert attempt.tried >= 5
    assert outages.names == []


async def test_an_own_store_that_fails_does_not_say_that_the_resolver_works() -> None:
    changes: list[tuple[str, bool]] = []
    outages = Outages(lambda name, out: changes.append((name, out)))
    patience = Patience(outages, first_s=0.001, last_s=0.002)
    left = 10

    async def seller() -> bytes:
        if left > 0:
            raise ResolverOutError("no name resolves")
        return b"picture"

    async def store() -> bytes:
        nonlocal left
        left -= 1
        if left > 0:
            raise out("a")
        return b"picture"

    calls = [
        patience.call(URL(SELLER), seller, no, of(SELLER)),
        patience.call(URL("http://a.test/x"), store, no, of("http://a.test/x")),
    ]
    assert await asyncio.gather(*calls) == [b"picture"] * 2
    resolver = [out for name, out in changes if name == "resolver"]
    assert resolver == [True, False]


Attempt = Callable[[list[URL]], Awaitable[bytes]]


async def waits_out(other: Attempt, *, start: str = SELLER) -> tuple[bool, list[bool]]:
    """Whether a picture of a store that is out is waited for while `other` attempts go on.

    Also returns the changes of the outage.
    """
    changes: list[bool] = []
    outages = Outages(lambda name, out: changes.append(out))
    patience = Patience(outages, first_s=0.001, last_s=0.002, alone_s=0.02)

    async def down() -> bytes:
        raise out("a")

    async def others() -> None:
        while True:
            hops = [URL(start)]
            with contextlib.suppress(ImageError):
                await patience.call(URL(start), partial(other, hops), no, partial(tells, hops))
            await asyncio.sleep(0)

    store = "http://a.test/x"
    waiting = asyncio.create_task(patience.call(URL(store), down, no, of(store)))
    going_on = asyncio.create_task(others())
    await asyncio.wait({waiting}, timeout=0.4)
    waits = not waiting.done()
    for task in (waiting, going_on):
        task.cancel()
    await asyncio.gather(waiting, going_on, return_exceptions=True)
    return waits, changes


class OnceLedThere:
    """A seller's host that redirects to the store once, and answers itself from then on."""

    def __init__(self, end: Exception | None) -> None:
        self._end = end
        self._led: set[int] = set()

    async def __call__(self, hops: list[URL]) -> bytes:
        del hops[1:]
        await asyncio.sleep(0)
        if id(hops) not in self._led:
            self._led.add(id(hops))
            hops.append(URL("http://a.test/y"))
            raise out("a")
        if self._end is not None:
            raise self._end
        return b"picture"


@pytest.mark.parametrize("end", [ImageNotFoundError("404", status=404), None])
async def test_what_a_seller_answers_is_no_answer_of_the_store(end: Exception | None) -> None:
    waits, changes = await waits_out(OnceLedThere(end))
    assert waits
    assert changes[0] is True
    assert False not in changes[:-1]


async def test_a_refusal_of_another_picture_blames_none_of_a_store_that_is_out() -> None:
    async def refused(hops: list[URL]) -> bytes:
        raise ImageNotFoundError("the host answers 403", status=403)

    waits, _ = await waits_out(refused, start="http://a.test/private")
    assert waits


async def test_a_picture_of_another_port_blames_none_of_a_store_that_is_out() -> None:
    async def came(hops: list[URL]) -> bytes:
        return b"picture"

    waits, changes = await waits_out(came, start="https://a.test/x")
    assert waits
    assert False not in changes[:-1]


async def test_a_picture_that_the_store_gives_another_shows_that_one_fails_alone() -> None:
    async def came(hops: list[URL]) -> bytes:
        await asyncio.sleep(0)
        return b"picture"

    waits, _ = await waits_out(came, start="http://a.test/x")
    assert not waits


def test_sellers_have_no_circuits_made() -> None:
    patience = Patience()
    asyncio.run(patience.call(URL(SELLER), yes, no, of(SELLER)))  # type: ignore[arg-type]  # any result
    assert origin_of(URL(SELLER)) not in patience._stores
