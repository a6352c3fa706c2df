"""`stream-judge export`: checkpoint in, model repository out, or nothing at all."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stream_judge.errors import ExportError
from stream_judge.export.checkpoint import (
    Preprocessing,
    check_model_type,
    read_json,
    read_preprocessing,
    read_prompt,
    resolve,
)
from stream_judge.serving.decoder import manifest_digest

Say = Callable[[str], None]
DType = Literal["fp32", "fp16"]
# The traced graphs, their converted copies and the repository exist at the same time.
_DISK_FACTOR = 4


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made.

    Attributes:
        out: The repository.
        digest: Its manifest's sha256, as verdicts name the model.
        bytes: Size of all files.
        difference: Largest difference of a logit to transformers, or None without verify.
    """

    out: Path
    digest: str
    bytes: int
    difference: float | None


def export_checkpoint(
    checkpoint: str | Path,
    out: Path,
    *,
    dtype: DType = "fp16",
    verify: bool = False,
    say: Say = lambda _: None,
) -> ExportReport:
    """Turn a `LlavaForConditionalGeneration` checkpoint into a Triton model repository.

    The same checkpoint gives the same files. `out` appears whole or not at all; an
    existing repository there is replaced only after the new one is complete.

    Args:
        checkpoint: Local folder or hub id.
        out: Folder of the repository.
        dtype: How weights are stored; computation is float32 either way.
        verify: Compare with transformers on prompts of several kinds.
        say: Receives progress lines.

    Raises:
        ExportError: Unsupported model, missing files, no disk, or a difference above
            tolerance.
    """
    folder = resolve(checkpoint)
    check_model_type(folder)
    preprocessing = read_preprocessing(folder)
    read_prompt(folder)
    if out.exists() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise ExportError(f"{out} holds something that is no model repository; choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(folder, out.parent)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        root = Path(scratch) / "repository"
        model = _load(folder)
        _write(model, folder, preprocessing, root, Path(scratch), dtype, say)
        difference = None
        if verify:
            from stream_judge.export.verify import largest_difference

            say("comparing with transformers")
            difference = largest_difference(model, folder, root, preprocessing)
            limit = 1e-3
            say(f"largest difference of a logit: {difference:.2e} (limit {limit:.0e})")
            if not difference <= limit:
                raise ExportError(f"differs from transformers by {difference:.2e} > {limit:.0e}")
        _replace(root, out)
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    say(f"{out}: {len(files)} files, {size / 1e6:.1f} MB")
    return ExportReport(out, manifest_digest(out), size, difference)


def _check_disk(folder: Path, parent: Path) -> None:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(parent).free
    if free < _DISK_FACTOR * weights:
        wanted = _DISK_FACTOR * weights / 1e9
        raise ExportError(f"{parent}: {free / 1e9:.1f} GB free, export needs {wanted:.1f} GB")


def _load(folder: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import LlavaForConditionalGeneration

    try:
        model = LlavaForConditionalGeneration.from_pretrained(
            folder, torch_dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise ExportError(f"{folder.name}: weights cannot be loaded: {exc}") from exc
    return model.eval()


def _write(
    model: Any,
    folder: Path,
    preprocessing: Preprocessing,
    root: Path,
    scratch: Path,
    dtype: DType,
    say: Say,
) -> None:
    from stream_judge.export.repository import write_repository
    from stream_judge.export.storage import WeightFile, embed_half

    say("tracing graphs")
    traced = scratch / "traced"
    picture_tokens = _trace(model, preprocessing, traced)
    say(f"storing weights as {dtype}")
    vision, decoder = root / "vision_encoder/1", root / "language_decoder/1"
    vision.mkdir(parents=True)
    decoder.mkdir(parents=True)
    _move_graph(traced / "vision_encoder.onnx", vision / "model.onnx")
    if dtype == "fp16":
        embed_half(vision / "model.onnx")
    weights = WeightFile(decoder / "decoder.onnx_data", half=dtype == "fp16")
    for name in ("prefix", "verdict"):
        _move_graph(traced / f"{name}.onnx", decoder / f"{name}.onnx")
        weights.adopt(decoder / f"{name}.onnx")
    weights.close()
    shutil.copyfile(folder / "tokenizer.json", decoder / "tokenizer.json")
    content, template = read_prompt(folder)
    from stream_judge.export.repository import _json

    (decoder / "prompt.json").write_text(_json(content), encoding="utf-8")
    text = model.config.text_config
    identity = read_json(folder / "config.json")
    name = str(identity.get("stream_judge_name") or folder.resolve().name)
    write_repository(
        root,
        preprocessing,
        name=name,
        version=str(identity.get("stream_judge_version", "1")),
        decoder={
            "picture_tokens": picture_tokens,
            "width": int(text.hidden_size),
            "image_size": preprocessing.size,
            "max_positions": int(text.max_position_embeddings),
            "max_text_tokens": template.max_text_tokens,
        },
    )


def _trace(model: Any, preprocessing: Preprocessing, traced: Path) -> int:
    """Trace the three graphs with Optimum, which validates each; returns picture tokens."""
    import torch
    from optimum.exporters.onnx import onnx_export_from_model

    from stream_judge.export.graphs import PrefixBuilder, VerdictDecoder, VisionEncoder
    from stream_judge.export.onnx_configs import PrefixConfig, VerdictConfig, VisionConfig

    vision = VisionEncoder(model, preprocessing.mean, preprocessing.std)
    size = preprocessing.size
    with torch.no_grad():
        sample = vision(torch.zeros(1, size, size, 3, dtype=torch.uint8))["image_embeddings"]
    facts = {
        "picture_tokens": int(sample.shape[1]),
        "image_token": int(model.config.image_token_index),
    }
    text = model.config.text_config
    # Optimum may change a submodel's attention in its shared config: one copy each.
    submodels = {
        "vision_encoder": vision,
        "prefix": PrefixBuilder(deepcopy(model)),
        "verdict": VerdictDecoder(deepcopy(model)),
    }
    configs = {
        "vision_encoder": VisionConfig(model.config.vision_config, **facts),
        "prefix": PrefixConfig(text, **facts),
        "verdict": VerdictConfig(text, **facts),
    }
    logging.getLogger("optimum").setLevel(logging.ERROR)
    onnx_export_from_model(
        model,
        traced,
        task="image-text-to-text",
        opset=18,
        custom_onnx_configs=configs,
        fn_get_submodels=lambda _: submodels,
    )
    return facts["picture_tokens"]


def _move_graph(source: Path, target: Path) -> None:
    import onnx

    # Loading takes external data in; the tracer's own data files stay behind.
    onnx.save(onnx.load(str(source)), str(target))


def _replace(root: Path, out: Path) -> None:
    if out.exists():
        former = root.parent / "former"
        out.rename(former)
    root.rename(out)
