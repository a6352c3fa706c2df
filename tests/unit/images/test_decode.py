"""What decoders do to pictures, and what the machine does to decoders."""

from __future__ import annotations

import asyncio
import errno
import io
import struct
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream_judge.errors import EnvironmentProblem, ImageDecodeError
from stream_judge.freeze import FreezeTicker
from stream_judge.images import decode, decoder_child
from stream_judge.images.decode import Decoded, ImageDecoder, _Child, longest_s
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.spec import PixelSpec
from stream_judge.outage import Outages

OPTIONS = ImageOptions(decoders=1, decode_timeout_s=20.0)
WIDTH = 130


def picture() -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (90, WIDTH, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = picture()


async def decoded(decoder: ImageDecoder, data: bytes = GOOD) -> Decoded:
    with decoder.place() as place:
        return await decoder.decode(data, place)


class Asking:
    """Stands before `_Child.ask`: the first so many times something else happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, failure: Exception) -> None:
        self.children: list[_Child] = []
        real = _Child.ask

        async def ask(child: _Child, data: bytes, spec: PixelSpec) -> Decoded:
            self.children.append(child)
            if len(self.children) <= times:
                raise failure
            return await real(child, data, spec)

        monkeypatch.setattr(_Child, "ask", ask)


@pytest.fixture
async def decoder() -> AsyncIterator[ImageDecoder]:
    found = ImageDecoder(OPTIONS, PixelSpec(16))
    yield found
    await found.close()


async def test_a_decoder_that_the_machine_kills_costs_nothing(decoder: ImageDecoder) -> None:
    await decoded(decoder)
    (child,) = decoder._all
    child.process.kill()
    assert (await decoded(decoder)).width == WIDTH


async def test_a_picture_is_blamed_once_two_decoders_died_of_it(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(monkeypatch, 3, ConnectionResetError("died"))
    with pytest.raises(ImageDecodeError, match="killed two"):
        await decoded(decoder)
    # Once more failed, once right.
    assert (await decoded(decoder)).width == WIDTH
    assert len(set(asking.children)) == 4


class Stub:
    """A child that is told what its pictures do."""

    process = SimpleNamespace(returncode=None)

    def __init__(self, asked: list[Stub]) -> None:
        self.served = 0
        self._asked = asked

    async def ask(self, data: bytes, spec: PixelSpec) -> Decoded:
        self._asked.append(self)
        if data == b"slow":
            raise TimeoutError
        if data == b"deadly":
            raise ConnectionResetError("died")
        self.served += 1
        return Decoded(1, 1, np.zeros((1, 1, 3), np.uint8))

    async def kill(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def asked(decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch) -> list[Stub]:
    """The children that were asked, one entry for each try; none of them is a process."""
    found: list[Stub] = []

    async def start() -> Any:
        return Stub(found)

    monkeypatch.setattr(decoder, "_start_child", start)
    return found


async def test_slow_pictures_in_a_row_take_one_try_each_behind_the_first(
    decoder: ImageDecoder, asked: list[Stub]
) -> None:
    await decoded(decoder, b"good")
    for _ in range(3):
        with pytest.raises(ImageDecodeError, match="too long"):
            await decoded(decoder, b"slow")
    # The first slow one met a decoder that had served before, and had another.
    assert len(asked) == 1 + 2 + 1 + 1
    assert asked[1] is asked[0]
    assert len(set(asked)) == 4


async def test_a_picture_that_a_decoder_died_of_has_another_try_though_that_one_was_fresh(
    decoder: ImageDecoder, asked: list[Stub]
) -> None:
    with pytest.raises(ImageDecodeError, match="killed two"):
        await decoded(decoder, b"deadly")
    assert len(set(asked)) == 2


@pytest.mark.parametrize(
    ("decoders", "pictures", "tries"), [(1, 1, 2), (1, 50, 100), (2, 50, 50), (2, 5, 6), (4, 1, 2)]
)
def test_the_longest_that_pictures_of_one_listing_are_decoded(
    decoders: int, pictures: int, tries: int
) -> None:
    options = ImageOptions(decoders=decoders, decode_timeout_s=3.0)
    assert longest_s(options, pictures) == tries * 3.0


async def test_the_second_decoder_is_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = ImageDecoder(OPTIONS.model_copy(update={"decoders": 2}), PixelSpec(16))
    try:
        await asyncio.gather(decoded(decoder), decoded(decoder))
        used = set(decoder._all)
        asking = Asking(monkeypatch, 1, TimeoutError())
        assert (await decoded(decoder)).width == WIDTH
    finally:
        await decoder.close()
    assert len(used) == 2
    assert asking.children[0] in used
    assert asking.children[1] not in used


class Frozen(FreezeTicker):
    """Says once that there was a freeze."""

    times = 1

    def frozen_since(self, moment: float) -> bool:
        self.times -= 1
        return self.times >= 0


async def test_a_decoder_that_is_late_after_a_freeze_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Asking(monkeypatch, 1, TimeoutError())
    decoder = ImageDecoder(OPTIONS, PixelSpec(16), freeze=Frozen())
    try:
        assert (await decoded(decoder)).width == WIDTH
    finally:
        await decoder.close()


async def test_the_time_of_a_picture_begins_when_its_decoder_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = _Child.get_ready

    async def slowly(child: _Child) -> None:
        await real(child)
        await asyncio.sleep(1.0)

    monkeypatch.setattr(_Child, "get_ready", slowly)
    options = OPTIONS.model_copy(update={"decode_timeout_s": 0.9})
    decoder = ImageDecoder(options, PixelSpec(16))
    try:
        assert (await decoded(decoder)).width == WIDTH
    finally:
        await decoder.close()


class Machine:
    """Starts processes, or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failure: Exception | None = None
        self.tried = 0
        self._real = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", self.start)

    async def start(self, *command: str, **how: Any) -> asyncio.subprocess.Process:
        self.tried += 1
        if self.failure is not None:
            raise self.failure
        return await self._real(*command, **how)


@pytest.mark.parametrize(
    "failure",
    [
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
async def test_a_machine_that_starts_no_decoders_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    machine, outages = Machine(monkeypatch), Outages()
    machine.failure = failure
    patience = Patience(outages, first_s=0.001, last_s=0.002)
    decoder = ImageDecoder(OPTIONS, PixelSpec(16), patience)
    decoding = asyncio.create_task(decoded(decoder))
    try:
        async with asyncio.timeout(10):
            while machine.tried < 6:
                await asyncio.sleep(0.001)
        assert outages.names == ["decoder"]
        machine.failure = None
        assert (await decoding).width == WIDTH
        assert outages.names == []
    finally:
        await decoder.close()


async def test_without_patience_a_decoder_that_cannot_be_started_raises(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    machine.failure = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(EnvironmentProblem, match="Too many open files"):
        await decoded(decoder)
    machine.failure = None
    assert (await decoded(decoder)).width == WIDTH


async def test_a_decoder_that_dies_of_its_imports_says_why(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    script = tmp_path / "child.py"
    script.write_text("import numpy_that_is_not_there\n")
    monkeypatch.setattr(decode, "_SCRIPT", str(script))
    with pytest.raises(EnvironmentProblem, match="No module named 'numpy_that_is_not_there'"):
        await decoded(decoder)
    assert not decoder._all


async def test_a_decoder_that_never_gets_ready_is_the_machines_fault(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    script = tmp_path / "child.py"
    script.write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setattr(decode, "_SCRIPT", str(script))
    monkeypatch.setattr(decode, "_START_S", 0.1)
    with pytest.raises(EnvironmentProblem, match="not ready"):
        await decoded(decoder)
    assert not decoder._all


async def test_a_cancel_at_any_moment_loses_no_decoder(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()
    real = _Child.kill

    async def kill(child: _Child) -> None:
        ending.set()
        await may_end.wait()
        await real(child)

    with monkeypatch.context() as patched:
        patched.setattr(_Child, "kill", kill)
        Asking(patched, 1, TimeoutError())
        decoding = asyncio.create_task(decoded(decoder))
        await ending.wait()
        decoding.cancel()
        await asyncio.wait({decoding})
    assert decoding.cancelled()
    may_end.set()
    async with asyncio.timeout(20):
        assert (await decoded(decoder)).width == WIDTH


async def test_a_cancel_while_a_decoder_starts_ends_it(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = asyncio.Event()

    async def never(child: _Child) -> None:
        starting.set()
        await asyncio.sleep(3600)

    with monkeypatch.context() as patched:
        patched.setattr(_Child, "get_ready", never)
        decoding = asyncio.create_task(decoded(decoder))
        await starting.wait()
        decoding.cancel()
        await asyncio.wait({decoding})
    assert not decoder._all
    assert (await decoded(decoder)).width == WIDTH


async def test_a_large_answer_that_nobody_reads_does_not_keep_its_decoder() -> None:
    decoder = ImageDecoder(OPTIONS, PixelSpec(336))
    try:
        await decoded(decoder)
        (child,) = decoder._all
        assert child.process.stdin is not None
        head = b'{"size": 336, "resample": "bicubic", "crop": "center", "length": %d}\n'
        child.process.stdin.write(head % len(GOOD) + GOOD)
        await asyncio.sleep(0.5)
        async with asyncio.timeout(10):
            await child.kill()
    finally:
        await decoder.close()


async def test_a_child_of_its_own_imports_what_pictures_need_before_it_is_ready() -> None:
    # A plugin that is imported at the first picture would take its time, and its blame.
    code = (
        "import runpy, sys\n"
        f"found = runpy.run_path({decoder_child.__file__!r})\n"
        "from PIL import Image\n"
        "print(all(name in Image.OPEN for name in found['_FORMATS']))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-s", "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.strip() == b"True"


async def test_a_picture_that_fails_goes_behind_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    class Stub:
        served = 0
        process = SimpleNamespace(returncode=None)

        async def ask(self, data: bytes, spec: PixelSpec) -> Decoded:
            tried.append(data)
            await asyncio.sleep(0)
            raise ConnectionResetError("died")

        async def kill(self) -> None:
            await asyncio.sleep(0)

    async def start() -> Any:
        return Stub()

    decoder = ImageDecoder(OPTIONS, PixelSpec(16))
    monkeypatch.setattr(decoder, "_start_child", start)
    pictures = [b"a", b"b", b"c"]
    results = await asyncio.gather(
        *(decoded(decoder, data) for data in pictures), return_exceptions=True
    )
    assert all(isinstance(result, ImageDecodeError) for result in results)
    assert tried == [b"a", b"a", b"b", b"b", b"c", b"c"]


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, 0), (2, 1), (3, 3), (4, 2), (5, 0), (6, 2), (7, 3), (8, 1)]
)
def test_a_picture_is_turned_upright_whatever_else_its_exif_holds(
    orientation: int, corner: int
) -> None:
    # The maker, a text, is here a rational number: that can be read, and not written again.
    entries = struct.pack("<HHHII", 2, 0x010F, 5, 1, 38)
    entries += struct.pack("<HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + struct.pack("<II", 3, 2)
    # Corners in the order of reading: which one is upper left after turning?
    levels = np.array([[0, 80], [160, 240]], np.uint8).repeat(32, 0).repeat(32, 1)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", exif=exif)
    spec = {"size": 64, "resample": "bicubic", "crop": "none"}
    _, _, pixels = decoder_child.decode(buffer.getvalue(), spec, 10_000)
    assert round(int(pixels[8, 8, 0]) / 80) == corner
