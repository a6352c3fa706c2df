"""A worker as it is, with pictures and accidents of the storm's.

Environment: `CHAOS_PICTURES=real` fetches pictures for true; otherwise every URL is a grey picture.
`CHAOS_ACCIDENT=place:number:what` does something at the n-th time that a place is come to:
places are "sent" (inside a transaction, before its offsets), "commit" (before it is
committed), "committed" (before its records are acked), "assign" and "revoke" (inside the
hooks); what is "kill", "raise" or "sleep=SECONDS".
`CHAOS_GATE=path`: wait for that file before work begins; what takes seconds to import is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from stream_judge import assembly, worker
from stream_judge.images.loader import LoadedImage
from stream_judge.images.options import ImageOptions
from stream_judge.images.spec import PixelSpec
from stream_judge.logs import set_up_logs
from stream_judge.pipeline import Pipeline
from stream_judge.settings import read_settings
from stream_judge.transactional_sink import TransactionalSink

Call = Callable[..., Awaitable[Any]]


class GreyPictures:
    """Stands for the loader: no network, no decoder."""

    def __init__(self, options: ImageOptions, spec: PixelSpec, *_: Any) -> None:
        self._pixels = np.full((spec.size, spec.size, 3), 127, np.uint8)

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def load(self, url: str) -> LoadedImage:
        """A grey picture."""
        return LoadedImage(url, "0" * 64, 8, 8, self._pixels)

    async def decode(self, data: bytes, *, url: str = "") -> LoadedImage:
        """A grey picture."""
        return await self.load(url)


class Accident:
    """What is to happen once, at a place."""

    def __init__(self, said: str) -> None:
        self._place, number, self._what = said.split(":")
        self._left = int(number)

    async def at(self, place: str) -> None:
        """Let it happen, if it is time."""
        if place != self._place:
            return
        self._left -= 1
        if self._left != 0:
            return
        print(f"accident {self._what} at {place}", file=sys.stderr, flush=True)  # noqa: T201
        if self._what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._what == "raise":
            raise RuntimeError(f"an accident at {place}")
        else:
            await asyncio.sleep(float(self._what.partition("=")[2]))

    def install(self) -> None:
        """Wrap every place."""
        producer, pipeline = AIOKafkaProducer, Pipeline
        producer.send_offsets_to_transaction = self._before(
            "sent", producer.send_offsets_to_transaction
        )
        commit = self._before("commit", producer.commit_transaction)
        producer.commit_transaction = self._after("committed", commit)
        # One partition's producer is open by then, and the lanes do not stand yet.
        opened = self._after("assign", TransactionalSink.open)
        TransactionalSink.open = opened  # type: ignore[method-assign]
        pipeline.drain = self._before("revoke", pipeline.drain)  # type: ignore[method-assign]

    def _before(self, place: str, call: Call) -> Call:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            await self.at(place)
            return await call(*args, **kwargs)

        return wrapped

    def _after(self, place: str, call: Call) -> Call:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = await call(*args, **kwargs)
            await self.at(place)
            return result

        return wrapped


def main() -> int:
    """Run one worker."""
    settings = read_settings()
    set_up_logs(settings.log)
    if os.environ.get("CHAOS_PICTURES") != "real":
        assembly.ImageLoader = GreyPictures  # type: ignore[misc, assignment]
    if said := os.environ.get("CHAOS_ACCIDENT"):
        Accident(said).install()
    if gate := os.environ.get("CHAOS_GATE"):
        print("waiting at the gate", file=sys.stderr, flush=True)  # noqa: T201
        while not Path(gate).exists():
            time.sleep(0.02)
    return asyncio.run(worker.run_worker(settings))


if __name__ == "__main__":
    sys.exit(main())
