"""The model repository around the graphs: configurations, code, manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from stream_judge import serving
from stream_judge.export.checkpoint import Checkpoint
from stream_judge.serving.decoder import DecoderOptions

MAX_BATCH = 32
# Policies that stay resident, of 4,096 tokens each: six pictures of LLaVA-1.5 with their
# texts. Eight of the longest would be hundreds of GB with models that read 128 k tokens.
_RESIDENT_POLICIES = 8
_POLICY_TOKENS = 4096
_TYPES = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.INT64: "TYPE_INT64",
}
_SERVING = Path(serving.__file__).parent
#: Of `stream_judge.serving`, what the decoder's model folder needs beside its model.py.
_MODULES = ("__init__", "bundle", "decoder", "frames", "manifest", "prefixes", "prompt", "sessions")
_DECODER_OUTPUTS = (
    ("raw_score", "TYPE_FP32", [1]),
    ("logits", "TYPE_FP32", [2]),
    ("answer_mass", "TYPE_FP32", [1]),
    ("tokens", "TYPE_INT32", [2]),
    ("model", "TYPE_STRING", [1]),
    ("status", "TYPE_STRING", [1]),
)
_TEXT_INPUTS = (("text", "TYPE_STRING", [1]), ("policy", "TYPE_STRING", [1]))
_Tensor = tuple[str, str, list[int]]


def write_repository(root: Path, source: Checkpoint, *, picture_tokens: int) -> None:
    """Write all but the graphs, which lie in their places already.

    Args:
        root: The repository, with `vision_encoder/1/model.onnx` and the decoder's graphs.
        source: The checkpoint that the graphs come from.
        picture_tokens: Embeddings that a picture becomes.
    """
    text, preprocessing = source.config.text_config, source.preprocessing
    graph = onnx.load(str(root / "vision_encoder/1/model.onnx"), load_external_data=False).graph
    pixels = [_tensor(value) for value in graph.input]
    # The tracer leaves the projector's output sizes open; the decoder's facts close them.
    sizes = [picture_tokens, int(text.hidden_size)]
    embeddings = [(name, kind, sizes) for name, kind, _ in map(_tensor, graph.output)]
    threads = {"intra_op_thread_count": 1, "inter_op_thread_count": 1}
    _config(root, "vision_encoder", "onnxruntime", pixels, embeddings, threads)
    inputs = [*embeddings, *_TEXT_INPUTS]
    bounds = {"threads": 1, "cache_bytes": cache_bytes(text)}
    _config(root, "language_decoder", "python", inputs, list(_DECODER_OUTPUTS), bounds)
    _decoder_files(root / "language_decoder/1", source, picture_tokens)
    parameters = {
        "image_size": preprocessing.size,
        "resample": preprocessing.resample,
        "crop": preprocessing.crop,
        "picture_tokens": picture_tokens,
        "max_text_tokens": source.prompt["max_text_tokens"],
        "model_name": source.name,
        "model_version": source.version,
    }
    _ensemble(root, pixels, embeddings, parameters)
    write_manifest(root, name=source.name, version=source.version)


def cache_bytes(text: Any) -> int:
    """Memory for resident prefixes that a decoder of this configuration needs.

    Room for 8 policies of 4,096 tokens, or of all that the model reads if that is less; for
    one of the longest at least.

    Args:
        text: The `text_config` of a LLaVA.
    """
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    # A key and a value, float32, in every layer.
    per_token = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * head_size
    longest = text.max_position_embeddings
    tokens = max(_RESIDENT_POLICIES * min(longest, _POLICY_TOKENS), longest)
    return max(int(per_token * tokens), DecoderOptions().cache_bytes)


def _decoder_files(folder: Path, source: Checkpoint, picture_tokens: int) -> None:
    shutil.copyfile(source.folder / "tokenizer.json", folder / "tokenizer.json")
    (folder / "prompt.json").write_text(_json(source.prompt), encoding="utf-8")
    shutil.copyfile(_SERVING / "triton_decoder.py", folder / "model.py")
    (folder / "serving").mkdir()
    for module in _MODULES:
        shutil.copyfile(_SERVING / f"{module}.py", folder / "serving" / f"{module}.py")
    text = source.config.text_config
    facts = {
        "picture_tokens": picture_tokens,
        "width": int(text.hidden_size),
        "image_size": source.preprocessing.size,
        "max_positions": int(text.max_position_embeddings),
    }
    (folder / "decoder.json").write_text(_json(facts), encoding="utf-8")


def write_manifest(root: Path, *, name: str, version: str) -> None:
    """List every file with its sha256; the manifest's own digest names the model."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    digests = {path.relative_to(root).as_posix(): _digest(path) for path in files}
    manifest = {"format": 1, "name": name, "version": version, "files": digests}
    (root / "manifest.json").write_text(_json(manifest), encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _tensor(value: onnx.ValueInfoProto) -> _Tensor:
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim][1:]
    return value.name, _TYPES[kind.elem_type], dims


