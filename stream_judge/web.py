"""The worker's pages: /healthz, /readyz, /metrics."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from stream_judge.errors import EnvironmentProblem
from stream_judge.metrics import Metrics
from stream_judge.settings import WebSettings


@asynccontextmanager
async def serve_pages(
    settings: WebSettings,
    metrics: Metrics,
    unready: Callable[[], str | None],
    refresh: Callable[[], None],
) -> AsyncIterator[int]:
    """Serve the pages while the block runs; gives the port.

    Args:
        settings: Where.
        metrics: What /metrics shows.
        unready: Why the worker is not ready, in one line; None if it is.
        refresh: Called before the metrics are read.

    Raises:
        EnvironmentProblem: The port is in use, or may not be listened on.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = unready()
        return web.Response(text=f"{why or 'ready'}\n", status=503 if why else 200)

    async def show_metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", show_metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.bind, settings.port)
        try:
            await site.start()
        except OSError as exc:
            what = "is in use" if exc.errno == errno.EADDRINUSE else f"({exc.strerror or exc})"
            raise EnvironmentProblem(
                f"port {settings.port} of {settings.bind} {what}; set web.port or web.bind"
            ) from exc
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
