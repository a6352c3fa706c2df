from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

from transformers import LlamaConfig, MistralConfig, Qwen2Config

from stream_judge.errors import ExportError
from stream_judge.export import checkpoint as checkpoint_module
from stream_judge.export.checkpoint import check_decoder, check_model_type, read_checkpoint

KEPT = Path(__file__).parents[3] / "checkpoints/tiny-llava-re"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoint that ships, in a folder that can be written to."""
    folder = tmp_path / "made"
    folder.mkdir()
    for path in KEPT.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.safetensors").symlink_to(KEPT / "model.safetensors")
    return folder


def change(folder: Path, top: dict[str, Any], text: dict[str, Any] | None = None) -> None:
    """Change config.json and its text_config; None takes an entry away."""
    content = json.loads((folder / "config.json").read_text())
    content["text_config"] |= text or {}
    content["text_config"] = {k: v for k, v in content["text_config"].items() if v is not None}
    (folder / "config.json").write_text(json.dumps(content | top))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "mystery", "factor": 2.0}}, "rope type 'mystery'"),
        ({"model_type": "mistral"}, "sliding"),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding"),
        ({"rope_scaling": "dynamic"}, "transformers does not read it"),
    ],
)
def test_a_decoder_that_the_graphs_do_not_compute_is_refused(
    folder: Path, text: dict[str, Any], said: str
) -> None:
    change(folder, {}, text)
    with pytest.raises(ExportError, match=said):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        (LlamaConfig(rope_scaling={"type": "dynamic", "factor": 2.0}), "rope type 'dynamic'"),
        (MistralConfig(sliding_window=None, rope_scaling={"type": "dynamic"}), "type 'dynamic'"),
        (
            LlamaConfig(
                num_attention_heads=2,
                hidden_size=8,
                rope_scaling={
                    "rope_type": "longrope",
                    "factor": 2.0,
                    "short_factor": [1.0, 1.0],
                    "long_factor": [2.0, 2.0],
                },
            ),
            "rope type 'longrope'",
        ),
        (MistralConfig(), "sliding"),
        (Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=0), "sliding"),
    ],
    ids=["old key", "mistral", "longrope", "mistral's own window", "qwen2"],
)
def test_windows_and_rope_types_that_follow_the_length_are_refused(decoder: Any, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        check_decoder(decoder)


@pytest.mark.parametrize(
    "decoder",
    [
        LlamaConfig(),
        LlamaConfig(rope_scaling={"type": "linear", "factor": 2.0}),
        MistralConfig(sliding_window=None),
        # The file of every Qwen2 names a window, which is off.
        Qwen2Config(sliding_window=32768, max_window_layers=28),
        Qwen2Config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
    ],
    ids=["llama", "linear", "mistral", "qwen2", "yarn"],
)
def test_decoders_that_the_graphs_compute_are_taken(decoder: Any) -> None:
    check_decoder(decoder)


@pytest.mark.parametrize("decoder", ["llama", "mistral", "qwen2"])
def test_a_decoder_saved_by_transformers_5_is_refused(folder: Path, decoder: str) -> None:
    rotary = {"rope_type": "default", "rope_theta": 1e6}
    saved = {"model_type": decoder, "rope_parameters": rotary, "rope_theta": None}
    change(folder, {}, saved)
    with pytest.raises(ExportError, match=r"transformers 5 \(rope_parameters\).*write rope_theta"):
        check_model_type(folder)
    change(folder, {}, saved | {"rope_theta": 1e6})
    check_model_type(folder)


@pytest.mark.parametrize("text", [None, "llama", ["llama"]])
def test_a_decoder_that_is_not_described_is_refused(folder: Path, text: object) -> None:
    change(folder, {"text_config": text})
    with pytest.raises(ExportError, match="decoder None is not supported"):
        check_model_type(folder)


@pytest.mark.parametrize("inner", [False, True])
def test_quantised_weights_are_refused(folder: Path, inner: bool) -> None:
    quantised = {"quantization_config": {"quant_method": "bitsandbytes"}}
    change(folder, {} if inner else quantised, quantised if inner else {})
    with pytest.raises(ExportError, match="quantised weights are not supported"):
        check_model_type(folder)


def test_a_model_is_called_as_its_folder_is(folder: Path) -> None:
    assert read_checkpoint(folder).name == "made"


def test_a_model_of_the_hub_is_called_by_its_id(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "_download", lambda name: folder)
    assert read_checkpoint("owner/name").name == "owner/name"


def test_a_checkpoint_may_name_itself(folder: Path) -> None:
    change(folder, {"stream_judge_name": "red mugs", "stream_judge_version": 3})
    found = read_checkpoint(folder)
    assert (found.name, found.version) == ("red mugs", "3")
