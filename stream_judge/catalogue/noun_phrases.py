"""Noun phrases that tell any subset of a product's attributes, in English and Japanese."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stream_judge.catalogue import words as en
from stream_judge.catalogue import words_ja as ja
from stream_judge.catalogue.attributes import Product
from stream_judge.catalogue.phrases import PLAIN, Piece, pick, shuffled

CATEGORY, COLOUR, COUNT, PATTERN = range(4)
Chance = Callable[[], float]
_VOWELS = frozenset("aeiouAEIOU")
#: Adjectives that say nothing about an attribute.
_PRAISE = ("lovely ", "handy ", "new ", "fine ", "sturdy ", "beautiful ", "simple ", "useful ")
_PRAISE_JA = ("すてきな", "便利な", "新しい", "丈夫な", "上質な", "人気の", "シンプルな")


def _without_pair(table: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(w for w in row if w not in ("pair", "a pair")) for row in table)


_SETS = (
    en.SET_PHRASES,
    tuple(tuple(p for p in row if p[0] != "pair") for row in en.SET_PHRASES),
)
_LABELS = (en.COUNT_LABELS, _without_pair(en.COUNT_LABELS))
_NOUNS = (en.COUNT_NOUNS, _without_pair(en.COUNT_NOUNS))


def is_plural(product: Product) -> bool:
    """Whether English speaks of the product in the plural."""
    return product.count > 0 or product.category in en.ALWAYS_PLURAL


def can_be_one(product: Product) -> bool:
    """Whether "one" can stand before the noun ("one trousers" is no English)."""
    return product.count > 0 or product.category not in en.ALWAYS_PLURAL


def count_label(product: Product, chance: Chance) -> str:
    """The count as a title says it: "set of 2"."""
    return pick(_LABELS[product.category in en.PAIRED][product.count], chance)


def count_noun(product: Product, chance: Chance) -> str:
    """The count as a noun: "two pieces"."""
    return pick(_NOUNS[product.category in en.PAIRED][product.count], chance)


def core(product: Product, attributes: frozenset[int], plural: bool, chance: Chance) -> list[Piece]:
    """English words for category, colour and pattern: "striped mug in red"."""
    before: list[Piece] = []
    after: list[Piece] = []
    if COLOUR in attributes:
        word = pick(en.COLOUR_WORDS[product.colour], chance)
        if chance() < 0.2:
            after += ((" in ", PLAIN), (word, COLOUR))
        else:
            before += ((word, COLOUR), (" ", PLAIN))
    if PATTERN in attributes:
        if chance() < 0.25:
            joint, word = pick(en.PATTERN_TAILS[product.pattern], chance)
            tail = [(" " + joint, PLAIN), (word, PATTERN)]
            after = after + tail if chance() < 0.7 else tail + after
        else:
            adjective: list[Piece] = [
                (pick(en.PATTERN_ADJECTIVES[product.pattern], chance), PATTERN), (" ", PLAIN)
            ]  # fmt: skip
            before = before + adjective if chance() < 0.5 else adjective + before
    if CATEGORY in attributes:
        noun = pick(en.CATEGORY_NOUNS[product.category], chance)
        before.append((noun[plural], CATEGORY))
    else:
        # Even of trousers: "pieces" would say that there are several.
        before.append((pick(en.GENERIC_NOUNS, chance)[plural and product.count > 0], PLAIN))
    return before + after


def _counted(product: Product, determiner: str, chance: Chance) -> tuple[list[Piece], bool]:
    """Determiner and count, and whether a singular set phrase leads."""
    if product.count == 0:
        if determiner != "a":
            return [(determiner + " ", PLAIN), ("single", COUNT), (" ", PLAIN)], True
        draw = int(chance() * 3)
        if draw == 2:
            return [("a ", PLAIN), ("single", COUNT), (" ", PLAIN)], True
        return [(("one", "1")[draw], COUNT), (" ", PLAIN)], True
    if chance() < 0.5:
        word = pick(en.NUMERALS[product.count], chance)
        lead = {"a": "", "this": "these "}.get(determiner, determiner + " ")
        return [(lead, PLAIN), (word, COUNT), (" ", PLAIN)], False
    phrase, joint = pick(_SETS[product.category in en.PAIRED][product.count], chance)
    return [(determiner + " ", PLAIN), (phrase, COUNT), (joint, PLAIN)], True


def english(
    product: Product, attributes: frozenset[int], determiner: str, chance: Chance
) -> tuple[list[Piece], bool]:
    """A noun phrase with its determiner, and whether verbs after it are plural.

    Args:
        product: What is spoken of.
        attributes: Indices of the attributes to tell.
        determiner: "a", "this", "the" or "our".
        chance: Random numbers in [0, 1).
    """
    plural = product.count > 0 or (CATEGORY in attributes and is_plural(product))
    body = core(product, attributes, plural, chance)
    if chance() < 0.15:
        body.insert(0, (pick(_PRAISE, chance), PLAIN))
    if COUNT in attributes and can_be_one(product):
        lead, single = _counted(product, determiner, chance)
        return lead + body, not single
    if determiner == "a":
        article = "" if plural else ("an " if body[0][0][0] in _VOWELS else "a ")
        return [(article, PLAIN), *body], plural
    if determiner == "this" and plural:
        determiner = "these"
    return [(determiner + " ", PLAIN), *body], plural


def japanese(product: Product, attributes: frozenset[int], chance: Chance) -> list[Piece]:
    """A Japanese noun phrase: "2個セットの赤い水玉のマグカップ"."""
    parts: list[list[Piece]] = []
    if COLOUR in attributes:
        word, joint = pick(ja.COLOUR_WORDS[product.colour], chance)
        parts.append([(word, COLOUR), (joint, PLAIN)])
    if PATTERN in attributes:
        word = pick(ja.PATTERN_NAMES[product.pattern], chance)
        parts.append([(word, PATTERN), ("の", PLAIN)])
    behind = False
    if COUNT in attributes:
        word = pick(ja.COUNT_LABELS[product.count], chance)
        behind = chance() < 0.3
        if not behind:
            parts.append([(word, COUNT), ("の", PLAIN)])
    if chance() < 0.15:
        parts.append([(pick(_PRAISE_JA, chance), PLAIN)])
    result = [piece for part in shuffled(parts, chance) for piece in part]
    if CATEGORY in attributes:
        result.append((pick(ja.CATEGORY_NOUNS[product.category], chance), CATEGORY))
    else:
        result.append((pick(ja.GENERIC_NOUNS, chance), PLAIN))
    if behind:
        result += (("(", PLAIN), (word, COUNT), (")", PLAIN))
    return result
