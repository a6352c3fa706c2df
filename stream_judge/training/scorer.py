"""A model repository judged with in this process: ONNX Runtime, no torch, no server."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.bank import preprocess
from stream_judge.catalogue.drawing import draw, encode
from stream_judge.errors import ConfigError
from stream_judge.serving.decoder import DecoderOptions, LanguageDecoder, Row, manifest_digest
from stream_judge.serving.sessions import open_session
from stream_judge.training.evaluate import Pool

_POOL_SEED = 770_000


class RepositoryScorer:
    """Scores pairs with the graphs and the code that Triton would run.

    Args:
        repository: A model repository.

    Raises:
        ConfigError: There is none.
    """

    def __init__(self, repository: Path) -> None:
        if not (repository / "manifest.json").is_file():
            raise ConfigError(f"{repository}: no model repository (manifest.json)")
        vision = repository / "vision_encoder/1/model.onnx"
        self._vision = open_session(vision)
        self._decoder = LanguageDecoder(
            repository / "language_decoder/1", vision, DecoderOptions(cache_entries=4)
        )
        self._embeddings: dict[bytes, NDArray[np.float32]] = {}
        self.image_size = self._decoder.image_size
        self.digest = manifest_digest(repository)

    def score(
        self, bundle: bytes, pixels: NDArray[np.uint8], texts: Sequence[str]
    ) -> NDArray[np.float64]:
        """See `evaluate.Scorer`."""
        rows = [
            Row(self._embed(picture), text.encode(), bundle)
            for picture, text in zip(pixels, texts, strict=True)
        ]
        results = self._decoder.judge(rows)
        bad = [result.status for result in results if result.status != "ok"]
        if bad:
            raise ConfigError(f"the repository answers a row with {bad[0]}")
        return np.array([result.raw_score for result in results])

    def _embed(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = picture.tobytes()
        if key not in self._embeddings:
            self._embeddings[key] = self._vision.run(None, {"pixels": picture[None]})[0][0]
        return self._embeddings[key]


def draw_pool(count: int, seed: int, size: int, *, processes: int = 2) -> Pool:
    """Full-size drawings through a file format, prepared for the model; own seeds."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(_draw, range(count), [seed] * count, [size] * count, chunksize=16))
    return Pool(np.stack([m[0] for m in made]), np.array([m[1] for m in made], np.int8))


def _draw(index: int, seed: int, size: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    rng = np.random.default_rng([_POOL_SEED, seed, index])
    product = Product(*(int(rng.integers(n)) for n in SIZES))
    width, height = (int(side) for side in rng.integers(500, 801, 2))
    kind = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP")[int(rng.integers(5))]
    data = encode(draw(product, rng, width=width, height=height), kind, rng)  # type: ignore[arg-type]  # a Literal
    with Image.open(io.BytesIO(data)) as image:
        return preprocess(image, size), product.indices()
