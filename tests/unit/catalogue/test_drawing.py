from __future__ import annotations

import colorsys
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from stream_judge.catalogue.attributes import CATEGORIES, COLOURS, PATTERNS, SIZES, Product
from stream_judge.catalogue.bank import draw_entry, preprocess, render_bank
from stream_judge.catalogue.drawing import draw, draw_with_mask, encode

EVERY = [Product(*values) for values in itertools.product(range(12), (0, 8), range(3), range(3))]


def drawn(product: Product, seed: int = 0, side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    image, mask = draw_with_mask(product, np.random.default_rng(seed), width=side, height=side)
    return np.asarray(image, np.float64), np.asarray(mask) > 128


@pytest.mark.parametrize("category", range(len(CATEGORIES)), ids=CATEGORIES)
def test_items_are_inside_the_picture_and_fill_some_of_it(category: int) -> None:
    for product in (p for p in EVERY if p.category == category):
        pixels, mask = drawn(product)
        assert pixels.shape == (160, 160, 3)
        assert 0.02 < mask.mean() < 0.75, product
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert edge.mean() < 0.02, product


def test_the_same_generator_draws_the_same_bytes() -> None:
    product = Product(3, 5, 2, 1)
    for kind in ("JPEG", "PNG", "WEBP"):
        first, second = (
            encode(draw(product, rng, width=200, height=150), kind, rng)  # type: ignore[arg-type]
            for rng in (np.random.default_rng(4), np.random.default_rng(4))
        )
        assert first == second
        with Image.open(io.BytesIO(first)) as image:
            assert (image.format, image.size) == (kind, (200, 150))


@pytest.mark.parametrize("name", ["red", "yellow", "green", "blue", "purple"])
def test_a_plain_item_has_its_colour(name: str) -> None:
    wanted = {"red": 0.0, "yellow": 0.15, "green": 0.36, "blue": 0.61, "purple": 0.77}[name]
    for seed in range(6):
        pixels, mask = drawn(Product(0, COLOURS.index(name), 0, PATTERNS.index("plain")), seed)
        hue, _, _ = colorsys.rgb_to_hsv(*(np.median(pixels[mask], 0) / 255))
        assert min(abs(hue - wanted), 1 - abs(hue - wanted)) < 0.09, (seed, hue)


def test_patterns_are_seen() -> None:
    def spread(pattern: str) -> float:
        values = []
        for seed in range(8):
            pixels, mask = drawn(Product(11, 4, 0, PATTERNS.index(pattern)), seed)
            values.append(pixels[mask].std(0).mean())
        return float(np.mean(values))

    assert min(spread("striped"), spread("dotted")) > 1.3 * spread("plain")


def test_bank_entries_do_not_depend_on_the_rest_of_the_bank() -> None:
    pixels, attributes = render_bank(12, 5, processes=1)
    again, told = draw_entry(5, 7, 64)
    assert np.array_equal(pixels[7], again)
    assert tuple(attributes[7]) == told
    assert (attributes < np.array(SIZES)).all()


@pytest.mark.parametrize(("width", "height"), [(500, 900), (640, 640), (901, 500)])
def test_preprocessing_is_a_centre_square(width: int, height: int) -> None:
    image = Image.new("RGB", (width, height), "white")
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image.paste("red", (left, top, left + side, top + side))
    pixels = preprocess(image, 64)
    assert pixels.shape == (64, 64, 3)
    assert np.median(pixels.reshape(-1, 3), 0).tolist() == [255, 0, 0]
