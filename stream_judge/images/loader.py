"""From a URL to what the model reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_judge.freeze import FreezeTicker
from stream_judge.images.decode import ImageDecoder
from stream_judge.images.fetch import ImageFetcher
from stream_judge.images.line import Place
from stream_judge.images.options import ImageOptions
from stream_judge.images.patience import Patience
from stream_judge.images.spec import PixelSpec


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture that was fetched and prepared.

    Attributes:
        url: Where it came from; empty for local bytes.
        sha256: Of the file's bytes, 64 hex digits.
        width: Of the picture as a person sees it, pixels.
        height: The same.
        pixels: uint8 [S, S, 3], RGB.
    """

    url: str
    sha256: str
    width: int
    height: int
    pixels: NDArray[np.uint8]


class ImageLoader:
    """Fetches and decodes pictures.

    Args:
        options: Bounds.
        spec: What the model wants.
        patience: Waits while the operator's own parts are out. None: a decoder that cannot be
            started raises, and the store and the resolver are waited for all the same.
        freeze: Notices when the process was frozen.
    """

    def __init__(
        self,
        options: ImageOptions,
        spec: PixelSpec,
        patience: Patience | None = None,
        freeze: FreezeTicker | None = None,
    ) -> None:
        self._fetcher = ImageFetcher(options, patience, freeze)
        self._decoder = ImageDecoder(options, spec, patience, freeze)

    async def start(self) -> None:
        """Open connections; decoders start with their first picture."""
        await self._fetcher.start()

    async def close(self) -> None:
        """Close connections and decoders."""
        await self._fetcher.close()
        await self._decoder.close()

    async def load(self, url: str) -> LoadedImage:
        """The picture behind a URL.

        Raises:
            ImageError: The subclass says why not.
            EnvironmentProblem: No decoder can be started, and nobody waits for one.
        """
        with self._decoder.place() as place:
            return await self._decoded(url, await self._fetcher.fetch(url, place), place)

    async def decode(self, data: bytes) -> LoadedImage:
        """The picture in some bytes.

        Raises:
            ImageDecodeError: Not a picture.
            ImageTooLargeError: Too many pixels, or a shape that takes too many.
            EnvironmentProblem: No decoder can be started, and nobody waits for one.
        """
        with self._decoder.place() as place:
            return await self._decoded("", data, place)

    async def _decoded(self, url: str, data: bytes, place: Place) -> LoadedImage:
        decoded = await self._decoder.decode(data, place)
        digest = hashlib.sha256(data).hexdigest()
        return LoadedImage(url, digest, decoded.width, decoded.height, decoded.pixels)
