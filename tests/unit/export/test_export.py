from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

import onnx
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig

from stream_judge import serving
from stream_judge.errors import EnvironmentProblem, ExportError
from stream_judge.export import exporter
from stream_judge.export.exporter import DType, export_checkpoint
from stream_judge.export.repository import cache_bytes
from stream_judge.export.storage import WeightFile
from stream_judge.serving.bundle import Sample, digest_of, pack_bundle
from stream_judge.serving.decoder import STATUSES, DecoderOptions, LanguageDecoder, Row
from stream_judge.training.tokenizer import train_tokenizer

# Here and not among the settings of pytest, which would import torch for every run.
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

_spec = importlib.util.spec_from_file_location(
    "checkpoints", Path(__file__).with_name("checkpoints.py")
)
assert _spec is not None and _spec.loader is not None
checkpoints = importlib.util.module_from_spec(_spec)
sys.modules["checkpoints"] = checkpoints
_spec.loader.exec_module(checkpoints)

SHAPES = {
    "multi-head": {},
    "SigLIP, Qwen2, grouped-query": {
        "tower": "siglip",
        "strategy": "full",
        "decoder": "qwen2",
        "kv_heads": 2,
    },
    "larger pictures, one inner layer, half precision": {
        "image_size": 48,
        "feature_layer": -2,
        "half": True,
    },
    "several layers, class token kept": {"feature_layer": [0, -1], "strategy": "full"},
}
RNG = np.random.default_rng(5)


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    return train_tokenizer(500, seed=1, texts=60)


@pytest.fixture(scope="session")
def repository(words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    checkpoint = checkpoints.write_checkpoint(root / "tiny", words)
    return export_checkpoint(checkpoint, root / "repository", dtype="fp16").out


@pytest.fixture(scope="session")
def decoder(repository: Path) -> LanguageDecoder:
    vision = repository / "vision_encoder/1/model.onnx"
    return LanguageDecoder(repository / "language_decoder/1", vision, DecoderOptions())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_agrees_with_transformers(
    words: Tokenizer, tmp_path: Path, shape: dict[str, object]
) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words, **shape)
    # Stored as it was saved, a checkpoint loses nothing.
    dtype: DType = "fp16" if "half" in shape else "fp32"
    report = export_checkpoint(checkpoint, tmp_path / "out", dtype=dtype, verify=True)
    assert report.difference is not None
    assert report.difference < 1e-4


