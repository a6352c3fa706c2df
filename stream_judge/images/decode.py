"""A bounded pool of decoding processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream_judge.errors import EnvironmentProblem, ImageDecodeError, ImageTooLargeError
from stream_judge.freeze import FreezeTicker
from stream_judge.images import decoder_child
from stream_judge.images.line import Line, Place
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.spec import PixelSpec
from stream_judge.processes import owned

# What asking a child raises that has died, answers nonsense, or (TimeoutError is an OSError) does
# not answer in time.
_FAILURES = (OSError, ValueError, asyncio.IncompleteReadError)
# An interpreter with its imports takes a third of a second; on a machine with other work, more.
_START_S = 60.0
# Of one picture, at most.
_TRIES = 2
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
        self.ready = False
        self.served = 0

    async def get_ready(self) -> None:
        """Wait until it can take pictures.

        Raises:
            EnvironmentProblem: It ended before that, or is not ready in time.
        """
        stdout, stderr = self.process.stdout, self.process.stderr
        assert stdout is not None
        assert stderr is not None
        try:
            async with asyncio.timeout(_START_S):
                self.ready = await stdout.readline() == decoder_child.READY
                last_words = b"" if self.ready else await stderr.read()
        except (OSError, ValueError) as exc:
            raise EnvironmentProblem(f"a decoder is not ready after {_START_S:.0f} s") from exc
        if not self.ready:
            reason = last_words.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            raise EnvironmentProblem(f"a decoder ended before it was ready: {reason}")

    async def ask(self, data: bytes, spec: PixelSpec) -> Decoded:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        head = json.dumps({**asdict(spec), "length": len(data)}).encode()
        # Apart: one copy less of what may be the largest picture there is.
        stdin.write(head + b"\n")
        stdin.write(data)
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


def longest_s(options: ImageOptions, pictures: int) -> float:
    """How long so many pictures, begun together, are decoded at most, seconds; without starts.

    A decoder that dies when its time is nearly over makes a picture take two tries.
    """
    in_a_row = -(-pictures // options.decoders)
    return _TRIES * in_a_row * options.decode_timeout_s


@dataclass(slots=True)
class _Seat:
    """Where a child is, or is yet to be started."""

    child: _Child | None = None


class ImageDecoder:
    """Decodes untrusted bytes in child processes.

    Pictures are decoded in the order in which they were begun (see `Line`), and a picture keeps
    its turn over both of its tries: it goes behind nobody.

    A child that dies, hangs or runs out of memory costs the one picture it was at. A picture is
    blamed for taking too long only when a child that was started for it does not finish it, and
    for a death only at the second one: the machine kills fresh children, too. A child that does
    not start is the machine's fault, and no picture's time runs before it has.

    Args:
        options: Number of processes and their limits.
        spec: What the model wants.
        patience: Waits while no child can be started. None: that raises.
        freeze: Tells pictures that take too long from a process that was frozen.
    """

    def __init__(
        self,
        options: ImageOptions,
        spec: PixelSpec,
        patience: Patience | None = None,
        freeze: FreezeTicker | None = None,
    ) -> None:
        self._patience = patience
        self._freeze = freeze or FreezeTicker()
        self._options = options
        self._spec = spec
        self._line = Line(options.decoders, options.max_waiting_bytes)
        # Children start with their first picture.
        self._idle = [_Seat() for _ in range(options.decoders)]
        self._all: set[_Child] = set()

    async def close(self) -> None:
        """End all children."""
        await asyncio.gather(*(child.kill() for child in self._all))
        self._all.clear()

    def place(self) -> AbstractContextManager[Place]:
        """Within it, a picture is on its way to be decoded, behind those that already are."""
        return self._line.place()

    async def decode(self, data: bytes, place: Place) -> Decoded:
        """The picture in `data`, once it is its place's turn.

        Raises:
            ImageTooLargeError: More pixels, or more memory, than allowed.
            ImageDecodeError: Not a picture of an allowed format, or two decoders died of it, or
                one that was started for it did not finish.
            EnvironmentProblem: No child can be started, and there is no patience.
        """
        async with place.turn(len(data)):
            seat = self._idle.pop()
            try:
                return await self._decoded(data, seat)
            finally:
                self._idle.append(seat)

    async def _decoded(self, data: bytes, seat: _Seat) -> Decoded:
        failures = 0
        while True:
            fresh = seat.child is None
            started = self._freeze.now()
            try:
                return await self._attempt(data, seat)
            except _FAILURES as exc:
                failure = exc
            late = isinstance(failure, TimeoutError)
            if late and self._freeze.frozen_since(started):
                continue
            failures += 1
            # Slow pictures in a row each meet the fresh child that the one before has left: with
            # another try for each, those of one listing would hold the decoders twice as long.
            if failures >= _TRIES or (late and fresh):
                what = "took too long to decode" if late else "killed two decoders"
                raise ImageDecodeError(f"the picture {what}") from failure

    async def _attempt(self, data: bytes, seat: _Seat) -> Decoded:
        """One try; a child that fails at it is gone, and the next try gets a fresh one."""
        child = seat.child
        if child is None:
            child = seat.child = await self._start_child()
        keep = False
        try:
            async with asyncio.timeout(self._options.decode_timeout_s):
                decoded = await child.ask(data, self._spec)
            keep = True
            return decoded
        except (ImageDecodeError, ImageTooLargeError):
            keep = child.process.returncode is None
            raise
        finally:
            if not keep or child.served >= self._options.decoder_pictures:
                await self._vacate(seat)

    async def _vacate(self, seat: _Seat) -> None:
        # The seat first: the wait for a child's end can be cut off.
        child, seat.child = seat.child, None
        if child is not None:
            await asyncio.shield(self._retire(child))

    async def _retire(self, child: _Child) -> None:
        await child.kill()
        self._all.discard(child)

    async def _start_child(self) -> _Child:
        """A child that is ready, for as long as none can be started."""
        if self._patience is None:
            return await self._spawn()
        return await self._patience.started(self._spawn)

    async def _spawn(self) -> _Child:
        child = _Child(await self._fork())
        self._all.add(child)
        try:
            await child.get_ready()
        finally:
            if not child.ready:
                await asyncio.shield(self._retire(child))
        return child

    async def _fork(self) -> asyncio.subprocess.Process:
        limits = (self._options.decoder_memory_bytes, self._options.max_pixels)
        try:
            return await asyncio.create_subprocess_exec(
                *owned([sys.executable, "-s", _SCRIPT, *map(str, limits)]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # An answer fits in: asyncio sees the end of no child whose output it leaves unread.
                limit=max(1 << 16, 3 * self._spec.size**2),
                # Numerics of one picture gain nothing from threads, and each takes address space.
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""},
            )
        except (OSError, RuntimeError) as exc:
            # RuntimeError: asyncio waits for a child in a thread, and there is none to be had.
            raise EnvironmentProblem(f"a decoder cannot be started: {exc}") from exc
