"""A python-based `onnxruntime` backend for the Triton that the nvidia-pytriton wheel ships.

NVIDIA's container has the C++ backend of the same name; the repository is the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Runs `model.onnx` on the joined rows of all requests of one execution."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """The configuration as it is: `export` writes complete ones."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model; a failure keeps it from being ready."""
        config = json.loads(args["model_config"])
        given = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(given.get("intra_op_thread_count", "1"))
        options.inter_op_num_threads = int(given.get("inter_op_thread_count", "1"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        folder = Path(args["model_repository"]) / args["model_version"]
        name = config.get("default_model_filename") or "model.onnx"
        # Triton starts an instance on every GPU; each must open its own.
        device = int(args["model_instance_device_id"])
        device = device if args["model_instance_kind"] == "GPU" else 0
        wanted = {"CUDAExecutionProvider": {"device_id": device}, "CPUExecutionProvider": {}}
        available = ort.get_available_providers()
        providers = [(provider, wanted[provider]) for provider in wanted if provider in available]
        self._session = ort.InferenceSession(str(folder / name), options, providers=providers)
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, with as many rows as the request had."""
        feeds: dict[str, list[Any]] = {name: [] for name in self._inputs}
        sizes = []
        for request in requests:
            for name in self._inputs:
                tensor = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                feeds[name].append(tensor)
            sizes.append(len(tensor))
        joined = {name: np.concatenate(parts) for name, parts in feeds.items()}
        values = self._session.run(self._outputs, joined)
        responses = []
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            tensors = [
                pb_utils.Tensor(name, np.ascontiguousarray(value[part]))
                for name, value in zip(self._outputs, values, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            start += size
        return responses