def test_graphs_whose_weights_lie_in_files_of_their_own_give_the_same_files(
    words: Tokenizer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Optimum does it by itself with more than 2 GB.
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")
    checkpoint = checkpoints.write_checkpoint(tmp_path / "tiny", words)
    again = export_checkpoint(checkpoint, tmp_path / "again", dtype="fp16").out
    assert (again / "manifest.json").read_bytes() == (repository / "manifest.json").read_bytes()


def test_no_graph_holds_weights(repository: Path) -> None:
    graphs = list(repository.rglob("*.onnx"))
    assert len(graphs) == 3
    for graph in graphs:
        inside = onnx.load(str(graph), load_external_data=False).graph.initializer
        large = [t for t in inside if not uses_external_data(t) and np.prod(t.dims) >= 1024]
        assert not [t.name for t in large if t.data_type != TensorProto.INT64]


def test_the_code_in_the_repository_is_the_code_here(repository: Path) -> None:
    source = Path(serving.__file__).parent
    copied = list((repository / "language_decoder/1/serving").glob("*.py"))
    assert len(copied) >= 5
    for path in copied:
        assert path.read_bytes() == (source / path.name).read_bytes()
    model = repository / "language_decoder/1/model.py"
    assert model.read_bytes() == (source / "triton_decoder.py").read_bytes()


def _rows(decoder: LanguageDecoder, count: int, policy: bytes) -> list[Row]:
    shape = (count, decoder.picture_tokens, decoder.width)
    embeddings = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    texts = [f"red mug {'and more ' * (i * 7 % 40)}{i}" for i in range(count)]
    return [Row(e, t.encode(), policy) for e, t in zip(embeddings, texts, strict=True)]


@pytest.fixture(scope="session")
def bundle(decoder: LanguageDecoder) -> bytes:
    side = decoder.image_size
    pixels = RNG.integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    samples = [Sample(pixels[0], "a red mug", True), Sample(pixels[1], "帽子 二つ", False)]
    return pack_bundle("Only the colour counts.", samples, size=side)


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_a_rows_score_does_not_depend_on_its_neighbours(
    decoder: LanguageDecoder, bundle: bytes, count: int
) -> None:
    rows = _rows(decoder, count, bundle)
    together = decoder.judge(rows)
    for row, result in zip(rows, together, strict=True):
        (alone,) = decoder.judge([row])
        assert alone.raw_score == pytest.approx(result.raw_score, abs=1e-4)
        assert alone.tokens == result.tokens
    scores = [result.raw_score for result in together]
    assert count == 1 or len(set(scores)) > 1


def test_an_unknown_policy_is_asked_for_then_resident(
    decoder: LanguageDecoder, repository: Path, bundle: bytes
) -> None:
    vision = repository / "vision_encoder/1/model.onnx"
    fresh = LanguageDecoder(repository / "language_decoder/1", vision, DecoderOptions())
    name = digest_of(bundle).encode()
    (row,) = _rows(fresh, 1, name)
    assert fresh.judge([row])[0].status == "policy_unknown"
    told = Row(row.embeddings, row.text, bundle)
    first, second = fresh.judge([told, row])
    assert (first.status, second.status) == ("ok", "ok")
    assert first.raw_score == pytest.approx(second.raw_score, abs=1e-6)


def test_bad_rows_leave_their_neighbours_alone(decoder: LanguageDecoder, bundle: bytes) -> None:
    good = _rows(decoder, 2, bundle)
    broken = good[0].embeddings * np.nan
    side = decoder.image_size
    long_policy = pack_bundle("word " * 3000, [], size=side)
    bad = {
        "text_empty": Row(good[0].embeddings, "\u200b".encode(), bundle),
        "bad_embeddings": Row(broken, b"x", bundle),
        "policy_unknown": Row(good[0].embeddings, b"x", b"0" * 64),
        "policy_invalid": Row(good[0].embeddings, b"x", b"nonsense"),
        "policy_too_long": Row(good[0].embeddings, b"x", long_policy),
    }
    assert set(bad) < set(STATUSES)
    results = decoder.judge([good[0], *bad.values(), good[1]])
    assert [result.status for result in results] == ["ok", *bad, "ok"]
    for row, result in ((good[0], results[0]), (good[1], results[-1])):
        assert decoder.judge([row])[0].raw_score == pytest.approx(result.raw_score, abs=1e-4)
    assert all(np.isnan(result.raw_score) for result in results[1:-1])


def test_bytes_that_are_no_utf8_are_judged_as_what_can_be_read(
    decoder: LanguageDecoder, bundle: bytes
) -> None:
    (row,) = _rows(decoder, 1, bundle)
    assert decoder.judge([Row(row.embeddings, b"mug \xff\xfe", bundle)])[0].status == "ok"


def rewrite(name: str, **changes: object) -> Callable[[Path], object]:
    """Something that changes a checkpoint's JSON file; None takes an entry away."""

    def change(checkpoint: Path) -> None:
        content: dict[str, Any] = json.loads((checkpoint / name).read_text())
        for place, value in changes.items():
            *way, last = place.split("__")
            at = content
            for step in way:
                at = at[step]
            at[last] = value
            if value is None:
                del at[last]
        (checkpoint / name).write_text(json.dumps(content))

    return change


def lose_a_weight(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights.pop("language_model.model.norm.weight")
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda p: (p / "config.json").unlink(), "config.json"),
        (lambda p: (p / "model.safetensors").unlink(), "safetensors"),
        (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda p: (p / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda p: (p / "preprocessor_config.json").unlink(), "preprocessor"),
        (lambda p: (p / "config.json").write_text("{"), "config.json"),
        (lambda p: (p / "config.json").write_text('{"model_type": "bert"}'), "bert"),
        (lambda p: (p / "model.safetensors").write_bytes(b"x"), "weights"),
        (lose_a_weight, "weights are missing: .*norm.weight"),
        (lambda p: (p / "prompt.json").write_text("{}"), "prompt.json"),
        (rewrite("prompt.json", bos="<|im_start|>"), r"no token '<\|im_start\|>'.*put a prompt"),
        (rewrite("prompt.json", negative=" Yes"), "begin with the same token.*put a prompt"),
        (rewrite("prompt.json", positive=""), "an answer is empty.*put a prompt"),
        (rewrite("prompt.json", image="</s>"), "has the id 2, but .* image_token_index 3"),
        (rewrite("config.json", image_token_index=7), "has the id 3, but .* image_token_index 7"),
        (rewrite("config.json", text_config__vocab_size=100), "only 100 embeddings"),
        (rewrite("config.json", vision_config__image_size=48), "32 pixels.*wants 48"),
        (rewrite("config.json", text_config__model_type="gemma"), "gemma"),
        (rewrite("preprocessor_config.json", image_mean=None), "image_mean"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(
    words: Tokenizer, tmp_path: Path, break_it: Callable[[Path], object], said: str
) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    break_it(checkpoint)
    with pytest.raises(ExportError, match=said):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A repository that works."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"format": 1, "files": {}}')
    return out


def test_a_full_disk_leaves_the_old_repository(
    words: Tokenizer, tmp_path: Path, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: WeightFile, values: object) -> tuple[int, int]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    monkeypatch.setattr(WeightFile, "_place", fail)
    with pytest.raises(EnvironmentProblem, match="no room left"):
        export_checkpoint(checkpoint, former)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]
    assert [path.name for path in former.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("difference", [1.1e-3, float("nan")])
def test_a_verify_that_fails_leaves_nothing_and_the_old_repository(
    words: Tokenizer,
    tmp_path: Path,
    former: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: float,
) -> None:
    # Its own comparison is tested with real graphs; here it finds too much in others.
    monkeypatch.setattr(exporter, "_write", lambda *args: args[2].mkdir())
    monkeypatch.setattr("stream_judge.export.verify.largest_difference", lambda *_: difference)
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    for out in (former, tmp_path / "new"):
        with pytest.raises(ExportError, match="differs from transformers by .*try --dtype fp32"):
            export_checkpoint(checkpoint, out, dtype="fp16", verify=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]
    assert [path.name for path in former.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(("dtype", "each"), [("fp16", 10), ("fp32", 12)])
def test_a_disk_that_is_too_small_is_said_before_anything_is_done(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, each: int
) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    # Its own numbers, and once more those of an embedding that may be the head, too.
    numbers = sum(t.size for t in load_file(checkpoint / "model.safetensors").values())
    wanted = each * (numbers + words.get_vocab_size() * 48)
    free = shutil.disk_usage(tmp_path)._replace(free=wanted - 1)
    monkeypatch.setattr(exporter.shutil, "disk_usage", lambda _: free)
    monkeypatch.setattr(exporter, "_load", None)
    with pytest.raises(ExportError, match="GB free, export needs"):
        export_checkpoint(checkpoint, tmp_path / "out", dtype=dtype)
    enough = free._replace(free=wanted)
    monkeypatch.setattr(exporter.shutil, "disk_usage", lambda _: enough)
    with pytest.raises(TypeError, match="NoneType"):
        export_checkpoint(checkpoint, tmp_path / "out", dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "mib"),
    [
        # One token of a 7B model: 1 MiB.
        ({"hidden_size": 4096, "max_position_embeddings": 4096}, 8 * 4096),
        ({"hidden_size": 4096, "max_position_embeddings": 2048}, 8 * 2048),
        ({"hidden_size": 4096, "num_key_value_heads": 8}, 8 * 4096 / 4),
        ({"hidden_size": 4096, "max_position_embeddings": 131_072}, 131_072),
        ({"hidden_size": 256, "num_hidden_layers": 4}, 512),
    ],
)
def test_prefixes_have_as_much_memory_as_the_model_needs(shape: dict[str, int], mib: float) -> None:
    rest = {"num_attention_heads": 32, "num_hidden_layers": 32, "max_position_embeddings": 4096}
    assert cache_bytes(LlamaConfig(**{**rest, **shape})) == mib * 1024 * 1024


def test_the_server_reads_the_memory_for_prefixes(repository: Path) -> None:
    config = (repository / "language_decoder/config.pbtxt").read_text()
    assert 'parameters { key: "cache_bytes" value: { string_value: "536870912" } }' in config
    assert "cache_bytes" in DecoderOptions.__slots__


def test_a_folder_that_is_no_repository_is_not_replaced(words: Tokenizer, tmp_path: Path) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="no model repository"):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
