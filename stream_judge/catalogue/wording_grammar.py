"""Policy instructions put together from clauses: far more phrasings than whole frames give.

Only what training reads is made here. The held-out splits have whole frames of their own
(`wording_en`, `wording_ja`), so that what is measured is reading, not recall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType

from stream_judge.catalogue import wording_lexicon_en, wording_parts_en, wording_parts_ja
from stream_judge.catalogue.phrases import Frame, compiled, pick
from stream_judge.catalogue.phrasings import phrasings

_PARTS: Mapping[str, ModuleType] = {"en": wording_parts_en, "ja": wording_parts_ja}
Chance = Callable[[], float]
#: Gives a clause of a kind, such as "COUNTS".
Clause = Callable[[str], str]
# Share of pairs of clauses in which one says what it says with an invented word.
_NONCE = 0.35
# Share of English clauses that are a construction with a word instead of a whole clause.
_LEXICAL = 0.35


def compose_frame(
    kind: str, language: str, chance: Chance, *, simple: bool = False, late: bool = False
) -> Frame:
    """A frame in the manner of `wording_en`'s.

    Args:
        kind: "POSITIVE", "NEGATIVE", "BOTH" or "ALL".
        language: "en" or "ja".
        chance: Source of all choices, uniform in [0, 1).
        simple: From the few plain clauses alone, to begin with.
        late: From the further writers' clauses too, to end with.
    """
    parts = _PARTS[language]

    def clause(name: str) -> str:
        if simple:
            plain: str = pick(getattr(parts, name), chance)
            return plain
        return _clause(language, name, chance, late)

    return compiled(_WAYS[kind](parts, clause, chance) + parts.END)


def _positive(parts: ModuleType, clause: Clause, chance: Chance) -> str:
    way = chance()
    if way < 0.5:
        return _side(clause("ONLY_COUNTS"), "in")
    if way < 0.55:
        return f"{pick(parts.COUNTS_LABELS, chance)}{parts.COLON}{{in}}"
    named = _side(clause("COUNTS"), "in")
    return _pair(named, clause("REST_FREE"), parts, chance)


def _negative(parts: ModuleType, clause: Clause, chance: Chance) -> str:
    way = chance()
    if way < 0.4:
        return _side(clause("ONLY_FREE"), "out")
    named = _side(clause("FREE"), "out")
    if way < 0.6:
        return named
    return _pair(named, clause("REST_COUNTS"), parts, chance)


def _both(parts: ModuleType, clause: Clause, chance: Chance) -> str:
    if chance() < 0.15:
        counts = f"{pick(parts.COUNTS_LABELS, chance)}{parts.COLON}{{in}}"
        free = f"{pick(parts.FREE_LABELS, chance)}{parts.COLON}{{out}}"
        first, second = (counts, free) if chance() < 0.5 else (free, counts)
        joint: str = pick(parts.LABEL_JOINTS, chance)
        return first + joint + second
    counts = _side(clause("COUNTS"), "in")
    return _pair(counts, _side(clause("FREE"), "out"), parts, chance)


def _all(parts: ModuleType, clause: Clause, chance: Chance) -> str:
    way = chance()
    if way < 0.4:
        return _side(pick(parts.ALL_COUNT, chance), "in")
    if way < 0.5:
        label, joint = pick(parts.COUNTS_LABELS, chance), pick(parts.LABEL_JOINTS, chance)
        none = f"{pick(parts.FREE_LABELS, chance)}{parts.COLON}{pick(parts.NONE, chance)}"
        return f"{label}{parts.COLON}{{in}}{joint}{none}"
    named = _side(clause("COUNTS"), "in")
    if way < 0.75:
        return named
    return _pair(named, pick(parts.ALL_COUNT, chance), parts, chance)


def _clause(language: str, name: str, chance: Chance, late: bool) -> str:
    if language == "en" and chance() < _LEXICAL:
        return _LEXICON[name](chance)
    return pick(_clauses(language, name, late), chance)


@cache
def _clauses(language: str, name: str, late: bool) -> tuple[str, ...]:
    splits = ("train", "late") if late else ("train",)
    more = [line for split in splits for line in phrasings(language, split).get(name, ())]
    return (*getattr(_PARTS[language], name), *more)


def _side(clause: str, side: str) -> str:
    """The clause with X on one side; its slots become those of `wording_en`."""
    return clause.replace("{X", "{" + side)


def _pair(first: str, second: str, parts: ModuleType, chance: Chance) -> str:
    way = chance()
    if way < _NONCE:
        # Whoever reads a word for the first time infers it from the other clause.
        if "{" in first and way < 0.7 * _NONCE:
            first = _with_nonce(first, parts, chance)
        elif "{" in second:
            second = _with_nonce(second, parts, chance)
    if chance() < 0.5:
        first, second = second, first
    joint: str = pick(parts.JOINTS, chance)
    # A comma with "が" goes on after a statement only.
    if joint == "が、" and not first.endswith(("です", "ます", "ません")):
        joint = "。"
    if joint == ". ":
        second = second[:1].upper() + second[1:]
    return first + joint + second


def _with_nonce(clause: str, parts: ModuleType, chance: Chance) -> str:
    """A clause on the same side whose verb or adjective is invented."""
    side = "in" if "{in" in clause else "out"
    word = "".join(pick(parts.SYLLABLES, chance) for _ in range(2 + int(chance() * 2)))
    return _side(pick(parts.NONCE, chance), side).replace("{nonce}", word)


_LEXICON: Mapping[str, Callable[[Chance], str]] = {
    "COUNTS": partial(wording_lexicon_en.side_clause, True),
    "FREE": partial(wording_lexicon_en.side_clause, False),
    "ONLY_COUNTS": partial(wording_lexicon_en.only_clause, True),
    "ONLY_FREE": partial(wording_lexicon_en.only_clause, False),
    "REST_COUNTS": partial(wording_lexicon_en.rest_clause, True),
    "REST_FREE": partial(wording_lexicon_en.rest_clause, False),
}
_WAYS: Mapping[str, Callable[[ModuleType, Clause, Chance], str]] = {
    "POSITIVE": _positive,
    "NEGATIVE": _negative,
    "BOTH": _both,
    "ALL": _all,
}
