"""The decoder around graphs that are stand-ins: what is asked of them, and what if they fail."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from stream_judge.serving import decoder as decoder_module
from stream_judge.serving.bundle import Sample, pack_bundle
from stream_judge.serving.decoder import DecoderOptions, LanguageDecoder, Row

SIZE, PICTURE_TOKENS, WIDTH, VOCABULARY = 4, 3, 2, 400
MakeDecoder = Callable[..., LanguageDecoder]


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class StubGraph:
    """Stands for all three graphs; the score grows with the first embedding of a row.

    Attributes:
        batches: Rows, query tokens and prefix tokens of each run of the verdict graph.
        poison: A batch with a row of this embedding raises.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []
        self.poison: float | None = None

    def get_inputs(self) -> list[Named]:
        return [Named("input_ids"), Named("prefix_keys")]

    def get_outputs(self) -> list[Named]:
        return [Named("keys")]

    def run(self, outputs: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
        if "pixels" in feeds:
            return [np.zeros((len(feeds["pixels"]), PICTURE_TOKENS, WIDTH), np.float32)]
        rows, tokens = feeds["input_ids"].shape
        if "prefix_keys" not in feeds:
            return [np.zeros((1, 1, tokens, 1), np.float32)]
        self.batches.append((rows, tokens, feeds["prefix_keys"].shape[2]))
        first = feeds["image_embeddings"][:, 0, 0]
        if self.poison is not None and self.poison in first:
            raise RuntimeError("the graph fails")
        return [first[:, None] * np.arange(VOCABULARY, dtype=np.float32)]


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> StubGraph:
    made = StubGraph()
    monkeypatch.setattr(decoder_module, "open_session", lambda path, **_: made)
    return made


@pytest.fixture
def make_decoder(
    graph: StubGraph, tokenizer: Tokenizer, template: dict[str, str | int], tmp_path: Path
) -> MakeDecoder:
    def make(*, max_positions: int = 4096, max_text_tokens: int = 200, **options: int) -> Any:
        shape = {
            "picture_tokens": PICTURE_TOKENS,
            "width": WIDTH,
            "image_size": SIZE,
            "max_positions": max_positions,
        }
        prompt = {**template, "max_text_tokens": max_text_tokens}
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "prompt.json").write_text(json.dumps(prompt))
        (tmp_path / "decoder.json").write_text(json.dumps(shape))
        return LanguageDecoder(tmp_path, tmp_path / "vision.onnx", DecoderOptions(**options))

    return make


def bundle(instruction: str = "Judge.", samples: int = 0, **limits: int) -> bytes:
    shown = [Sample(np.zeros((SIZE, SIZE, 3), np.uint8), "red mug", True)] * samples
    return pack_bundle(instruction, shown, size=SIZE, **limits)


def row(text: str, policy: bytes, value: float = 0.01) -> Row:
    return Row(np.full((PICTURE_TOKENS, WIDTH), value, np.float32), text.encode(), policy)


def test_a_row_that_fails_in_the_graph_fails_alone(
    make_decoder: MakeDecoder, graph: StubGraph, caplog: pytest.LogCaptureFixture
) -> None:
    graph.poison = 7.0
    decoder, policy = make_decoder(), bundle()
    values = [0.01, 0.02, 7.0, 0.03]
    with caplog.at_level(logging.ERROR):
        results = decoder.judge([row("red mug", policy, value) for value in values])
    assert [result.status for result in results] == ["ok", "ok", "internal", "ok"]
    assert np.isnan(results[2].raw_score)
    alone = [decoder.judge([row("red mug", policy, value)])[0] for value in (0.01, 0.03)]
    assert [results[0].raw_score, results[3].raw_score] == [one.raw_score for one in alone]
    assert "the graph fails" in caplog.text


