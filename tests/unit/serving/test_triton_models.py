"""What Triton's arguments come to: models of its python backend without a server."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime as ort
import pytest

from stream_judge.serving import decoder, manifest
from stream_judge.serving.sessions import open_session

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def arguments(folder: Path, kind: str, device: str) -> dict[str, str]:
    return {
        "model_config": json.dumps({"parameters": {"cache_entries": {"string_value": "7"}}}),
        "model_repository": str(folder / "language_decoder"),
        "model_version": "1",
        "model_instance_kind": kind,
        "model_instance_device_id": device,
    }


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Providers of the sessions that were opened, on a machine with GPUs."""
    found: list[Any] = []

    class Session:
        def __init__(self, path: str, options: Any, *, providers: Any) -> None:
            found.append(providers)

        def get_inputs(self) -> list[Any]:
            return []

        get_outputs = get_inputs

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "Other", CPU])
    monkeypatch.setattr(ort, "InferenceSession", Session)
    return found


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model's module, imported as Triton does."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("stub"))
    monkeypatch.setitem(sys.modules, "serving", ModuleType("serving"))
    monkeypatch.setitem(sys.modules, "serving.decoder", decoder)
    monkeypatch.setitem(sys.modules, "serving.manifest", manifest)
    monkeypatch.delitem(sys.modules, f"stream_judge.serving.{name}", raising=False)
    return importlib.import_module(f"stream_judge.serving.{name}").TritonPythonModel()


def test_a_session_is_opened_on_its_gpu(opened: list[Any]) -> None:
    open_session(Path("model.onnx"))
    open_session(Path("model.onnx"), device=3)
    assert [providers[0] for providers in opened] == [
        (CUDA, {"device_id": 0}),
        (CUDA, {"device_id": 3}),
    ]
    assert {providers[1][0] for providers in opened} == {CPU}


@pytest.mark.parametrize(("kind", "device"), [("GPU", 2), ("CPU", 0)])
def test_the_decoder_of_each_gpu_runs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, device: int
) -> None:
    model, made = load("triton_decoder", monkeypatch), []
    monkeypatch.setattr(
        sys.modules[type(model).__module__],
        "LanguageDecoder",
        lambda folder, vision, options: made.append(options),
    )
    (tmp_path / "manifest.json").write_text("{}")
    model.initialize(arguments(tmp_path, kind, "2"))
    assert made == [decoder.DecoderOptions(cache_entries=7, device=device)]


@pytest.mark.parametrize(("kind", "device"), [("GPU", 2), ("CPU", 0)])
def test_our_onnxruntime_backend_runs_on_each_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Any], kind: str, device: int
) -> None:
    load("triton_onnxruntime", monkeypatch).initialize(arguments(tmp_path, kind, "2"))
    assert opened == [[(CUDA, {"device_id": device}), (CPU, {})]]
