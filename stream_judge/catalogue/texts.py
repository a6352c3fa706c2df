"""Listings of drawn products in English and Japanese, in five forms.

A listing claims a category, a colour, a count and a pattern, each at least once and every
time the same; what it says about other products is worded so that a reader cannot take it
for the product's own. Frames, filler words and brands belong to one split each.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from stream_judge.catalogue.attributes import Product
from stream_judge.catalogue.noun_phrases import CATEGORY, COUNT
from stream_judge.catalogue.phrases import PLAIN, Frame, Piece, capitalised, joined, pick, shuffled
from stream_judge.catalogue.sentences import Chance, Sentences, sentences, told_together
from stream_judge.catalogue.titles import write_title

FORMS = ("title", "bullets", "paragraphs", "long", "spec")
Pieces = list[Piece]
_ALL = frozenset(range(4))
_COUNT_ALONE = frozenset({COUNT})
_BLANK: Piece = (" ", PLAIN)
#: (form, English?) -> fewest and most words, in Japanese characters, of a description.
_LENGTHS = {
    ("paragraphs", True): (40, 66),
    ("paragraphs", False): (100, 170),
    ("long", True): (150, 370),
    ("long", False): (350, 740),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a shop says about a product.

    Attributes:
        title: One line.
        bullets: Short lines; empty in forms without.
        description: Paragraphs joined by newlines; empty in forms without.
        specifications: (key, value) pairs; empty in forms without.
        text: All of it as it is judged: title, bullets, description, "key: value" lines.
        spans: (attribute index, start, end) in characters of `text`, for every mention of
            the product's own four values, in order of place.
    """

    title: str
    bullets: tuple[str, ...]
    description: str
    specifications: tuple[tuple[str, str], ...]
    text: str
    spans: tuple[tuple[int, int, int], ...]


