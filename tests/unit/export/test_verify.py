from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

from stream_judge.errors import ExportError
from stream_judge.export import verify
from stream_judge.resources import resource
from stream_judge.serving.bundle import unpack_bundle
from stream_judge.serving.decoder import Result, Row

DECODER = resource("model_repo") / "language_decoder/1"
SIZE = 8
Answer = Callable[[int], Result]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[int]]:
    """Compare with a repository that answers by the number of samples; prompts' lengths.

    The graphs are stood in for: a context that is too short for three pictures takes a model
    of some size.
    """

    class Decoder:
        picture_tokens = 16
        answer: Answer

        def __init__(self, *_: object) -> None:
            pass

        def judge(self, rows: Sequence[Row]) -> list[Result]:
            shown = unpack_bundle(rows[0].policy, size=SIZE).samples
            return [Decoder.answer(len(shown)) for _ in rows]

    lengths = []

    def theirs(model: object, ids: list[int], *_: object) -> Any:
        lengths.append(len(ids))
        return np.zeros(10_000)

    def check(answer: Answer) -> list[int]:
        Decoder.answer = staticmethod(answer)
        assert verify.largest_difference(None, source, tmp_path) == pytest.approx(0.25)
        return lengths

    (tmp_path / "language_decoder/1").mkdir(parents=True)
    shutil.copy(DECODER / "prompt.json", tmp_path / "language_decoder/1")
    source: Any = SimpleNamespace(folder=DECODER, preprocessing=SimpleNamespace(size=SIZE))
    vision = SimpleNamespace(run=lambda _, feeds: (np.zeros((len(feeds["pixels"]), 16, 4)),))
    monkeypatch.setattr(verify, "open_session", lambda _: vision)
    monkeypatch.setattr(verify, "LanguageDecoder", Decoder)
    monkeypatch.setattr(verify, "_transformers", theirs)
    return check


def good(tokens: int = 500) -> Result:
    return Result(logits=(0.25, -0.125), tokens=(tokens, 0))


def test_samples_that_do_not_fit_are_left_out(check: Callable[[Answer], list[int]]) -> None:
    lengths = check(lambda count: good() if count < 3 else Result("policy_too_long"))
    assert len(lengths) == 2 * len(verify._TEXTS)


def test_texts_are_compared_as_far_as_they_were_read(
    check: Callable[[Answer], list[int]],
) -> None:
    whole = list(check(lambda _: good()))
    cut = check(lambda _: good(2))[len(whole) :]
    assert len(set(cut[:4])) == 1 < len(set(whole[:4]))


@pytest.mark.parametrize("status", ["policy_too_long", "internal"])
def test_a_prompt_that_is_not_judged_is_said(
    check: Callable[[Answer], list[int]], status: str
) -> None:
    with pytest.raises(ExportError, match=f"answers a prompt of --verify with {status}"):
        check(lambda _: Result(status))
