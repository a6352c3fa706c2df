from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from stream_judge.catalogue import wording_lexicon_en as lexicon

MAKERS = {
    "side": lexicon.side_clause,
    "only": lexicon.only_clause,
    "rest": lexicon.rest_clause,
}
SLOTS = {"Xa", "Xo", "Xs", "Xes", "Xis"}


def _made(make: Callable[[bool, Callable[[], float]], str], counts: bool) -> set[str]:
    rng = random.Random(7)
    return {make(counts, rng.random) for _ in range(4000)}


@pytest.mark.parametrize("name", MAKERS)
def test_no_clause_says_both(name: str) -> None:
    counts, free = (_made(MAKERS[name], side) for side in (True, False))
    assert not counts & free
    assert min(len(counts), len(free)) >= (80 if name == "rest" else 1000)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_clauses_are_complete(name: str, counts: bool) -> None:
    for clause in _made(MAKERS[name], counts):
        slots = re.findall(r"\{(\w+)\}", clause)
        assert set(slots) <= SLOTS, clause
        assert len([slot for slot in slots if slot in ("Xa", "Xo")]) == (name != "rest"), clause


def test_words_of_the_two_sides_are_different() -> None:
    for words, same, turned in lexicon._FAMILIES:
        assert not set(words[0]) & set(words[1])
        assert not set(same) & set(turned)


@pytest.mark.parametrize(
    ("make", "clause", "counts"),
    [
        (lexicon.side_clause, "do not ignore the {Xo}", True),
        (lexicon.side_clause, "ignore the {Xa}", False),
        (lexicon.side_clause, "never check the {Xo}", False),
        (lexicon.side_clause, "the {Xa} {Xis} not trivial", True),
        (lexicon.only_clause, "check everything but the {Xa}", False),
        (lexicon.only_clause, "ignore everything but the {Xa}", True),
        (lexicon.rest_clause, "ignore the rest", False),
    ],
)
def test_a_negation_turns_the_word_round(
    make: Callable[[bool, Callable[[], float]], str], clause: str, counts: bool
) -> None:
    rng = random.Random(11)
    made = {side: {make(side, rng.random) for _ in range(30_000)} for side in (True, False)}
    assert clause in made[counts]
    assert clause not in made[not counts]
