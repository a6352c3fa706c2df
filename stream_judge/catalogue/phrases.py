"""Frames compiled to pieces, and pieces put together with the places of what they tell.

A piece is (text, attribute index or `PLAIN`). Listings are built as lists of pieces, so
that the position of every mention is known without searching for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Piece = tuple[str, int]
#: (literal text, slot name) pairs; the slot comes after the text, "" = none.
Frame = tuple[tuple[str, str], ...]
PLAIN = -1
T = TypeVar("T")


def lines(text: str) -> tuple[str, ...]:
    """The lines of a block that are not empty."""
    return tuple(line for line in text.strip().split("\n") if line)


def compiled(text: str) -> Frame:
    """The frame of a template with `{slot}`s."""
    parts = []
    for chunk in text.split("}"):
        literal, _, slot = chunk.partition("{")
        if literal or slot:
            parts.append((literal, slot))
    return tuple(parts)


def compiled_all(texts: Iterable[str]) -> tuple[Frame, ...]:
    """`compiled` of each template."""
    return tuple(compiled(text) for text in texts)


def pick(options: Sequence[T], chance: Callable[[], float]) -> T:
    """One of the options, evenly; several times faster than `Random.choice`."""
    return options[int(chance() * len(options))]


def shuffled(options: Iterable[T], chance: Callable[[], float]) -> list[T]:
    """The options in random order; faster than `Random.shuffle` on short lists."""
    rest = list(options)
    for i in range(len(rest) - 1, 0, -1):
        j = int(chance() * (i + 1))
        rest[i], rest[j] = rest[j], rest[i]
    return rest


def joined(pieces: Sequence[Piece], offset: int, spans: list[tuple[int, int, int]]) -> str:
    """The text of the pieces; mentions are added to `spans`, shifted by `offset`."""
    position = offset
    for text, attribute in pieces:
        end = position + len(text)
        if attribute >= 0:
            spans.append((attribute, position, end))
        position = end
    return "".join([piece[0] for piece in pieces])


def capitalised(pieces: list[Piece]) -> list[Piece]:
    """The pieces with the first letter in upper case (in place)."""
    for i, (text, attribute) in enumerate(pieces):
        if text:
            pieces[i] = (text[0].upper() + text[1:], attribute)
            break
    return pieces


_title_cache: dict[str, str] = {}


def title_case(text: str) -> str:
    """Every word with an upper-case first letter, "of" and the like left alone."""
    known = _title_cache.get(text)
    if known is None:
        small = {"of", "in", "with", "for", "by", "the", "from", "a"}
        words = (w if w in small else w[:1].upper() + w[1:] for w in text.split(" "))
        known = _title_cache[text] = " ".join(words)
    return known
