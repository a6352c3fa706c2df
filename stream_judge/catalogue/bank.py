"""A bank of drawings at model resolution, for training: one array of small pictures."""

from __future__ import annotations

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.drawing import Format, draw, encode
from stream_judge.images.decoder_child import prepare

Pixels = npt.NDArray[np.uint8]
Attributes = npt.NDArray[np.int8]

_SMALLEST, _LARGEST = 128, 224
_CHUNK = 250


def preprocess(image: Image.Image, size: int) -> Pixels:
    """Prepares a picture as the worker does for tiny-llava-re.

    Args:
        image: A picture of any size and mode.
        size: Side of the result in pixels.

    Returns:
        uint8 [size, size, 3]: shortest edge to `size` (bicubic), centre square.
    """
    return prepare(image.convert("RGB"), size, "bicubic", "center")


def draw_entry(seed: int, index: int, size: int) -> tuple[Pixels, tuple[int, int, int, int]]:
    """Entry `index` of the bank of a seed, whatever else is drawn.

    Args:
        seed: The bank's seed.
        index: Which entry, from 0.
        size: Side of the picture in pixels.

    Returns:
        uint8 [size, size, 3] after a round trip through a file format, and the product's
        value indices.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    product = Product(*(int(rng.integers(count)) for count in SIZES))
    width = height = int(rng.integers(_SMALLEST, _LARGEST + 1))
    if rng.random() < 0.25:
        longer = int(width * rng.uniform(1.05, 1.4))
        width, height = (longer, height) if rng.random() < 0.5 else (width, longer)
    picture = draw(product, rng, width=width, height=height)
    formats: tuple[Format, ...] = ("JPEG", "WEBP", "PNG")
    chosen = formats[int(rng.choice(3, p=(0.8, 0.08, 0.12)))]
    with Image.open(io.BytesIO(encode(picture, chosen, rng))) as decoded:
        return preprocess(decoded, size), product.indices()


def _draw_chunk(seed: int, start: int, stop: int, size: int) -> tuple[Pixels, Attributes]:
    pixels = np.empty((stop - start, size, size, 3), dtype=np.uint8)
    attributes = np.empty((stop - start, len(SIZES)), dtype=np.int8)
    for row, index in enumerate(range(start, stop)):
        pixels[row], attributes[row] = draw_entry(seed, index, size)
    return pixels, attributes


def render_bank(
    count: int, seed: int, *, size: int = 64, processes: int = 2
) -> tuple[Pixels, Attributes]:
    """Draws `count` products, uniform over all attribute values.

    Args:
        count: How many.
        seed: Entry i depends on the seed and i alone, not on the number of processes.
        size: Side of the pictures in pixels.
        processes: How many child processes draw; 1 draws in this one.

    Returns:
        Pictures uint8 [count, size, size, 3] and value indices int8 [count, 4] in the order
        of `ATTRIBUTES`.
    """
    pixels = np.empty((count, size, size, 3), dtype=np.uint8)
    attributes = np.empty((count, len(SIZES)), dtype=np.int8)
    starts = list(range(0, count, _CHUNK))
    stops = [min(start + _CHUNK, count) for start in starts]
    if processes <= 1:
        for start, stop in zip(starts, stops, strict=True):
            pixels[start:stop], attributes[start:stop] = _draw_chunk(seed, start, stop, size)
        return pixels, attributes
    # Spawned, not forked: the caller may hold threads (torch) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        many = len(starts)
        chunks = pool.map(_draw_chunk, [seed] * many, starts, stops, [size] * many)
        for start, stop, chunk in zip(starts, stops, chunks, strict=True):
            pixels[start:stop], attributes[start:stop] = chunk
    return pixels, attributes
