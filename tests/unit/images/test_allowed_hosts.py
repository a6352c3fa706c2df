from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from aiohttp import web

from stream_judge.errors import ImageBlockedError
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.guard import AddressGuard, is_public
from stream_judge.images.options import ImageOptions


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/to-literal":
            raise web.HTTPFound(f"http://127.0.0.1:{request.url.port}/x")
        return web.Response(body=b"bytes")

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def fetcher(host: str, port: int) -> ImageFetcher:
    options = ImageOptions(
        allowed_hosts=frozenset({host}), allowed_ports=frozenset({port}), attempts=1
    )
    made = ImageFetcher(options)
    await made.start()
    return made


async def test_an_allowed_host_does_not_open_its_address_to_other_urls(port: int) -> None:
    made = await fetcher("localhost", port)
    try:
        assert await made.fetch(f"http://localhost:{port}/x") == b"bytes"
        for literal in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(ImageBlockedError):
                await made.fetch(f"http://{literal}:{port}/x")
        with pytest.raises(ImageBlockedError):
            await made.fetch(f"http://localhost:{port}/to-literal")
    finally:
        await made.close()


async def test_an_allowed_host_may_be_an_address(port: int) -> None:
    made = await fetcher("127.0.0.1", port)
    try:
        assert await made.fetch(f"http://127.0.0.1:{port}/x") == b"bytes"
    finally:
        await made.close()


def test_a_resolved_allowed_host_leaves_the_socket_check_as_it_was() -> None:
    guard = AddressGuard(["store.internal"], [], [80, 443])
    guard.resolved("store.internal", ["192.168.0.9"])
    with pytest.raises(ImageBlockedError):
        guard.socket_factory()((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.0.9", 80)))


def test_local_nat64_is_refused_wherever_the_address_lies_in_it() -> None:
    # 127.0.0.1 in the layout of a /48 prefix, with a public address in the low 32 bits.
    assert not is_public(ip_address("64:ff9b:1:7f00:0:100:808:808"))