class _Text:
    """Lines that are added one by one, and where the mentions are in them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.spans: list[tuple[int, int, int]] = []
        self._position = 0

    def add(self, pieces: Pieces) -> str:
        line = joined(pieces, self._position, self.spans)
        self.lines.append(line)
        self._position += len(line) + 1
        return line


def write_listing(
    product: Product,
    form: str,
    language: str,
    rng: random.Random,
    *,
    split: str = "train",
    unsaid: frozenset[int] | frozenset[str] = frozenset(),
) -> Listing:
    """A listing that claims the product's four attributes.

    Args:
        product: What the listing claims.
        form: One of `FORMS`.
        language: "en" or "ja".
        rng: Source of all choices; the same state gives the same listing.
        split: Whose frames and filler words are used: "train", "dev" or "test".
        unsaid: Attributes (indices or names) that the listing does not mention.

    Raises:
        ValueError: If there is no such form, language or split.
    """
    writer = sentences(language, split).for_listing()
    chance = rng.random
    told = _ALL
    if unsaid:
        names = {"category": 0, "colour": 1, "count": 2, "pattern": 3}
        told -= {names[a] if isinstance(a, str) else a for a in unsaid}
    if form not in FORMS:
        raise ValueError(f"no form {form!r}")
    in_title = told if form == "title" else _title_share(told, chance)
    text = _Text()
    title = text.add(write_title(writer, split, product, in_title, chance))
    bullets: tuple[str, ...] = ()
    description = ""
    specifications: tuple[tuple[str, str], ...] = ()
    if form == "bullets":
        lines = _bullets(writer, product, told, in_title, chance)
        bullets = tuple([text.add(line) for line in lines])
    elif form == "spec":
        specifications = _specifications(writer, product, told, in_title, chance, text)
    elif form != "title":
        paragraphs = _paragraphs(writer, product, form, told, in_title, chance)
        description = "\n".join([text.add(line) for line in paragraphs])
    return Listing(
        title, bullets, description, specifications, "\n".join(text.lines), tuple(text.spans)
    )


def _title_share(told: frozenset[int], chance: Chance) -> frozenset[int]:
    """Attributes a title tells when more text follows: mostly the category, some others."""
    if chance() < 0.2:
        return told
    return frozenset(a for a in sorted(told) if chance() < (0.85 if a == CATEGORY else 0.45))


def _repeated(
    told: frozenset[int], said: frozenset[int], share: float, chance: Chance
) -> frozenset[int]:
    """What is still to tell, and some of what was told already."""
    return frozenset(a for a in sorted(told) if a not in said or chance() < share)


def _bullets(
    writer: Sentences, product: Product, told: frozenset[int], said: frozenset[int], chance: Chance
) -> list[Pieces]:
    lines: list[Pieces] = []
    language = "en" if writer.english else "ja"
    stop = chance() < 0.3
    for group in told_together(product, _repeated(told, said, 0.25, chance), language, chance):
        if len(group) > 1:
            lines.append(_unstopped(writer.phrase(product, group, chance), stop))
        else:
            lines.append(capitalised(writer.bullet(product, min(group), chance)))
    most = 3 + int(chance() * 4)
    if chance() < 0.3 and len(lines) < 6:
        other = writer.other(pick(writer.distractors, chance), product, chance)
        lines.append(_unstopped(other, stop))
    frames = _without_repeats(writer.neutral, max(most - len(lines), 0), chance)
    lines += [_unstopped(writer.other(frame, product, chance), stop) for frame in frames]
    return shuffled(lines[:6], chance)


def _unstopped(pieces: Pieces, stop: bool) -> Pieces:
    """Bullets mostly end without a full stop."""
    text, attribute = pieces[-1]
    if not stop and text[-1:] in (".", "。"):
        pieces[-1] = (text[:-1], attribute)
    return pieces


def _paragraphs(
    writer: Sentences,
    product: Product,
    form: str,
    told: frozenset[int],
    said: frozenset[int],
    chance: Chance,
) -> list[Pieces]:
    fewest, most = _LENGTHS[form, writer.english]
    wanted = fewest + chance() * (most - fewest)
    language = "en" if writer.english else "ja"
    long = form == "long"
    own = [
        writer.single(product, min(group), chance)
        if group == _COUNT_ALONE or (len(group) == 1 and chance() < 0.75)
        else writer.phrase(product, group, chance)
        for group in _groups(product, told, said, language, long, chance)
    ]
    others = _others(writer, product, long, chance)
    size = sum(_size(pieces, writer.english) for pieces in own + others)
    # A frame may come again with other words when a small split runs out of new ones.
    for frame in _without_repeats(writer.neutral, len(writer.neutral), chance) * 3:
        if size >= wanted:
            break
        others.append(writer.other(frame, product, chance))
        size += _size(others[-1], writer.english)
    body = _interleaved(own, others, chance)
    return _in_paragraphs(body, writer.english, long, chance)


def _groups(
    product: Product,
    told: frozenset[int],
    said: frozenset[int],
    language: str,
    long: bool,
    chance: Chance,
) -> list[frozenset[int]]:
    groups = told_together(product, _repeated(told, said, 0.4, chance), language, chance)
    if long and chance() < 0.6:
        again = _repeated(told, told, 0.4, chance)
        groups += told_together(product, again, language, chance)
    return [
        group if len(group) == 1 or COUNT in group or CATEGORY not in told else group | {CATEGORY}
        for group in groups
    ]


def _others(writer: Sentences, product: Product, long: bool, chance: Chance) -> list[Pieces]:
    """Sentences about other products: several in long texts, rarely one in short ones."""
    number = int(chance() * 5) if long else int(chance() < 0.3)
    frames = _without_repeats(writer.distractors, number, chance)
    return [writer.other(frame, product, chance) for frame in frames]


def _interleaved(own: list[Pieces], others: list[Pieces], chance: Chance) -> list[Pieces]:
    """Anything anywhere, but mostly the product first."""
    if own and chance() < 0.6:
        return [own[0], *shuffled(own[1:] + others, chance)]
    return shuffled(own + others, chance)


def _in_paragraphs(body: list[Pieces], english: bool, long: bool, chance: Chance) -> list[Pieces]:
    paragraphs = (3 + int(chance() * 4)) if long else (2 + int(chance() * 2))
    per = max(-(-len(body) // paragraphs), 1)
    lines: list[Pieces] = []
    for start in range(0, len(body), per):
        line: Pieces = []
        for pieces in body[start : start + per]:
            if line and english:
                line.append(_BLANK)
            line += pieces
        lines.append(line)
    return lines


def _size(pieces: Pieces, english: bool) -> int:
    text = "".join([piece[0] for piece in pieces])
    return text.count(" ") + 1 if english else len(text)


def _without_repeats(frames: tuple[Frame, ...], number: int, chance: Chance) -> list[Frame]:
    """Up to `number` different frames."""
    if number <= 0:
        return []
    if number * 3 > len(frames):
        return shuffled(frames, chance)[:number]
    chosen: dict[int, Frame] = {}
    while len(chosen) < number:
        index = int(chance() * len(frames))
        chosen[index] = frames[index]
    return list(chosen.values())


def _specifications(
    writer: Sentences,
    product: Product,
    told: frozenset[int],
    said: frozenset[int],
    chance: Chance,
    text: _Text,
) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, Pieces]] = []
    for attribute in sorted(_repeated(told, said, 0.75, chance)):
        key = pick(writer.keys[attribute], chance)
        value: Pieces = [(writer.value(product, attribute, chance), attribute)]
        pairs.append((key, capitalised(value) if chance() < 0.5 else value))
    wanted = 15 + int(chance() * 6)
    keys = {key for key, _ in pairs}
    for key, frame in shuffled(writer.spec_lines, chance):
        if len(pairs) >= wanted:
            break
        if key not in keys:
            keys.add(key)
            pairs.append((key, writer.other(frame, product, chance)))
    result = []
    for key, pieces in shuffled(pairs, chance):
        lead = key + ": "
        line = text.add([(lead, PLAIN), *pieces])
        result.append((key, line[len(lead) :]))
    return tuple(result)
