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
from stream_judge.export.checkpoint import Preprocessing

MAX_BATCH = 32
_TYPES = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.INT64: "TYPE_INT64",
}
_SERVING = Path(serving.__file__).parent
#: Of `stream_judge.serving`, what the decoder's model folder needs beside its model.py.
_MODULES = ("__init__", "bundle", "decoder", "prefixes", "prompt", "sessions")
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


def write_repository(
    root: Path, preprocessing: Preprocessing, *, name: str, version: str, decoder: dict[str, int]
) -> None:
    """Write all but the graphs, which lie in their places already.

    Args:
        root: The repository, with `vision_encoder/1/model.onnx` and the decoder's files.
        preprocessing: What the worker must do to pictures.
        name: The model's name, as verdicts show it.
        version: The model's version, as verdicts show it.
        decoder: picture_tokens, width, image_size, max_positions, max_text_tokens.
    """
    graph = onnx.load(str(root / "vision_encoder/1/model.onnx"), load_external_data=False).graph
    pixels = [_tensor(value) for value in graph.input]
    # The tracer leaves the projector's output sizes open; the decoder's facts close them.
    sizes = [decoder["picture_tokens"], decoder["width"]]
    embeddings = [(name, kind, sizes) for name, kind, _ in map(_tensor, graph.output)]
    threads = {"intra_op_thread_count": 1, "inter_op_thread_count": 1}
    _config(root, "vision_encoder", "onnxruntime", pixels, embeddings, threads)
    folder = root / "language_decoder/1"
    inputs = [*embeddings, *_TEXT_INPUTS]
    _config(root, "language_decoder", "python", inputs, list(_DECODER_OUTPUTS), {"threads": 1})
    shutil.copyfile(_SERVING / "triton_decoder.py", folder / "model.py")
    (folder / "serving").mkdir()
    for module in _MODULES:
        shutil.copyfile(_SERVING / f"{module}.py", folder / "serving" / f"{module}.py")
    (folder / "decoder.json").write_text(_json(decoder), encoding="utf-8")
    parameters = {
        "image_size": preprocessing.size,
        "resample": preprocessing.resample,
        "crop": preprocessing.crop,
        "picture_tokens": decoder["picture_tokens"],
        "max_text_tokens": decoder["max_text_tokens"],
        "model_name": name,
        "model_version": version,
    }
    _ensemble(root, pixels, embeddings, parameters)
    write_manifest(root, name=name, version=version)


def write_manifest(root: Path, *, name: str, version: str) -> None:
    """List every file with its sha256; the manifest's own digest names the model."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    digests = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    manifest = {"format": 1, "name": name, "version": version, "files": digests}
    (root / "manifest.json").write_text(_json(manifest), encoding="utf-8")


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
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'
        for key, value in values.items()
    )


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
        # One instance: a second would hold the weights and the prefixes twice.
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
