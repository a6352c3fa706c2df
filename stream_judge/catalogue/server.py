"""The drawn shop's picture server, a process of its own on loopback.

`python -m stream_judge.catalogue.server FOLDER` prints its port and serves the folder.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web


async def serve(folder: Path) -> None:
    """Serve a folder on a free port of loopback until cancelled; prints `port N`."""
    app = web.Application()
    app.router.add_static("/", folder, follow_symlinks=False)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"port {runner.addresses[0][1]}", flush=True)  # noqa: T201 - read by the parent
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
