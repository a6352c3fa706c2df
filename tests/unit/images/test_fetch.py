from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from aiohttp import web

from stream_judge.errors import ImageTimeoutError
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.outage import Outages

OPTIONS = ImageOptions(
    allowed_networks=(ip_network("127.0.0.0/8"),),
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

    async def answer(self, request: web.Request) -> web.Response:
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
    patience = Patience(options.own_hosts, outages, first_s=0.001, last_s=0.002)
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
    options = OPTIONS.model_copy(update={"own_hosts": own})
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
