"""A model repository judged with in this process: ONNX Runtime, no torch, no server."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.drawing import draw, encode
from stream_judge.errors import ConfigError
from stream_judge.images.decoder_child import prepare
from stream_judge.images.spec import PixelSpec
from stream_judge.serving.decoder import DecoderOptions, LanguageDecoder, Row
from stream_judge.serving.manifest import manifest_digest
from stream_judge.serving.sessions import open_session
from stream_judge.training.evaluate import Pool

_POOL_SEEDS = {"test": 770_000, "dev": 550_000}
# Of embeddings that are kept: all of a small model's, some of a 7B's at 9 MB each.
_KEPT_BYTES = 1024 * 1024 * 1024
_PARAMETER = re.compile(r'key:\s*"(\w+)"\s*value:\s*\{\s*string_value:\s*"(\w+)"')


class RepositoryScorer:
    """Scores pairs with the graphs and the code that Triton would run.

    Args:
        repository: A model repository.

    Raises:
        ConfigError: There is none, or it does not say how pictures are prepared.
    """

    def __init__(self, repository: Path) -> None:
        if not (repository / "manifest.json").is_file():
            raise ConfigError(f"{repository}: no model repository (manifest.json)")
        vision = repository / "vision_encoder/1/model.onnx"
        self._vision = open_session(vision)
        self._decoder = LanguageDecoder(
            repository / "language_decoder/1", vision, DecoderOptions(cache_entries=4)
        )
        self.pixels = read_pixels(repository)
        self.digest = manifest_digest(repository)
        each = 4 * self._decoder.picture_tokens * self._decoder.width + 3 * self.pixels.size**2
        self._embed = lru_cache(maxsize=max(1, _KEPT_BYTES // each))(self._encode)

    def score(
        self, bundle: bytes, pixels: NDArray[np.uint8], texts: Sequence[str]
    ) -> NDArray[np.float64]:
        """See `evaluate.Scorer`."""
        rows = [
            Row(self._embed(picture.tobytes()), text.encode(), bundle)
            for picture, text in zip(pixels, texts, strict=True)
        ]
        results = self._decoder.judge(rows)
        bad = [result.status for result in results if result.status != "ok"]
        if bad:
            raise ConfigError(f"the repository answers a row with {bad[0]}")
        return np.array([result.raw_score for result in results])

    def _encode(self, picture: bytes) -> NDArray[np.float32]:
        side = self.pixels.size
        pixels = np.frombuffer(picture, np.uint8).reshape(1, side, side, 3)
        embeddings: NDArray[np.float32] = self._vision.run(None, {"pixels": pixels})[0][0]
        return embeddings


def read_pixels(repository: Path) -> PixelSpec:
    """How a model repository wants its pictures; its configuration says it to the worker, too.

    Raises:
        ConfigError: It does not say it.
    """
    path = repository / "relevance_judge/config.pbtxt"
    try:
        given = dict(_PARAMETER.findall(path.read_text(encoding="utf-8")))
        return PixelSpec(int(given["image_size"]), given["resample"], given["crop"])
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(
            f"{path} does not say how pictures are prepared ({exc}): `stream-judge export` "
            "writes image_size, resample and crop into it"
        ) from exc


def draw_pool(
    count: int, seed: int, pixels: PixelSpec, *, split: str = "test", processes: int = 2
) -> Pool:
    """Full-size drawings through a file format, prepared for the model; own seeds a split."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        many = [(_POOL_SEEDS[split], seed)] * count, [pixels] * count
        made = list(pool.map(_draw, range(count), *many, chunksize=16))
    return Pool(np.stack([m[0] for m in made]), np.array([m[1] for m in made], np.int8))


def _draw(
    index: int, seeds: tuple[int, int], pixels: PixelSpec
) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    rng = np.random.default_rng([*seeds, index])
    product = Product(*(int(rng.integers(n)) for n in SIZES))
    width, height = (int(side) for side in rng.integers(500, 801, 2))
    kind = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP")[int(rng.integers(5))]
    data = encode(draw(product, rng, width=width, height=height), kind, rng)  # type: ignore[arg-type]  # a Literal
    with Image.open(io.BytesIO(data)) as image:
        prepared = prepare(image.convert("RGB"), pixels.size, pixels.resample, pixels.crop)
    return prepared, product.indices()
