"""Name servers that are set, asked over UDP on loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from stream_judge.errors import (
    ImageBlockedError,
    NameUnresolvedError,
)
from stream_judge.images import lookup as module
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.lookup import Lookup, make_lookup
from stream_judge.images.options import ImageOptions
from tests.name_server import NameServer

V4, V6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with NameServer("shop.test.", ["127.0.0.1", "::1"]).running() as found:
        yield found


def asking(*servers: NameServer) -> Lookup:
    options = ImageOptions.model_validate(
        {"name_servers": [f"127.0.0.1:{server.port}" for server in servers]}
    )
    return make_lookup(options.name_servers)


async def look_up(lookup: Lookup, name: str, family: int = 0) -> list[tuple[int, str]]:
    return await asyncio.to_thread(lookup, name, family)


@pytest.mark.parametrize(
    ("family", "found"), [(0, [V4, V6]), (socket.AF_INET, [V4]), (socket.AF_INET6, [V6])]
)
async def test_a_name_has_addresses_of_the_family(
    server: NameServer, family: int, found: list[tuple[int, str]]
) -> None:
    assert sorted(await look_up(asking(server), "img.shop.test", family)) == found
    assert set(server.asked) == {"img.shop.test."}


async def test_a_name_of_one_family_has_that_alone() -> None:
    async with NameServer("shop.test.", ["127.0.0.1"]).running() as server:
        assert await look_up(asking(server), "img.shop.test") == [V4]


async def test_a_name_of_the_hosts_file_is_asked_for_like_any(server: NameServer) -> None:
    with pytest.raises(socket.gaierror) as caught:
        await look_up(asking(server), "localhost")
    assert caught.value.errno == socket.EAI_NONAME
    assert "localhost." in server.asked


async def test_a_name_without_addresses_leads_nowhere() -> None:
    async with NameServer("shop.test.", []).running() as server:
        with pytest.raises(socket.gaierror) as caught:
            await look_up(asking(server), "img.shop.test")
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("name", ["x" * 64 + ".shop.test", "a..shop.test", ".".join(["abc"] * 70)])
async def test_what_cannot_be_a_name_leads_nowhere(server: NameServer, name: str) -> None:
    with pytest.raises(socket.gaierror):
        await look_up(asking(server), name)
    assert not server.asked


@pytest.mark.parametrize("out", ["fails", "silent"])
async def test_the_next_server_is_asked_when_one_cannot_tell(
    server: NameServer, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SERVER_S", 0.1)
    async with NameServer("shop.test.", ["127.0.0.2"]).running() as second:
        server.out = out
        found = await look_up(asking(server, second), "img.shop.test")
    assert found == [(socket.AF_INET, "127.0.0.2")]
    assert server.asked


@pytest.mark.parametrize("out", ["fails", "silent"])
async def test_no_answer_at_all_is_no_word_of_the_name(
    server: NameServer, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SERVER_S", 0.1)
    monkeypatch.setattr(module, "_ALL_S", 0.3)
    server.out = out
    with pytest.raises(socket.gaierror) as caught:
        await look_up(asking(server), "img.shop.test")
    assert caught.value.errno == socket.EAI_AGAIN


async def test_a_machine_without_files_says_nothing_of_a_name(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ALL_S", 0.3)
    lookup = asking(server)

    def scarce(*_: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module.socket, "socket", scarce)
    monkeypatch.setattr("dns.query.socket_factory", scarce)
    with pytest.raises(OSError) as caught:
        lookup("img.shop.test", 0)
    assert caught.value.errno == errno.EMFILE


async def picture(_: web.Request) -> web.Response:
    return web.Response(body=b"picture")


async def test_pictures_are_fetched_from_where_the_server_says(server: NameServer) -> None:
    app = web.Application()
    app.router.add_get("/a.png", picture)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    given = {
        "name_servers": [f"127.0.0.1:{server.port}"],
        "allowed_hosts": ["img.shop.test"],
        "allowed_ports": [port],
        "resolver_canary": "canary.shop.test",
        "attempts": 1,
    }
    fetcher = ImageFetcher(ImageOptions.model_validate(given))
    await fetcher.start()
    try:
        assert await fetcher.fetch(f"http://img.shop.test:{port}/a.png") == b"picture"
        with pytest.raises(ImageBlockedError):
            await fetcher.fetch(f"http://other.shop.test:{port}/a.png")
        # The canary's name is asked for there, too.
        with pytest.raises(NameUnresolvedError):
            await fetcher.fetch(f"http://img.elsewhere.test:{port}/a.png")
        assert "canary.shop.test." in server.asked
    finally:
        await fetcher.close()
        await runner.cleanup()
