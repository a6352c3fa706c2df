from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from stream_judge.catalogue.bank import preprocess
from stream_judge.errors import (
    ImageBlockedError,
    ImageDecodeError,
    ImageError,
    ImageNotFoundError,
    ImageTimeoutError,
    ImageTooLargeError,
    ImageUnreachableError,
    ImageUrlError,
)
from stream_judge.images.loader import ImageLoader
from stream_judge.images.options import ImageOptions
from stream_judge.images.spec import PixelSpec

NOISE = np.random.default_rng(3).integers(0, 256, (90, 130, 3)).astype(np.uint8)


def as_bytes(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


class Origin:
    """A host of a seller, good and bad."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.flaky = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        path = request.path
        if path == "/good.png":
            return web.Response(body=as_bytes(Image.fromarray(NOISE)))
        if path == "/flaky.png":
            self.flaky += 1
            if self.flaky < 3:
                return web.Response(status=503)
            return web.Response(body=as_bytes(Image.fromarray(NOISE)))
        if path == "/html":
            return web.Response(text="<html>")
        if path == "/away":
            raise web.HTTPFound("/good.png")
        if path == "/metadata":
            raise web.HTTPFound("http://169.254.169.254/latest")
        if path == "/loop":
            raise web.HTTPFound("/loop")
        if path == "/gzip":
            return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
        if path == "/stall":
            await asyncio.sleep(5)
        if path == "/endless":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(10_000):
                await response.write(b"x" * 65536)
            return response
        raise web.HTTPNotFound


@pytest.fixture
async def origin() -> AsyncIterator[tuple[Origin, str]]:
    origin = Origin()
    app = web.Application()
    app.router.add_get("/{tail:.*}", origin.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield origin, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def loader() -> AsyncIterator[ImageLoader]:
    options = ImageOptions(
        allowed_hosts=frozenset({"127.0.0.1"}),
        max_bytes=500_000,
        max_pixels=1_000_000,
        total_timeout_s=1.0,
        read_timeout_s=0.5,
        backoff_s=0.01,
        decoders=1,
        decode_timeout_s=20.0,
    )
    loader = ImageLoader(options, PixelSpec(16))
    await loader.start()
    yield loader
    await loader.close()


async def test_a_picture_is_prepared_as_in_training(
    loader: ImageLoader, origin: tuple[Origin, str]
) -> None:
    loaded = await loader.load(origin[1] + "/good.png")
    assert (loaded.width, loaded.height) == (130, 90)
    assert np.array_equal(loaded.pixels, preprocess(Image.fromarray(NOISE), 16))
    again = await loader.load(origin[1] + "/away")
    assert again.sha256 == loaded.sha256


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/html", ImageDecodeError),
        ("/none", ImageNotFoundError),
        ("/metadata", ImageBlockedError),
        ("/loop", ImageUrlError),
        ("/gzip", ImageUnreachableError),
        ("/endless", ImageTooLargeError),
        ("/stall", ImageTimeoutError),
    ],
)
async def test_each_fault_has_its_error(
    loader: ImageLoader, origin: tuple[Origin, str], path: str, error: type[ImageError]
) -> None:
    with pytest.raises(error):
        await loader.load(origin[1] + path)


async def test_only_what_may_pass_later_is_tried_again(
    loader: ImageLoader, origin: tuple[Origin, str]
) -> None:
    await loader.load(origin[1] + "/flaky.png")
    assert origin[0].asked.count("/flaky.png") == 3
    with pytest.raises(ImageNotFoundError):
        await loader.load(origin[1] + "/none")
    assert origin[0].asked.count("/none") == 1


async def test_loopback_is_closed_by_default(origin: tuple[Origin, str]) -> None:
    port = int(origin[1].rsplit(":", 1)[1])
    options = ImageOptions(allowed_ports=frozenset({port}), attempts=1)
    loader = ImageLoader(options, PixelSpec(16))
    await loader.start()
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(ImageBlockedError):
            await loader.load(f"http://{host}:{port}/good.png")
    assert origin[0].asked == []
    await loader.close()


async def test_bombs_and_odd_modes(loader: ImageLoader) -> None:
    with pytest.raises(ImageTooLargeError):
        await loader.decode(as_bytes(Image.new("1", (9_000, 9_000))))
    for mode in ("L", "P", "LA", "RGBA", "CMYK", "I;16"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        data = as_bytes(Image.new(mode, (40, 30)), kind)
        if mode == "CMYK":
            # TIFF is not among the formats, whatever its name says.
            with pytest.raises(ImageDecodeError):
                await loader.decode(data)
            data = as_bytes(Image.new(mode, (40, 30)), "JPEG")
        assert (await loader.decode(data)).pixels.shape == (16, 16, 3)
    clear = await loader.decode(as_bytes(Image.new("RGBA", (40, 30), (0, 0, 0, 0))))
    assert (clear.pixels == 255).all()


async def test_a_strip_is_refused_before_it_is_enlarged(loader: ImageLoader) -> None:
    for size in ((16_384, 10), (10, 16_384), (511, 10)):
        with pytest.raises(ImageTooLargeError, match="50 to 1"):
            await loader.decode(as_bytes(Image.new("RGB", size)))
    assert (await loader.decode(as_bytes(Image.new("RGB", (500, 10))))).width == 500


async def test_orientation_is_applied_first(loader: ImageLoader) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = await loader.decode(as_bytes(Image.new("RGB", (60, 30)), "JPEG", exif=exif.tobytes()))
    assert (loaded.width, loaded.height) == (30, 60)
