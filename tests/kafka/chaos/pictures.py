"""A shop's picture server: one picture, and a path that never answers."""

from __future__ import annotations

import asyncio
import io

from aiohttp import web
from PIL import Image


class PictureServer:
    """Serves `/a.png` and stalls on `/stall`, on loopback.

    Attributes:
        port: Where; 0 before `start`.
    """

    def __init__(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (200, 40, 40)).save(buffer, "PNG")
        self._picture = buffer.getvalue()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/a.png", self._answer)
        app.router.add_get("/stall", self._stall)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self._picture, content_type="image/png")

    async def _stall(self, _: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits that long")
