"""Titles of listings: component orders, filler words, brands and letter case."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from stream_judge.catalogue import noun_phrases, templates_en, templates_ja, words_ja
from stream_judge.catalogue.attributes import Product
from stream_judge.catalogue.noun_phrases import CATEGORY, COUNT
from stream_judge.catalogue.phrases import PLAIN, Piece, pick, shuffled, title_case
from stream_judge.catalogue.sentences import Sentences

Chance = Callable[[], float]
#: (text before, component, text after right behind it) of each component in order.
Shape = tuple[tuple[str, str, str], ...]
_LETTERS = frozenset("NRFB")
_CLOSING = frozenset(")]】」》〉")
_MOST_WORDS = 14
_FULL_SHAPE: Shape = (("", "B", ""), (" ", "F", ""), (" ", "N", ""), (" ", "R", ""))


def compiled_shape(text: str) -> Shape:
    """The components of a title shape; closing brackets stay with theirs."""
    parts: list[tuple[str, str, str]] = []
    before = ""
    skip = ""
    for i, letter in enumerate(text):
        alone = not (text[i + 1 : i + 2].isalpha() and text[i + 1].isascii())
        if letter in _LETTERS and alone:
            parts.append((before, letter, skip))
            before = ""
        elif letter in _CLOSING and not before:
            lead, name, _ = parts.pop()
            parts.append((lead, name, letter))
        elif letter in ":" and not before and parts:
            lead, name, after = parts.pop()
            parts.append((lead, name, after + letter))
        else:
            before += letter
    return tuple(parts)


@cache
def _shapes(english: bool, split: str) -> tuple[Shape, ...]:
    frames = templates_en if english else templates_ja
    return tuple(compiled_shape(text) for text in frames.TITLE_SHAPES[split])


def write_title(
    sentences: Sentences, split: str, product: Product, told: frozenset[int], chance: Chance
) -> list[Piece]:
    """The pieces of a title that tells these attributes, 3 to 14 words in English."""
    shape = pick(_shapes(sentences.english, split), chance)
    main, rest = _attribute_parts(sentences, product, told, chance)
    brand = sentences.fact("brand", chance)
    # Words so far; two for what may stand between components ("by", "-").
    used = sum([text.count(" ") for text, _ in main + rest]) + brand.count(" ") + 5
    if len(told) < 2:
        # With so little to tell, another shape could be left with one word.
        shape = _FULL_SHAPE
    wanted = (0, 0, 1, 1, 2, 2, 3, 4, 5, 10)[int(chance() * 10)]
    fillers = _fillers(sentences, max(wanted, len(told) < 2), _MOST_WORDS - used, chance)
    joint = ", " if chance() < 0.2 and sentences.english else " "
    parts = {"N": main, "R": rest, "B": [(brand, PLAIN)]}
    places = sum(name == "F" for _, name, _ in shape)
    pieces: list[Piece] = []
    for before, name, after in shape:
        if name == "F":
            cut = -(-len(fillers) // places)
            now, fillers, places = fillers[:cut], fillers[cut:], places - 1
            part = [(joint.join(now), PLAIN)] if now else []
        else:
            part = parts[name]
        if not part:
            continue
        # A bracket opens even at the start, any other separator needs something before it.
        lead = before if pieces else before.lstrip(" ,-|/~.·;")
        pieces.append((lead, PLAIN))
        pieces += part
        pieces.append((after, PLAIN))
    if sentences.english and chance() < 0.6:
        pieces = [(title_case(text), attribute) for text, attribute in pieces]
    return _ended(pieces)


def _fillers(sentences: Sentences, wanted: int, room: int, chance: Chance) -> list[str]:
    """Up to `wanted` different fillers that fit into the room left, in words."""
    chosen: list[str] = []
    for _ in range(wanted):
        filler = pick(sentences.fillers, chance)
        room -= filler.count(" ") + 1
        if room < 0:
            break
        if filler not in chosen:
            chosen.append(filler)
    return chosen


def _ended(pieces: list[Piece]) -> list[Piece]:
    """Without a dangling separator behind the last word."""
    while pieces and not pieces[-1][0].strip():
        pieces.pop()
    text, attribute = pieces[-1]
    pieces[-1] = (text.rstrip(": "), attribute)
    if text.strip() == ":":
        pieces.pop()
    return pieces


def _attribute_parts(
    sentences: Sentences, product: Product, told: frozenset[int], chance: Chance
) -> tuple[list[Piece], list[Piece]]:
    """The noun phrase and what it leaves out; in four of ten titles single words."""
    if not told:
        return [], []
    joint = ((" ", PLAIN), (", ", PLAIN))[chance() < 0.3 and sentences.english]
    if chance() < 0.4 or CATEGORY not in told:
        order = shuffled(sorted(told), chance)
        cut = 1 + int(chance() * len(order))
        return (
            _words(sentences, product, order[:cut], joint, chance),
            _words(sentences, product, order[cut:], joint, chance),
        )
    inside = told
    if COUNT in told and (chance() < 0.5 or not noun_phrases.can_be_one(product)):
        inside -= {COUNT}
    for attribute in sorted(inside - {CATEGORY, COUNT}):
        if chance() < 0.15:
            inside -= {attribute}
    rest = _words(sentences, product, shuffled(sorted(told - inside), chance), joint, chance)
    if not sentences.english:
        return noun_phrases.japanese(product, inside, chance), rest
    if COUNT in inside:
        main, _ = noun_phrases.english(product, inside, "a", chance)
        if main[0][0] in ("a ", ""):
            main = main[1:]
        return main, rest
    number = noun_phrases.is_plural(product) and chance() < 0.5
    plural = number if COUNT in told else noun_phrases.is_plural(product)
    return noun_phrases.core(product, inside, plural, chance), rest


def _words(
    sentences: Sentences, product: Product, order: list[int], joint: Piece, chance: Chance
) -> list[Piece]:
    pieces: list[Piece] = []
    for attribute in order:
        if pieces:
            pieces.append(joint)
        if attribute == COUNT:
            word = (
                noun_phrases.count_label(product, chance)
                if sentences.english
                else pick(words_ja.COUNT_LABELS[product.count], chance)
            )
        else:
            word = sentences.value(product, attribute, chance)
            if word == "none":
                word = "plain"
        pieces.append((word, attribute))
    return pieces