def test_a_row_that_cannot_be_read_fails_alone(
    make_decoder: MakeDecoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decoder, policy = make_decoder(), bundle()
    read = decoder._prompt.read

    def broken(text: str) -> Any:
        if text == "bad":
            raise RecursionError
        return read(text)

    monkeypatch.setattr(decoder._prompt, "read", broken)
    results = decoder.judge([row(text, policy) for text in ("red", "bad", "mug")])
    assert [result.status for result in results] == ["ok", "internal", "ok"]
    assert "RecursionError" in caplog.text


def test_rows_of_one_text_share_its_tokens(
    make_decoder: MakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decoder()
    read, texts = decoder._prompt.read, []

    def counted(text: str) -> Any:
        texts.append(text)
        return read(text)

    rows = [row("red mug", bundle("One.")), row("red mug", bundle("Two.", max_text_tokens=1))]
    monkeypatch.setattr(decoder._prompt, "read", counted)
    results = decoder.judge([*rows, row("\u200b", bundle("One.")), rows[0]])
    assert texts.count("red mug") == 1
    assert [result.status for result in results] == ["ok", "ok", "text_empty", "ok"]
    assert results[0].tokens == results[3].tokens != results[1].tokens
    assert sum(results[0].tokens) == sum(results[1].tokens)


def test_a_batch_is_bounded_by_what_attention_takes(
    make_decoder: MakeDecoder, graph: StubGraph
) -> None:
    decoder = make_decoder(batch_attention=20_000)
    policy = bundle(samples=4)
    decoder.judge([row("red mug " * 8, policy) for _ in range(32)])
    (_, tokens, prefix) = graph.batches[0]
    assert sum(rows for rows, _, _ in graph.batches) == 32
    assert max(rows for rows, _, _ in graph.batches) == 20_000 // (tokens * (tokens + prefix)) > 1
    # A longer prefix leaves room for fewer rows.
    graph.batches.clear()
    decoder.judge([row("red mug " * 8, bundle(samples=8)) for _ in range(32)])
    assert len({prefix for _, _, prefix in graph.batches} - {prefix}) == 1
    assert max(rows for rows, _, _ in graph.batches) < 20_000 // (tokens * (tokens + prefix))


def test_a_row_over_the_bound_runs_alone(make_decoder: MakeDecoder, graph: StubGraph) -> None:
    decoder = make_decoder(batch_attention=1)
    results = decoder.judge([row("red mug", bundle()) for _ in range(3)])
    assert {result.status for result in results} == {"ok"}
    assert [rows for rows, _, _ in graph.batches] == [1, 1, 1]


@pytest.mark.parametrize(("rows", "tokens"), [(32, 40), (32, 250), (10, 789)])
def test_usual_batches_are_within_the_default(
    make_decoder: MakeDecoder, rows: int, tokens: int
) -> None:
    # Titles, listings, the longest texts; behind four samples of 80 words each.
    assert make_decoder()._fits(rows, tokens, 420)


def test_a_text_is_cut_to_what_the_policy_leaves(make_decoder: MakeDecoder) -> None:
    whole, tight = (
        make_decoder(max_text_tokens=100),
        make_decoder(max_positions=120, max_text_tokens=100),
    )
    text, policy = "red mug " * 60, bundle()
    (wide,), (narrow,) = whole.judge([row(text, policy)]), tight.judge([row(text, policy)])
    assert (wide.status, narrow.status) == ("ok", "ok")
    prefix = tight.register(policy)
    assert narrow.tokens[0] == prefix.max_text_tokens < wide.tokens[0] == 100
    assert prefix.length + tight._prompt.frame_tokens + narrow.tokens[0] == 120
    assert sum(narrow.tokens) == sum(wide.tokens)


def test_a_policy_that_leaves_no_room_is_to_blame_itself(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(max_positions=120)
    tight, over = bundle("red mug " * 35), bundle("red mug " * 200)
    results = decoder.judge([row("red", tight), row("red", over), row("red", bundle())])
    assert [result.status for result in results] == ["policy_too_long", "policy_too_long", "ok"]


def test_a_policy_that_reads_little_needs_little_room(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(max_positions=120)
    policy = bundle("red mug " * 35, max_text_tokens=5)
    (result,) = decoder.judge([row("red mug " * 20, policy)])
    assert (result.status, result.tokens[0]) == ("ok", 5)
