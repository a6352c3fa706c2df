from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream_judge.errors import ConfigError
from stream_judge.images.spec import PixelSpec
from stream_judge.resources import resource
from stream_judge.training import scorer as scorer_module
from stream_judge.training.scorer import RepositoryScorer, _draw, draw_pool, read_pixels


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """All that is read of a repository to prepare pictures."""
    (tmp_path / "relevance_judge").mkdir()
    return tmp_path


def test_pictures_are_prepared_as_the_repository_says(repository: Path) -> None:
    shipped = (resource("model_repo") / "relevance_judge/config.pbtxt").read_text()
    assert read_pixels(resource("model_repo")) == PixelSpec(64, "bicubic", "center")
    other = shipped.replace('"64"', '"384"').replace("bicubic", "lanczos").replace("center", "none")
    named = other.replace("tiny-llava-re", 'owner/name \\" crop')
    (repository / "relevance_judge/config.pbtxt").write_text(named)
    assert read_pixels(repository) == PixelSpec(384, "lanczos", "none")


@pytest.mark.parametrize("text", [None, "", 'key: "image_size" value: { string_value: "big" }'])
def test_a_repository_that_does_not_say_it_is_refused(repository: Path, text: str | None) -> None:
    if text is not None:
        (repository / "relevance_judge/config.pbtxt").write_text(text)
    with pytest.raises(ConfigError, match="does not say how pictures are prepared"):
        read_pixels(repository)


@pytest.mark.parametrize("crop", ["center", "none"])
def test_a_repository_without_a_crop_is_measured_on_whole_pictures(
    monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    def ends(*_: object) -> bytes:
        # Red at both ends; the middle square is white.
        image = Image.new("RGB", (90, 30), "white")
        image.paste("red", (0, 0, 30, 30))
        image.paste("red", (60, 0, 90, 30))
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    monkeypatch.setattr(scorer_module, "draw", lambda *_, **__: None)
    monkeypatch.setattr(scorer_module, "encode", ends)
    pixels, _ = _draw(0, (7, 0), PixelSpec(12, "nearest", crop))
    assert pixels.shape == (12, 12, 3)
    red = (pixels == (255, 0, 0)).all(-1)
    assert red.mean() == (0 if crop == "center" else pytest.approx(2 / 3))


def test_the_drawings_of_a_split_and_a_seed_are_its_own() -> None:
    pools = [
        draw_pool(2, seed, PixelSpec(16), split=split, processes=1)
        for split, seed in (("test", 0), ("test", 1), ("dev", 0), ("test", 0))
    ]
    pixels = [pool.pixels.tobytes() for pool in pools]
    assert pixels[0] == pixels[3]
    assert len(set(pixels)) == 3


def test_embeddings_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 16 * 192 * 4 + 64 * 64 * 3
    monkeypatch.setattr(scorer_module, "_KEPT_BYTES", 2 * one + 1)
    scorer = RepositoryScorer(resource("model_repo"))
    pictures = [np.full((64, 64, 3), level, np.uint8).tobytes() for level in (0, 90, 200)]
    for picture in (*pictures, pictures[2], pictures[1]):
        assert scorer._embed(picture).shape == (16, 192)
    assert scorer._embed.cache_info()[:4] == (2, 3, 2, 2)
