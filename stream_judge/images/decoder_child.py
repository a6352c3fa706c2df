"""The process that touches untrusted picture bytes: frames in on stdin, out on stdout.

Run as a script, so that it imports Pillow and numpy and nothing else. Its first line says that
it is ready. A frame in is a JSON line with the spec and the length, then the bytes; a frame out
is a JSON line, then the pixels. It catches every exception of a picture, and dies of nothing but
its limits.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import warnings
from typing import Any, BinaryIO

import numpy as np
from PIL import (
    # Pillow would import them at the first picture, which is blamed for what happens then.
    GifImagePlugin,  # noqa: F401 - see above
    Image,
    JpegImagePlugin,  # noqa: F401 - see above
    MpoImagePlugin,  # noqa: F401 - some JPEGs
    PngImagePlugin,  # noqa: F401 - see above
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - see above
)

#: What a child says once it can take pictures.
READY = b'{"ready": true}\n'
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_MAX_SIDE = 16_384
# The shorter edge is enlarged to the model's size and the longer one with it, before the middle
# is cut out: from a strip, hundreds of megabytes. Its middle would say nothing about a product.
_MAX_ASPECT = 50
_ORIENTATION = 0x0112
# What makes a picture of each orientation upright.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _TooLarge(Exception):
    pass


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        levels = np.asarray(image).astype(np.float32)
        scale = 255 / 65535 if levels.max(initial=0) > 255 else 1.0
        image = Image.fromarray((levels * scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the whole EXIF anew, which damaged tags cannot stand.
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - EXIF that cannot be read says nothing; Pillow raises anything
        return image
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def prepare(image: Image.Image, size: int, resample: str, crop: str) -> np.ndarray:
    """uint8 [size, size, 3], as transformers' CLIP image processor resizes and crops."""
    method = Image.Resampling[resample.upper()]
    width, height = image.size
    if crop == "none":
        return np.asarray(image.resize((size, size), method), np.uint8)
    # The longer edge is cut, not rounded, as in get_resize_output_image_size.
    if width <= height:
        target = (size, max(size, int(size * height / width)))
    else:
        target = (max(size, int(size * width / height)), size)
    resized = image.resize(target, method)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)), np.uint8)


def decode(data: bytes, spec: dict[str, Any], max_pixels: int) -> tuple[int, int, np.ndarray]:
    """Width, height (after orientation) and the prepared pixels."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        if max(width, height) > _MAX_SIDE or width * height > max_pixels:
            raise _TooLarge(f"{width} x {height} pixels")
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise _TooLarge(f"{width} x {height} pixels, longer than {_MAX_ASPECT} to 1")
        image.seek(0)
        image.load()
        rgb = _to_rgb(_upright(image))
    pixels = prepare(rgb, int(spec["size"]), spec["resample"], spec["crop"])
    return rgb.width, rgb.height, pixels


def _answer(out: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    out.write(json.dumps(head).encode() + b"\n" + body)
    out.flush()


def _prepare_process(memory: int, max_pixels: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    # The starter reads stderr until the child is ready; a pipe that nobody reads fills up.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def main() -> None:
    """Serve frames until stdin ends. Arguments: address space in bytes, largest picture."""
    max_pixels = int(sys.argv[2])
    _prepare_process(int(sys.argv[1]), max_pixels)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    out.write(READY)
    out.flush()
    while line := source.readline():
        head = json.loads(line)
        data = source.read(int(head["length"]))
        try:
            width, height, pixels = decode(data, head, max_pixels)
        except (_TooLarge, Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
            _answer(out, {"error": "too_large", "message": str(exc)})
        except MemoryError:
            _answer(out, {"error": "too_large", "message": "it does not fit the memory limit"})
        except UnidentifiedImageError:
            _answer(out, {"error": "undecodable", "message": "none of the allowed formats"})
        except Exception as exc:  # noqa: BLE001 - Pillow raises nearly every type
            _answer(out, {"error": "undecodable", "message": f"{type(exc).__name__}: {exc}"})
        else:
            _answer(out, {"width": width, "height": height}, pixels.tobytes())


if __name__ == "__main__":
    main()
