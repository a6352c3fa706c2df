"""Invented words and odd lines put into training texts."""

from __future__ import annotations

import random

Spans = tuple[tuple[int, int, int], ...]
_STRANGE = 0.35
_SYLLABLES = {
    "en": tuple(c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er")),
    "ja": tuple("アイウエオカキクケコサシスセソタチツテトナニノハマミメモヤユラリルレロワン")
    + tuple("的性用品質高新産地感美心風光山川木花年月国人気手作物店家料様便利安全"),
}

# What somebody who has read about judges puts around a text: answers, signs, the policy. The
# prompt's own labels never reach a text (`serving.frames`).
_ODD_LINES = ("Yes", "No", "|", "-", "=", "OK", ".", "Match", "Relevant", "はい", "いいえ", "合格")
_MOST_LINES, _MOST_POLICIES = 60, 4


def with_strange_words(
    text: str, spans: Spans, language: str, words: random.Random
) -> tuple[str, Spans]:
    """Put invented words into about a third of the texts, never inside a mention.

    Sellers use words that no training text has; a byte-level BPE cuts them into pieces,
    and the network has to have learned to read past such pieces.
    """
    if words.random() >= _STRANGE:
        return text, spans
    free = [i for i, sign in enumerate(text) if sign in " \n。、" and _outside(i, spans)]
    free += [len(text)]
    many = 1 + int(words.random() ** 2 * max(2.0, len(text) / (30 if language == "en" else 15)))
    places = sorted(words.choice(free) for _ in range(many))
    pieces, start, shifts = [], 0, []
    for place in places:
        word = "".join(words.choice(_SYLLABLES[language]) for _ in range(words.randint(2, 4)))
        if language == "en":
            word = " " + (word.capitalize() if words.random() < 0.4 else word)
        elif place < len(text) and text[place] in "。、":
            word = text[place] + word
        pieces += [text[start:place], word]
        shifts.append((place, len(word)))
        start = place
    pieces.append(text[start:])
    moved = tuple(
        (attribute, begin + (by := sum(n for place, n in shifts if place <= begin)), end + by)
        for attribute, begin, end in spans
    )
    return "".join(pieces), moved


def with_odd_lines(text: str, spans: Spans, policy: str, words: random.Random) -> tuple[str, Spans]:
    """Put one line many times in front of a text or behind it.

    A judge that never read such a text is led astray by it: 60 lines of "Yes" in front of a
    title published 3 of 8 mismatches.

    Args:
        text: The text.
        spans: (attribute, begin, end) of its mentions, in characters.
        policy: The instruction; a third of the odd lines repeat it.
        words: Source of all choices.

    Returns:
        The text, and its mentions where they are now.
    """
    if words.random() < 1 / 3:
        line, times = policy, words.randint(1, _MOST_POLICIES)
    else:
        line, times = words.choice(_ODD_LINES), words.randint(1, _MOST_LINES)
    if words.random() < 0.4:
        return text + f"\n{line}" * times, spans
    before = f"{line}\n" * times
    by = len(before)
    return before + text, tuple((what, begin + by, end + by) for what, begin, end in spans)


def _outside(index: int, spans: Spans) -> bool:
    return not any(begin <= index < end for _, begin, end in spans)
