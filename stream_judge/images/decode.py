"""A bounded pool of decoding processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream_judge.errors import ImageDecodeError, ImageTooLargeError
from stream_judge.freeze import FreezeTicker
from stream_judge.images import decoder_child
from stream_judge.images.options import ImageOptions
from stream_judge.images.spec import PixelSpec
from stream_judge.processes import owned

# TimeoutError is an OSError; it is dealt with before.
_DEATHS = (OSError, ValueError, asyncio.IncompleteReadError)
_SCRIPT = str(Path(decoder_child.__file__))


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, prepared for the model.

    Attributes:
        width: Of the picture as a person sees it, pixels.
        height: The same.
        pixels: uint8 [S, S, 3], RGB.
    """

    width: int
    height: int
    pixels: NDArray[np.uint8]


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.served = 0

    async def ask(self, data: bytes, spec: PixelSpec) -> Decoded:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        head = json.dumps({**asdict(spec), "length": len(data)}).encode()
        stdin.write(head + b"\n" + data)
        await stdin.drain()
        answer = json.loads(await stdout.readline() or b'{"error": "dead", "message": "died"}')
        self.served += 1
        if answer.get("error") == "dead":
            raise ConnectionResetError(answer["message"])
        if error := answer.get("error"):
            message = str(answer["message"])[:200]
            if error == "too_large":
                raise ImageTooLargeError(f"the picture is too large: {message}")
            raise ImageDecodeError(f"not a picture that can be read: {message}")
        raw = await stdout.readexactly(spec.size * spec.size * 3)
        pixels = np.frombuffer(raw, np.uint8).reshape(spec.size, spec.size, 3)
        return Decoded(answer["width"], answer["height"], pixels)

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class ImageDecoder:
    """Decodes untrusted bytes in child processes.

    A child that dies, hangs or runs out of memory costs the one picture it was at. A picture is
    blamed for a death only when a second child dies of it too: a child can also be killed by the
    machine.

    Args:
        options: Number of processes and their limits.
        spec: What the model wants.
        freeze: Tells pictures that take too long from a process that was frozen.
    """

    def __init__(
        self, options: ImageOptions, spec: PixelSpec, freeze: FreezeTicker | None = None
    ) -> None:
        self._freeze = freeze or FreezeTicker()
        self._options = options
        self._spec = spec
        self._idle: asyncio.Queue[_Child | None] = asyncio.Queue()
        self._all: set[_Child] = set()

    async def start(self) -> None:
        """Make the pool; children start with their first picture."""
        for _ in range(self._options.decoders):
            self._idle.put_nowait(None)

    async def close(self) -> None:
        """End all children."""
        await asyncio.gather(*(child.kill() for child in self._all))
        self._all.clear()

    async def decode(self, data: bytes) -> Decoded:
        """The picture in `data`.

        Raises:
            ImageTooLargeError: More pixels, or more memory, than allowed.
            ImageDecodeError: Not a picture of an allowed format, or a decoder that died or
                did not finish.
        """
        while True:
            started = self._freeze.now()
            try:
                return await self._decode(data)
            except ImageDecodeError as exc:
                late = isinstance(exc.__cause__, TimeoutError)
                if not (late and self._freeze.frozen_since(started)):
                    raise

    async def _decode(self, data: bytes) -> Decoded:
        try:
            return await self._attempt(data)
        except _DEATHS:
            pass
        try:
            return await self._attempt(data)
        except _DEATHS as exc:
            raise ImageDecodeError("two decoders died of the picture") from exc

    async def _attempt(self, data: bytes) -> Decoded:
        child = await self._idle.get()
        keep = False
        try:
            if child is None:
                child = await self._spawn()
            async with asyncio.timeout(self._options.decode_timeout_s):
                decoded = await child.ask(data, self._spec)
            keep = True
            return decoded
        except (ImageDecodeError, ImageTooLargeError):
            keep = child is not None and child.process.returncode is None
            raise
        except TimeoutError as exc:
            raise ImageDecodeError("the picture took too long to decode") from exc
        finally:
            await self._give_back(child, keep=keep)

    async def _give_back(self, child: _Child | None, *, keep: bool) -> None:
        if child is not None and (not keep or child.served >= self._options.decoder_pictures):
            self._all.discard(child)
            await asyncio.shield(child.kill())
            child = None
        self._idle.put_nowait(child)

    async def _spawn(self) -> _Child:
        limits = (self._options.decoder_memory_bytes, self._options.max_pixels)
        process = await asyncio.create_subprocess_exec(
            *owned([sys.executable, "-s", _SCRIPT, *map(str, limits)]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Numerics of one picture gain nothing from threads, and each takes address space.
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""},
        )
        child = _Child(process)
        self._all.add(child)
        return child
