"""`stream-judge train eval`: held-out judgement of a model repository, without torch.

Drawings (full size, own seeds), sentence frames, distractors and phrasings are those of
the test split, which training and the choices made during it never saw. What is chosen
(a model, thresholds) is chosen on the dev split, which training never saw either.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_judge.catalogue.attributes import ATTRIBUTES, SIZES, Product
from stream_judge.catalogue.texts import write_listing
from stream_judge.catalogue.wording import write_instruction, write_sample_instruction
from stream_judge.serving.bundle import Sample, pack_bundle
from stream_judge.training.rules import ANSWERS, COUNTED, PRIOR, RULES, ideal_observer

FORMS = ("title", "bullets", "paragraphs", "long", "spec")
LANGUAGES = ("en", "ja")
SHOTS = (0, 1, 2, 4, 8)
#: The splits that can be judged, and whose phrasings are the unseen wording of each.
EVAL_SPLITS = {"test": "wild", "dev": None}
Say = Callable[[str], None]


class Scorer(Protocol):
    """What evaluation needs of a model repository."""

    def score(
        self, bundle: bytes, pixels: NDArray[np.uint8], texts: Sequence[str]
    ) -> NDArray[np.float64]:
        """Raw scores float64 [n] of n pictures uint8 [n, S, S, 3] with their texts."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """Held-out drawings.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        attributes: int8 [N, 4].
    """

    pixels: NDArray[np.uint8]
    attributes: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class _Pair:
    picture: int
    text: str
    form: str
    language: str
    differs: int | None
    rule: int
    relevant: bool


def evaluate(
    scorer: Scorer,
    pool: Pool,
    *,
    pairs: int,
    episodes: int,
    seed: int,
    say: Say,
    split: str = "test",
) -> dict[str, Any]:
    """All figures as one JSON-ready dict; its keys are a contract, see docs/model-card.md.

    Args:
        scorer: The repository under test.
        pool: Held-out drawings.
        pairs: Pairs of picture and text for the main figures.
        episodes: Episodes for each cell of the samples table; also pairs for the
            policy-flip and unseen-wording figures.
        seed: Another seed is another held-out set over the same splits.
        say: Receives progress lines.
        split: One of `EVAL_SPLITS`; that of the pool. The dev split has no unseen wording.
    """
    exam = _Exam(scorer, pool, random.Random(f"eval/{seed}"), split)
    say(f"judging {pairs} pairs")
    main = [exam.pair(i) for i in range(pairs)]
    scores = np.array([exam.score(pair, split) for pair in main])
    truth = np.array([pair.relevant for pair in main])
    said = scores > 0.5
    hits = said == truth
    result: dict[str, Any] = {
        "pairs": pairs,
        "overall": _round(hits.mean()),
        "precision": _round(truth[said].mean() if said.any() else 0.0),
        "recall": _round(said[truth].mean()),
        "auc": _round(_auc(scores, truth)),
        "by_form": _by(hits, [pair.form for pair in main]),
        "by_language": _by(hits, [pair.language for pair in main]),
        "by_attribute": _by(
            hits, [None if p.differs is None else ATTRIBUTES[p.differs] for p in main]
        ),
    }
    say("policy flips, unseen wordings, random pictures")
    result["policy_flip"] = _round(np.mean([exam.flip(i) for i in range(episodes)]))
    if (unseen := EVAL_SPLITS[split]) is not None:
        wild = [exam.pair(i) for i in range(episodes)]
        result["unseen_wording"] = _round(
            np.mean([(exam.score(pair, unseen) > 0.5) == pair.relevant for pair in wild])
        )
    result["random_picture"] = _round(
        np.mean([(exam.score(p, split, other=True) > 0.5) == p.relevant for p in main])
    )
    result["samples"] = {}
    for shots in SHOTS:
        say(f"{shots} samples, {episodes} episodes")
        result["samples"][str(shots)] = exam.samples(shots, episodes)
    return result


class _Exam:
    def __init__(self, scorer: Scorer, pool: Pool, rng: random.Random, split: str) -> None:
        self._scorer = scorer
        self._pool = pool
        self._rng = rng
        self._split = split

    def pair(self, i: int) -> _Pair:
        """Pair i: forms, languages and attributes in turn, half of the truths Yes.

        Policies are drawn alike for both truths: knowing the policy and the text alone, one
        cannot do better than one half. Of the relevant pairs two thirds differ in an
        attribute that the policy tells to ignore, where it ignores any.
        """
        relevant = i // 10 % 2 == 0
        form, language = FORMS[i % 5], LANGUAGES[i // 5 % 2]
        attribute = i // 20 % 4
        while not COUNTED[rule := self._rule(), attribute]:
            pass
        differs: int | None = attribute
        if relevant:
            ignored = [a for a in range(4) if not COUNTED[rule, a]]
            differs = self._rng.choice(ignored) if ignored and i // 80 % 3 else None
        picture, text = self._listing(differs, form, language)
        return _Pair(picture, text, form, language, differs, rule, relevant)

    def score(self, pair: _Pair, split: str, *, other: bool = False) -> float:
        counts = frozenset(RULES[pair.rule])
        instruction = write_instruction(counts, pair.language, self._rng, split=split)
        picture = self._rng.randrange(len(self._pool.pixels)) if other else pair.picture
        return self._judge(instruction, [], picture, pair.text)

    def flip(self, i: int) -> bool:
        """Is the same pair judged right under a rule that counts its difference, and one not."""
        attribute, language = i % 4, LANGUAGES[i // 4 % 2]
        picture, text = self._listing(attribute, FORMS[i // 8 % 5], language)
        right = True
        for counted in (True, False):
            while COUNTED[rule := self._rule(), attribute] != counted:
                pass
            pair = _Pair(picture, text, "", language, attribute, rule, not counted)
            right &= (self.score(pair, self._split) > 0.5) == pair.relevant
        return right

    def samples(self, shots: int, episodes: int) -> dict[str, float | None]:
        """One row of the samples table."""
        hits: dict[str, list[float]] = defaultdict(list)
        for _ in range(episodes):
            self._episode(shots, hits)
        cells = ("hidden", "ideal", "covered", "named", "contradicted")
        return {name: _round(np.mean(hits[name])) if hits[name] else None for name in cells}

    def _episode(self, shots: int, hits: dict[str, list[float]]) -> None:
        language = self._rng.choice(LANGUAGES)
        rule = self._rule()
        drawn = [self._difference() for _ in range(shots + 1)]
        listings = [self._listing(differs, "title", language) for differs in drawn]
        masks = np.array([[0 if d is None else 1 << d for d in drawn]])
        answers = ANSWERS[rule][masks]
        ideal = ideal_observer(masks, answers)[0, shots]
        truth = bool(answers[0, shots])
        picture, text = listings[-1]
        hidden = write_sample_instruction(language, self._rng, split=self._split)
        named = write_instruction(frozenset(RULES[rule]), language, self._rng, split=self._split)

        def right(instruction: str, shown: NDArray[np.bool_]) -> float:
            samples = list(zip(listings[:-1], shown[0, :shots], strict=True))
            return float((self._judge(instruction, samples, picture, text) > 0.5) == truth)

        under_hidden = right(hidden, answers)
        hits["hidden"].append(under_hidden)
        tie = abs(ideal - 0.5) < 1e-9
        hits["ideal"].append(0.5 if tie else float((ideal > 0.5) == truth))
        if drawn[-1] is not None and drawn[-1] in drawn[:-1]:
            hits["covered"].append(under_hidden)
        hits["named"].append(right(named, answers))
        hits["contradicted"].append(right(named, ~answers))

    def _judge(
        self,
        instruction: str,
        samples: list[tuple[tuple[int, str], np.bool_]],
        picture: int,
        text: str,
    ) -> float:
        bundle = pack_bundle(
            instruction,
            [
                Sample(self._pool.pixels[index], told, bool(answer))
                for (index, told), answer in samples
            ],
            size=self._pool.pixels.shape[1],
        )
        return float(self._scorer.score(bundle, self._pool.pixels[picture][None], [text])[0])

    def _rule(self) -> int:
        return self._rng.choices(range(len(RULES)), weights=PRIOR.tolist())[0]

    def _difference(self) -> int | None:
        return None if self._rng.random() < 0.25 else self._rng.randrange(4)

    def _listing(self, differs: int | None, form: str, language: str) -> tuple[int, str]:
        picture = self._rng.randrange(len(self._pool.pixels))
        values = [int(value) for value in self._pool.attributes[picture]]
        if differs is not None:
            values[differs] = (values[differs] + self._rng.randrange(1, SIZES[differs])) % SIZES[
                differs
            ]
        listing = write_listing(Product(*values), form, language, self._rng, split=self._split)
        return picture, listing.text


def _by(hits: NDArray[np.bool_], groups: Sequence[str | None]) -> dict[str, float]:
    names: Iterator[str] = (name for name in dict.fromkeys(groups) if name is not None)
    labels = np.array([str(group) for group in groups])
    return {name: _round(hits[labels == name].mean()) for name in names}


def _auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: P(a relevant pair scores above another), ties a half."""
    order = np.argsort(scores, kind="stable")
    _, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = np.empty(len(scores))
    ranks[order] = ((last - counts + 1 + last) / 2)[inverse]
    positives = int(truth.sum())
    negatives = len(truth) - positives
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
