"""What a checkpoint's image processor does, as far as the worker can do the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stream_judge.errors import ExportError

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_SQUARE = {"height": 224, "width": 224}
_CLIP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": _SQUARE}
# What a processor does where its file says nothing, as transformers has it.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "LlavaImageProcessor": _CLIP,
    "SiglipImageProcessor": {"size": _SQUARE, "do_center_crop": False},
}
_STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False}
_VALUES = {"resample": 3, "rescale_factor": 1 / 255}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pictures reach the vision encoder.

    Attributes:
        size: S, side of the square in pixels.
        resample: Name of the resampling filter.
        crop: `center` (shortest edge to S, then the middle) or `none` (straight to S x S).
        mean: Per channel, of values 0..1.
        std: Per channel, of values 0..1.
    """

    size: int
    resample: str
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_preprocessing(found: Mapping[str, Any]) -> Preprocessing:
    """The preparation that a parsed `preprocessor_config.json` describes.

    Raises:
        ExportError: If the processor does something that the worker does not.
    """
    settings = _settings(found)
    for step in ("do_resize", "do_rescale"):
        if not settings[step]:
            raise _refusal(f"{step} is off; the worker always does it")
    if settings["do_pad"]:
        raise _refusal("do_pad is on; the worker does not pad pictures")
    if not math.isclose(_number(settings, "rescale_factor"), 1 / 255, rel_tol=1e-9):
        raise _refusal("rescale_factor is not 1/255")
    resample = _RESAMPLING.get(int(_number(settings, "resample")))
    if resample is None:
        raise _refusal(f"resample {settings['resample']} is no filter of Pillow (0 to 5)")
    side, crop = _square(settings)
    if not settings["do_normalize"]:
        return Preprocessing(side, resample, crop, (0.0,) * 3, (1.0,) * 3)
    mean, std = (_channels(settings, name) for name in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise _refusal(f"image_std {list(std)} is not above 0")
    return Preprocessing(side, resample, crop, mean, std)


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    # transformers takes a file without a type for the processor of the model's own family.
    kind = str(found.get("image_processor_type", "LlavaImageProcessor")).removesuffix("Fast")
    if kind not in _PROCESSORS:
        raise _refusal(f"{kind} is not supported; wanted one of {', '.join(_PROCESSORS)}")
    # An empty value leaves the default; an empty step is one that is not done.
    given = {k: v for k, v in found.items() if v is not None or k.startswith("do_")}
    return {**_STEPS, **_VALUES, **_PROCESSORS[kind], **given}


def _square(settings: Mapping[str, Any]) -> tuple[int, str]:
    """Side and crop, if size and crop make a square in one of the worker's two ways."""
    size, crop = settings["size"], settings.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    if not settings["do_center_crop"]:
        crop = None
    if isinstance(size, Mapping):
        size = {name: length for name, length in size.items() if length is not None}
    side = next(iter(size.values()), None) if isinstance(size, dict) else None
    square = {"height": side, "width": side}
    if isinstance(side, int) and side > 0:
        if size == {"shortest_edge": side} and crop == square:
            return side, "center"
        # To cut a square to its own size changes nothing.
        if size == square and crop in (None, square):
            return side, "none"
    raise _refusal(
        f"size {size} with crop {crop}: the worker resizes the shortest edge to S and cuts the "
        "middle S x S, or resizes straight to S x S"
    )


def _channels(settings: Mapping[str, Any], name: str) -> tuple[float, ...]:
    value = settings.get(name)
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if not isinstance(values, list) or len(values) != 3:
        raise _refusal(f"{name} {value} is not one number per channel")
    return tuple(_number({name: v}, name) for v in values)


def _number(settings: Mapping[str, Any], name: str) -> float:
    value = settings[name]
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _refusal(f"{name} {value!r} is no number")
    return float(value)


def _refusal(message: str) -> ExportError:
    return ExportError(f"preprocessor_config.json: {message}")
