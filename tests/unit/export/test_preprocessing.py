from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

from transformers import CLIPImageProcessor, SiglipImageProcessor

from stream_judge.errors import ExportError
from stream_judge.export.preprocessing import read_preprocessing
from stream_judge.images.decoder_child import prepare

STATISTICS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    **STATISTICS,
}
SIGLIP = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 32, "width": 32},
    **STATISTICS,
}


def saved(processor: Any) -> dict[str, Any]:
    content: dict[str, Any] = processor.to_dict()
    return content


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessor(size=32, crop_size=32),
        CLIPImageProcessor(size=32, crop_size=32, resample=2, **STATISTICS),
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        CLIPImageProcessor(size={"height": 32, "width": 32}, crop_size=32),
        CLIPImageProcessor(size=32, crop_size=32, do_normalize=False),
        SiglipImageProcessor(size={"height": 32, "width": 32}),
        SiglipImageProcessor(size={"height": 32, "width": 32}, resample=1, do_convert_rgb=True),
    ],
    ids=["clip", "bilinear", "straight", "cut to its size", "levels", "siglip", "siglip, lanczos"],
)
@pytest.mark.parametrize("shape", [(70, 45), (45, 70), (33, 32), (20, 90), (32, 32)])
def test_the_worker_prepares_pictures_as_the_processor_does(
    processor: Any, shape: tuple[int, int]
) -> None:
    found = read_preprocessing(saved(processor))
    levels = np.random.default_rng(4).integers(0, 256, (*shape, 3)).astype(np.uint8)
    ours = prepare(Image.fromarray(levels), found.size, found.resample, found.crop)
    normal = (ours / 255 - np.array(found.mean)) / np.array(found.std)
    (theirs,) = processor(Image.fromarray(levels))["pixel_values"]
    np.testing.assert_allclose(normal.transpose(2, 0, 1), theirs, atol=1e-5)


def test_a_processor_without_a_crop_squashes() -> None:
    assert read_preprocessing(SIGLIP).crop == "none"
    # As the fast processors write it.
    empty = {"do_center_crop": None, "crop_size": None, "do_pad": None}
    fast = SIGLIP | empty | {"image_processor_type": "SiglipImageProcessorFast"}
    assert read_preprocessing(fast).crop == "none"


def test_a_file_without_a_type_is_llavas_own_processor() -> None:
    untyped = {k: v for k, v in CLIP.items() if k != "image_processor_type"}
    assert read_preprocessing(untyped).crop == "center"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "PixtralImageProcessor"}, "PixtralImageProcessor"),
        ({"do_center_crop": False}, "size .* crop None"),
        ({"do_center_crop": None}, "size .* crop None"),
        ({"crop_size": 24}, "size .*24"),
        ({"crop_size": {"height": 32, "width": 24}}, "size .*24"),
        ({"crop_size": None}, "size .*224"),
        ({"size": {"height": 32, "width": 24}}, "size .*24"),
        ({"size": {"height": 48, "width": 48}}, "size .*48"),
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
        ({"size": {}}, "size"),
        ({"size": "large"}, "size large"),
        ({"resample": 9}, "resample 9"),
        ({"resample": "bicubic"}, "resample 'bicubic'"),
        ({"do_resize": False}, "do_resize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"image_mean": None}, "image_mean"),
        ({"image_std": [0.5]}, "image_std"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    ],
)
def test_what_the_worker_does_not_do_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=f"preprocessor_config.json: .*{said}"):
        read_preprocessing(CLIP | change)


def test_a_squashing_processor_with_a_shortest_edge_is_refused() -> None:
    with pytest.raises(ExportError, match="shortest_edge"):
        read_preprocessing(SIGLIP | {"size": {"shortest_edge": 32}})
