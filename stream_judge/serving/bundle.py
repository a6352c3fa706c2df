"""The policy bundle: what the server must know of a policy, as safetensors bytes.

One tensor `pixels` (uint8 [N, S, S, 3]) with the sample pictures, and one metadata entry
`policy` with the rest as sorted JSON: safetensors promises no order among several
entries, and the digest of the bytes is the policy's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

VERSION = 1
# A bundle of 64 samples at 336 px has 22 MB.
MAX_BYTES = 64 * 1024 * 1024


class BundleError(ValueError):
    """Bytes that are no policy bundle."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One in-context sample.

    Attributes:
        pixels: uint8 [S, S, 3], RGB, as the vision encoder reads it.
        text: The listing's text.
        answer: True for a match.
    """

    pixels: NDArray[np.uint8]
    text: str
    answer: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """A policy as the server sees it.

    Attributes:
        instruction: States what counts as a match.
        samples: Text and answer of each sample.
        pixels: uint8 [N, S, S, 3], the samples' pictures.
        max_text_tokens: The policy's own limit, or None.
    """

    instruction: str
    samples: tuple[tuple[str, bool], ...]
    pixels: NDArray[np.uint8]
    max_text_tokens: int | None


def digest_of(data: bytes) -> str:
    """The name of a bundle: sha256 of its bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def pack_bundle(
    instruction: str,
    samples: Sequence[Sample],
    *,
    size: int,
    max_text_tokens: int | None = None,
) -> bytes:
    """The bytes of a bundle; the same policy always gives the same bytes.

    Raises:
        BundleError: If a picture is not uint8 [size, size, 3].
    """
    for number, sample in enumerate(samples):
        if sample.pixels.shape != (size, size, 3) or sample.pixels.dtype != np.uint8:
            raise BundleError(f"sample {number}: the picture is not uint8 [{size}, {size}, 3]")
    pictures = [sample.pixels for sample in samples]
    pixels = np.stack(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)
    policy = {
        "version": VERSION,
        "instruction": instruction,
        "samples": [{"text": sample.text, "answer": sample.answer} for sample in samples],
        "max_text_tokens": max_text_tokens,
    }
    text = json.dumps(policy, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return bytes(save({"pixels": np.ascontiguousarray(pixels)}, metadata={"policy": text}))


def unpack_bundle(data: bytes, *, size: int) -> Bundle:
    """The policy in a bundle's bytes.

    Args:
        data: What a client sent.
        size: S of the model that serves.

    Raises:
        BundleError: If the bytes are no bundle for this model.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{len(data)} bytes are more than {MAX_BYTES}")
    try:
        (tensor,) = (view for name, view in deserialize(data) if name == "pixels")
        length = int.from_bytes(data[:8], "little")
        policy = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["policy"])
        samples = tuple((str(s["text"]), s["answer"]) for s in policy["samples"])
        instruction, limit = policy["instruction"], policy["max_text_tokens"]
        version = policy["version"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise BundleError(f"not a policy bundle: {exc}") from exc
    shape = (len(samples), size, size, 3)
    if version != VERSION or tensor["dtype"] != "U8" or tuple(tensor["shape"]) != shape:
        raise BundleError(f"version {version}, pictures {tensor['shape']}: wanted 1, {shape}")
    answers_fit = all(isinstance(answer, bool) for _, answer in samples)
    limit_fits = limit is None or (type(limit) is int and limit > 0)
    if not isinstance(instruction, str) or not answers_fit or not limit_fits:
        raise BundleError("instruction, answers or max_text_tokens have another type")
    pixels = np.frombuffer(tensor["data"], np.uint8).reshape(shape)
    return Bundle(instruction, samples, pixels, limit)
