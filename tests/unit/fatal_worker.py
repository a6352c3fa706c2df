"""A worker process that meets a fatal error, and what would keep it from ending.

Its argument says what: `stop`, an application whose stop never ends; `loop`, an event loop that
is held up; `log`, a log that nobody reads.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stream_judge import worker
from stream_judge.errors import LaneLostError
from stream_judge.settings import Settings, WebSettings

FOR_EVER_S = 3600
HINDRANCE = sys.argv[1]


class StuckApp:
    """What the worker uses of Faust; it starts, and never stops."""

    started, crashed = True, False

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        print("stopping", flush=True)
        await asyncio.sleep(FOR_EVER_S)

    async def wait_until_stopped(self) -> None:
        await asyncio.sleep(FOR_EVER_S)


class StuckLog:
    def critical(self, *_: object, **__: object) -> None:
        print("stopping", flush=True)
        time.sleep(FOR_EVER_S)

    def info(self, *_: object, **__: object) -> None: ...


class StuckWorker(worker.Worker):
    @asynccontextmanager
    async def _watched(self, *_: object) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_soon(self._meet)
        yield

    def _meet(self) -> None:
        self._on_fatal(LaneLostError("another owner"))
        if HINDRANCE == "loop":
            print("stopping", flush=True)
            time.sleep(FOR_EVER_S)


class NoPublisher:
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class NoJudge:
    async def judge(self, _: object) -> Any: ...


@asynccontextmanager
async def build_judge(*_: object, **__: object) -> AsyncIterator[NoJudge]:
    yield NoJudge()


if __name__ == "__main__":
    worker._FATAL_GRACE_S = 1.0
    worker.build_app = lambda _: StuckApp()
    worker.build_judge = build_judge
    worker.attach_agent = lambda *_: None
    worker.make_publisher = lambda *_: NoPublisher()
    if HINDRANCE == "log":
        worker._log = StuckLog()
    sys.exit(asyncio.run(StuckWorker(Settings(web=WebSettings(port=0))).run()))
