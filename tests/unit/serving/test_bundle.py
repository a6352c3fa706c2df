from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from stream_judge.serving.bundle import BundleError, Sample, digest_of, pack_bundle, unpack_bundle
from stream_judge.serving.prefixes import Prefix, PrefixCache

PIXELS = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
SAMPLES = [Sample(PIXELS[0], "red mug", True), Sample(PIXELS[1], "帽子", False)]


def test_what_is_packed_comes_out() -> None:
    bundle = unpack_bundle(pack_bundle("Judge.", SAMPLES, size=4, max_text_tokens=9), size=4)
    assert bundle.samples == (("red mug", True), ("帽子", False))
    assert (bundle.instruction, bundle.max_text_tokens) == ("Judge.", 9)
    assert np.array_equal(bundle.pixels, PIXELS)


def test_no_samples_is_a_bundle_too() -> None:
    assert unpack_bundle(pack_bundle("Judge.", [], size=4), size=4).pixels.shape == (0, 4, 4, 3)


def test_the_same_policy_has_the_same_name() -> None:
    names = {digest_of(pack_bundle("Judge.", SAMPLES, size=4)) for _ in range(20)}
    assert len(names) == 1
    assert digest_of(pack_bundle("Judge!", SAMPLES, size=4)) not in names


def _with(policy: object, pixels: np.ndarray = PIXELS) -> bytes:
    return bytes(save({"pixels": pixels}, metadata={"policy": json.dumps(policy)}))


GOOD = {
    "version": 1,
    "instruction": "x",
    "samples": [{"text": "a", "answer": True}, {"text": "b", "answer": False}],
    "max_text_tokens": None,
}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 200,
        pack_bundle("Judge.", SAMPLES, size=4)[:-1],
        _with([]),
        _with({}),
        _with({**GOOD, "version": 2}),
        _with({**GOOD, "samples": GOOD["samples"][:1]}),  # type: ignore[index]
        _with({**GOOD, "samples": [{"text": "a", "answer": "yes"}] * 2}),
        _with({**GOOD, "max_text_tokens": 0}),
        _with({**GOOD, "instruction": 5}),
        bytes(save({"pixels": PIXELS}, metadata={"policy": "[" * 100_000})),
        _with(GOOD, PIXELS.astype(np.float32)),
        _with(GOOD, PIXELS[:, :3]),
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        unpack_bundle(data, size=4)


def test_a_picture_of_another_size_is_not_packed() -> None:
    with pytest.raises(BundleError, match="sample 0"):
        pack_bundle("x", [Sample(PIXELS[0][:3], "a", True)], size=4)


def _prefix(name: str, floats: int = 10) -> Prefix:
    return Prefix(name, 1, {"k": np.zeros(floats, np.float32)}, 9)


def test_the_least_recently_used_prefix_goes_first() -> None:
    cache = PrefixCache(max_bytes=10**6, max_entries=2)
    cache.put(_prefix("a"))
    cache.put(_prefix("b"))
    cache.get("a")
    cache.put(_prefix("c"))
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]


def test_prefixes_are_bounded_by_bytes_but_the_newest_stays() -> None:
    cache = PrefixCache(max_bytes=100, max_entries=10)
    for name in "abc":
        cache.put(_prefix(name))
    assert len(cache) == 2
    cache.put(_prefix("huge", 1000))
    assert len(cache) == 1
    assert cache.get("huge") is not None
