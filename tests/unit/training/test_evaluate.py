from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_judge.training.evaluate import FORMS, SHOTS, Pool, evaluate

KEYS = [
    "pairs",
    "overall",
    "precision",
    "recall",
    "auc",
    "by_form",
    "by_language",
    "by_attribute",
    "policy_flip",
    "unseen_wording",
    "random_picture",
    "samples",
]
POOL = Pool(
    np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8),
    np.random.default_rng(1).integers(0, 3, (30, 4)).astype(np.int8),
)


class Always:
    """Says the same to everything, and remembers what it was asked."""

    def __init__(self, score: float) -> None:
        self.said = score
        self.asked: list[tuple[bytes, bytes, str]] = []

    def score(
        self, bundle: bytes, pixels: NDArray[np.uint8], texts: Sequence[str]
    ) -> NDArray[np.float64]:
        self.asked += [(bundle, p.tobytes(), t) for p, t in zip(pixels, texts, strict=True)]
        return np.full(len(texts), self.said)


def run(score: float, seed: int = 0) -> tuple[dict[str, object], Always]:
    scorer = Always(score)
    figures = evaluate(scorer, POOL, pairs=160, episodes=40, seed=seed, say=lambda _: None)
    return figures, scorer


def test_one_who_always_says_yes_is_right_half_of_the_time() -> None:
    figures, _ = run(0.9)
    assert list(figures) == KEYS
    assert figures["pairs"] == 160
    for name in ("overall", "precision", "auc", "random_picture"):
        assert figures[name] == pytest.approx(0.5), name
    assert figures["recall"] == 1.0
    # The same pair has to be Yes under one policy and No under the other.
    assert figures["policy_flip"] == 0.0
    by_form = figures["by_form"]
    assert isinstance(by_form, dict)
    assert list(by_form) == list(FORMS)
    assert set(by_form.values()) == {0.5}


class Guesses(Always):
    """Looks at the policy alone: the less counts, the likelier a match."""

    def score(
        self, bundle: bytes, pixels: NDArray[np.uint8], texts: Sequence[str]
    ) -> NDArray[np.float64]:
        return np.full(len(texts), 0.9 if bundle.count(b"#") < 3 else 0.1)


def test_one_who_reads_the_policy_alone_is_right_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_sign_for_each(counts: frozenset[int], *_: object, **__: object) -> str:
        return "#" * len(counts)

    monkeypatch.setattr("stream_judge.training.evaluate.write_instruction", one_sign_for_each)
    figures = evaluate(Guesses(0.0), POOL, pairs=4000, episodes=40, seed=0, say=lambda _: None)
    assert figures["overall"] == pytest.approx(0.5, abs=0.02)
    assert figures["recall"] > 0.1


def test_one_who_always_says_no_finds_nothing() -> None:
    figures, _ = run(0.1)
    assert figures["recall"] == 0.0
    assert figures["by_attribute"] == pytest.approx(
        dict.fromkeys(("category", "colour", "count", "pattern"), 0.68), abs=0.15
    )


def test_samples_are_measured_with_the_ideal_observer_beside_them() -> None:
    figures, _ = run(0.9)
    samples = figures["samples"]
    assert isinstance(samples, dict)
    assert list(samples) == [str(shots) for shots in SHOTS]
    assert samples["0"]["covered"] is None
    assert samples["8"]["ideal"] > samples["0"]["ideal"]
    for row in samples.values():
        assert row["named"] == row["hidden"] == row["contradicted"]


def test_a_seed_is_a_held_out_set() -> None:
    def digest(seed: int) -> str:
        return hashlib.sha256(repr(run(0.9, seed)[1].asked).encode()).hexdigest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


def test_what_is_chosen_by_shares_nothing_with_the_held_out_set() -> None:
    test, dev = Always(0.9), Always(0.9)
    for scorer, split in ((test, "test"), (dev, "dev")):
        figures = evaluate(
            scorer, POOL, pairs=160, episodes=40, seed=0, split=split, say=lambda _: None
        )
        assert ("unseen_wording" in figures) == (split == "test")
    for part in (0, 2):  # policies, texts
        assert not {asked[part] for asked in test.asked} & {asked[part] for asked in dev.asked}
