"""ONNX Runtime sessions as the server opens them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort


def open_session(path: Path, *, threads: int = 1, device: int = 0) -> ort.InferenceSession:
    """A session on the GPU where ONNX Runtime has one, else on the CPU.

    Args:
        path: An ONNX file; its external data lies beside it.
        threads: Intra-op threads on the CPU. Several requests share the cores, so few
            threads each give more in all.
        device: Number of the GPU.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the cores from the other model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = {"CUDAExecutionProvider": {"device_id": device}, "CPUExecutionProvider": {}}
    available = ort.get_available_providers()
    providers = [(name, wanted[name]) for name in wanted if name in available]
    return ort.InferenceSession(str(path), options, providers=providers)
