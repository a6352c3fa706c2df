"""`language_decoder/1/model.py`: the decoder as a model of Triton's python backend."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Triton imports this file alone; its package lies beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving.decoder import DecoderOptions, LanguageDecoder, Result, Row
from serving.manifest import manifest_digest


class TritonPythonModel:
    """Collects the rows of all requests of one execution and judges them together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load graphs, tokenizer and prompt; a failure keeps the model from being ready."""
        config = json.loads(args["model_config"])
        given = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        numbers = {k: int(given[k]) for k in DecoderOptions.__slots__ if k in given}
        folder = Path(args["model_repository"]) / args["model_version"]
        repository = Path(args["model_repository"]).parent
        vision = repository / "vision_encoder" / "1" / "model.onnx"
        if args["model_instance_kind"] == "GPU":
            # Triton starts an instance on every GPU; each must open its own.
            numbers["device"] = int(args["model_instance_device_id"])
        self._digest = manifest_digest(repository).encode()
        self._decoder = LanguageDecoder(folder, vision, DecoderOptions(**numbers))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, with as many rows as the request had."""
        rows: list[Row] = []
        sizes = []
        for request in requests:
            columns = [
                pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in ("image_embeddings", "text", "policy")
            ]
            sizes.append(len(columns[0]))
            rows += [
                Row(embeddings, bytes(text[0]), bytes(policy[0]))
                for embeddings, text, policy in zip(*columns, strict=True)
            ]
        results = self._decoder.judge(rows)
        responses = []
        for size in sizes:
            responses.append(self._respond(results[:size]))
            results = results[size:]
        return responses

    def _respond(self, results: list[Result]) -> Any:
        n = len(results)
        outputs = {
            "raw_score": np.array([[r.raw_score] for r in results], np.float32),
            "logits": np.array([r.logits for r in results], np.float32),
            "answer_mass": np.array([[r.answer_mass] for r in results], np.float32),
            "tokens": np.array([r.tokens for r in results], np.int32),
            "model": np.array([[self._digest]] * n, np.object_),
            "status": np.array([[r.status.encode()] for r in results], np.object_),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(k, v) for k, v in outputs.items()])
