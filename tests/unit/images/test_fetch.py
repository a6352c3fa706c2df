from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from stream_judge.errors import ImageTimeoutError
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.guard import AddressGuard, AddressInfo
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.outage import Outages

OPTIONS = ImageOptions(
    allowed_hosts=frozenset(f"127.0.0.{i}" for i in range(1, 9)),
    total_timeout_s=0.8,
    attempts=1,
    max_connections=4,
    max_connections_per_host=2,
)


class Host:
    """Takes 0.1 s for a picture, or for ever; counts how many it is at."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.port = 0
        self.peers: set[Any] = set()

    async def answer(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            self.peers.add(request.transport.get_extra_info("peername"))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(3600 if request.path == "/stall" else 0.1)
        finally:
            self.now -= 1
        return web.Response(body=b"picture")

    def url(self, path: str, number: int = 1) -> str:
        return f"http://127.0.0.{number}:{self.port}{path}"


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    found = Host()
    app = web.Application()
    app.router.add_get("/{tail:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


async def fetched(options: ImageOptions, urls: list[str], outages: Outages) -> list[bytes]:
    patience = Patience(outages, first_s=0.001, last_s=0.002)
    fetcher = ImageFetcher(options, patience)
    await fetcher.start()
    try:
        return await asyncio.gather(*map(fetcher.fetch, urls))
    finally:
        await fetcher.close()


@pytest.mark.parametrize("own", [frozenset(), frozenset({"127.0.0.1"})])
async def test_pictures_that_wait_for_a_connection_are_not_late(
    host: Host, own: frozenset[str]
) -> None:
    changes: list[str] = []
    ports = frozenset({host.port})
    options = OPTIONS.model_copy(update={"own_hosts": own, "allowed_ports": ports})
    urls = [host.url(f"/{i}.png") for i in range(20)]
    found = await fetched(options, urls, Outages(lambda name, out: changes.append(name)))
    assert found == [b"picture"] * 20
    assert host.most == 2
    assert changes == []


async def test_downloads_are_bounded_in_all(host: Host) -> None:
    urls = [host.url(f"/{i}.png", number=1 + i % 8) for i in range(24)]
    await fetched(OPTIONS, urls, Outages())
    assert host.most == 4


async def test_a_host_that_answers_nothing_is_late_as_before(host: Host) -> None:
    with pytest.raises(ImageTimeoutError):
        await fetched(OPTIONS, [host.url("/stall")], Outages())


async def test_hosts_that_answer_nothing_keep_no_picture_of_another(host: Host) -> None:
    fetcher = ImageFetcher(OPTIONS)
    await fetcher.start()
    stalled = [asyncio.create_task(fetcher.fetch(host.url("/stall", i))) for i in range(2, 8)]
    await asyncio.sleep(0.1)
    assert await fetcher.fetch(host.url("/a.png")) == b"picture"
    await asyncio.gather(*stalled, return_exceptions=True)
    await fetcher.close()


async def test_closing_lets_go_of_the_resolver(host: Host) -> None:
    fetcher = ImageFetcher(OPTIONS)
    await fetcher.start()
    await fetcher.close()
    assert fetcher._resolver._threads._shutdown


@pytest.mark.parametrize(("own", "connections"), [(False, 3), (True, 1)])
async def test_only_connections_to_own_hosts_are_kept(
    host: Host, own: bool, connections: int
) -> None:
    own_hosts = frozenset({"127.0.0.1"}) if own else frozenset()
    update = {"own_hosts": own_hosts, "allowed_ports": frozenset({host.port})}
    fetcher = ImageFetcher(OPTIONS.model_copy(update=update))
    await fetcher.start()
    try:
        for i in range(3):
            await fetcher.fetch(host.url(f"/{i}.png"))
    finally:
        await fetcher.close()
    assert len(host.peers) == connections


async def test_a_connection_to_a_seller_ends_with_its_request(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    real = AddressGuard.socket_factory

    def factory(guard: AddressGuard) -> Callable[[AddressInfo], socket.socket]:
        make = real(guard)

        def noted(info: AddressInfo) -> socket.socket:
            made.append(make(info))
            return made[-1]

        return noted

    monkeypatch.setattr(AddressGuard, "socket_factory", factory)
    fetcher = ImageFetcher(OPTIONS)
    await fetcher.start()
    try:
        await asyncio.gather(*(fetcher.fetch(host.url("/a.png", i)) for i in range(1, 5)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(made) == 4
        assert [found.fileno() for found in made] == [-1] * 4
    finally:
        await fetcher.close()


@pytest.mark.parametrize("own", [False, True])
async def test_a_machine_that_opens_no_connection_is_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    outages, changes = Outages(lambda name, out: changes.append((name, out))), []
    tries = 0
    real = socket.socket

    def scarce(*args: Any, **kwargs: Any) -> socket.socket:
        nonlocal tries
        if sys._getframe(1).f_code.co_name != "make":
            return real(*args, **kwargs)
        tries += 1
        if tries < 6:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args, **kwargs)

    monkeypatch.setattr("stream_judge.images.guard.socket.socket", scarce)
    own_hosts = frozenset({"127.0.0.1"}) if own else frozenset()
    update = {"own_hosts": own_hosts, "allowed_ports": frozenset({host.port})}
    options = OPTIONS.model_copy(update=update)
    assert await fetched(options, [host.url("/a.png")], outages) == [b"picture"]
    assert tries == 6
    assert changes == [("machine", True), ("machine", False)]