def _block(title: str, tensors: list[_Tensor]) -> str:
    lines = [
        f'  {{ name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ] }}'
        for name, kind, dims in tensors
    ]
    return f"{title} [\n" + ",\n".join(lines) + "\n]\n"


def _parameters(values: Mapping[str, Any]) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value: {{ string_value: {_quoted(value)} }} }}\n'
        for key, value in values.items()
    )


def _quoted(value: object) -> str:
    # Names come with the checkpoint; protobuf's text format escapes as JSON does.
    return json.dumps(str(value), ensure_ascii=False)


def _config(
    root: Path,
    name: str,
    backend: str,
    inputs: list[_Tensor],
    outputs: list[_Tensor],
    parameters: Mapping[str, Any],
) -> None:
    text = (
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {MAX_BATCH}\n'
        + _block("input", inputs)
        + _block("output", outputs)
        + "dynamic_batching { max_queue_delay_microseconds: 1000 }\n"
        # One on a CPU, and one on each GPU, with weights and prefixes of its own. `gpus`
        # would bind it to one, but without GPUs Triton refuses a configuration that has it.
        + "instance_group [ { kind: KIND_AUTO count: 1 } ]\n"
        + _parameters(parameters)
    )
    (root / name / "config.pbtxt").write_text(text, encoding="utf-8")


def _ensemble(
    root: Path, pixels: list[_Tensor], embeddings: list[_Tensor], parameters: Mapping[str, Any]
) -> None:
    def maps(kind: str, names: list[str]) -> str:
        return "".join(f'      {kind}_map {{ key: "{n}" value: "{n}" }}\n' for n in names)

    def step(model: str, inputs: list[str], outputs: list[str]) -> str:
        body = maps("input", inputs) + maps("output", outputs)
        return f'    {{\n      model_name: "{model}"\n      model_version: -1\n{body}    }}'

    pixel_names, embedding_names = [t[0] for t in pixels], [t[0] for t in embeddings]
    text_names, output_names = [t[0] for t in _TEXT_INPUTS], [t[0] for t in _DECODER_OUTPUTS]
    steps = ",\n".join(
        (
            step("vision_encoder", pixel_names, embedding_names),
            step("language_decoder", embedding_names + text_names, output_names),
        )
    )
    text = (
        f'name: "relevance_judge"\nplatform: "ensemble"\nmax_batch_size: {MAX_BATCH}\n'
        + _block("input", [*pixels, *_TEXT_INPUTS])
        + _block("output", list(_DECODER_OUTPUTS))
        + f"ensemble_scheduling {{\n  step [\n{steps}\n  ]\n}}\n"
        + _parameters(parameters)
    )
    folder = root / "relevance_judge"
    (folder / "1").mkdir(parents=True)
    # Triton wants the version's folder; git keeps no empty one.
    (folder / "1" / ".gitkeep").write_bytes(b"")
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
