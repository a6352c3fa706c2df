from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install 'stream-judge[export]'")

from tokenizers import Tokenizer

from stream_judge import serving
from stream_judge.errors import ExportError
from stream_judge.export.exporter import export_checkpoint
from stream_judge.serving.bundle import Sample, digest_of, pack_bundle
from stream_judge.serving.decoder import STATUSES, DecoderOptions, LanguageDecoder, Row
from stream_judge.training.tokenizer import train_tokenizer

_spec = importlib.util.spec_from_file_location(
    "checkpoints", Path(__file__).with_name("checkpoints.py")
)
assert _spec is not None and _spec.loader is not None
checkpoints = importlib.util.module_from_spec(_spec)
sys.modules["checkpoints"] = checkpoints
_spec.loader.exec_module(checkpoints)

SHAPES = {
    "multi-head": {},
    "grouped-query": {"kv_heads": 2},
    "larger pictures, one inner layer": {"image_size": 48, "feature_layer": -2},
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
    report = export_checkpoint(checkpoint, tmp_path / "out", dtype="fp32", verify=True)
    assert report.difference is not None
    assert report.difference < 1e-4


def test_the_same_checkpoint_gives_the_same_files(
    words: Tokenizer, repository: Path, tmp_path: Path
) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "tiny", words)
    again = export_checkpoint(checkpoint, tmp_path / "again", dtype="fp16").out
    assert (again / "manifest.json").read_bytes() == (repository / "manifest.json").read_bytes()


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
        "text_too_long": Row(good[0].embeddings, b"x", long_policy),
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


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda p: (p / "config.json").unlink(), "config.json"),
        (lambda p: (p / "model.safetensors").unlink(), "safetensors"),
        (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda p: (p / "preprocessor_config.json").unlink(), "preprocessor"),
        (lambda p: (p / "config.json").write_text("{"), "config.json"),
        (lambda p: (p / "config.json").write_text('{"model_type": "bert"}'), "bert"),
        (lambda p: (p / "model.safetensors").write_bytes(b"x"), "weights"),
        (lambda p: (p / "prompt.json").write_text("{}"), "prompt.json"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(
    words: Tokenizer, tmp_path: Path, break_it: object, said: str
) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    break_it(checkpoint)  # type: ignore[operator]
    with pytest.raises(ExportError, match=said):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


def test_a_folder_that_is_no_repository_is_not_replaced(words: Tokenizer, tmp_path: Path) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="no model repository"):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_decoder_that_computes_otherwise_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    checkpoint = checkpoints.write_checkpoint(tmp_path / "made", words)
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["model_type"] = "gemma"
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match="gemma"):
        export_checkpoint(checkpoint, tmp_path / "out")
