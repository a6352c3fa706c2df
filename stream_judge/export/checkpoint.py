"""Reading a checkpoint: what must be there, and what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_judge.errors import ExportError
from stream_judge.serving.prompt import PromptTemplate

_NEEDED = ("config.json", "tokenizer.json", "preprocessor_config.json")
# Decoders that compute as Llama does: RMS norm, rotary positions, gated MLP, no window.
_DECODERS = ("llama", "mistral", "qwen2")
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
#: For checkpoints of the LLaVA-1.5 family that bring no prompt.json.
LLAVA_PROMPT: dict[str, str | int] = {
    "version": 1,
    "bos": "<s>",
    "image": "<image>",
    "before_instruction": "",
    "after_instruction": "\n",
    "before_image": "USER:",
    "after_image": "\n",
    "text_prefix": "",
    "after_text": "\nDoes the picture match the text? ASSISTANT:",
    "positive": "Yes",
    "negative": "No",
    "after_answer": "\n",
    "max_text_tokens": 768,
}


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


def resolve(checkpoint: str | Path) -> Path:
    """The checkpoint's folder: a local one, or a hub id's snapshot.

    Raises:
        ExportError: If it is neither, or files are missing in it.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = _download(str(checkpoint))
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ExportError(f"{checkpoint}: {', '.join(missing)} missing; a checkpoint needs them")
    return folder


def _download(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ExportError(f"{name}: no such folder, and not a hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise ExportError(f"{name}: no such folder, and the hub did not give it: {exc}") from exc


def check_model_type(folder: Path) -> None:
    """Refuse what the graphs cannot express.

    Raises:
        ExportError: If the model is no LLaVA with a Llama-like decoder and a CLIP tower.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    text = config.get("text_config", {}).get("model_type")
    if kind != "llava":
        raise ExportError(f"model type {kind!r} is not supported; wanted 'llava'")
    if text not in _DECODERS:
        raise ExportError(f"decoder {text!r} is not supported; wanted one of {_DECODERS}")
    if config["text_config"].get("sliding_window") and text == "mistral":
        raise ExportError("decoders with a sliding attention window are not supported")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `ExportError` if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ExportError(f"{path.name}: {exc}") from exc
    if not isinstance(content, dict):
        raise ExportError(f"{path.name}: not a JSON object")
    return content


def read_preprocessing(folder: Path) -> Preprocessing:
    """The processor's settings.

    Raises:
        ExportError: If the processor does something that the worker does not.
    """
    found = read_json(folder / "preprocessor_config.json")
    size = found.get("size", {})
    cropped = bool(found.get("do_center_crop", True))
    if isinstance(size, int):
        size = {"shortest_edge": size}
    side = size.get("shortest_edge") or size.get("height")
    crop = found.get("crop_size", side)
    side_after = (crop["height"] if isinstance(crop, Mapping) else crop) if cropped else side
    if side is None or side != side_after or size.get("height", side) != size.get("width", side):
        raise ExportError(f"preprocessor_config.json: size {size} with crop {crop} is no square")
    if found.get("rescale_factor", 1 / 255) != 1 / 255:
        raise ExportError("preprocessor_config.json: rescale_factor is not 1/255")
    resample = _RESAMPLING.get(int(found.get("resample", 3)), "bicubic")
    mean, std = (tuple(map(float, found[name])) for name in ("image_mean", "image_std"))
    straight = not cropped and "height" in size
    return Preprocessing(int(side), resample, "none" if straight else "center", mean, std)


def read_prompt(folder: Path) -> tuple[dict[str, object], PromptTemplate]:
    """`prompt.json` of the checkpoint, or the LLaVA-1.5 default."""
    path = folder / "prompt.json"
    content: dict[str, object] = read_json(path) if path.is_file() else dict(LLAVA_PROMPT)
    try:
        return content, PromptTemplate.from_mapping(content)
    except ValueError as exc:
        raise ExportError(str(exc)) from exc
