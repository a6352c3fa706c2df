"""Sentences, bullets and lines of a listing, made from one split's frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cache
from types import ModuleType

from stream_judge.catalogue import (
    noun_phrases,
    templates_en,
    templates_ja,
    words,
    words_ja,
)
from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.noun_phrases import CATEGORY, COLOUR, COUNT, PATTERN
from stream_judge.catalogue.phrases import (
    PLAIN,
    Frame,
    Piece,
    capitalised,
    compiled,
    compiled_all,
    pick,
    shuffled,
)

LANGUAGES = ("en", "ja")
SPLITS = ("train", "dev", "test")
Chance = Callable[[], float]
_FACTS = frozenset({"brand", "mat", "country"})
_DETERMINERS = frozenset({"a", "this", "the", "our"})
#: English words that agree with the number: (singular, plural).
_AGREEMENT = {
    "is": ("is", "are"), "it": ("it", "they"), "its": ("its", "their"), "s": ("s", ""),
    "them": ("it", "them"), "has": ("has", "have"), "does": ("does", "do"),
}  # fmt: skip
_OTHER_WORDS = (COLOUR, PATTERN)


class Sentences:
    """Writes the parts of listings in one language from one split's frames.

    Args:
        language: "en" or "ja".
        split: "train", "dev" or "test".
    """

    def __init__(self, language: str, split: str) -> None:
        self.english = language == "en"
        frames: ModuleType = templates_en if self.english else templates_ja
        self._words: ModuleType = words if self.english else words_ja
        self.phrases = compiled_all(frames.PHRASES[split])
        self.singles: dict[int, tuple[Frame, ...]] = {
            COLOUR: compiled_all(frames.COLOURS[split]),
            COUNT: compiled_all(frames.COUNTS[split]),
            PATTERN: compiled_all(frames.PATTERNS[split]),
        }
        self.bullets = tuple(compiled_all(lines) for lines in frames.BULLETS[split])
        self.neutral = compiled_all(frames.NEUTRAL[split])
        self.distractors = compiled_all(frames.DISTRACTORS[split])
        self.spec_lines = tuple(
            (key, compiled(value))
            for key, _, value in (line.partition(": ") for line in frames.SPEC_LINES[split])
        )
        self.fillers: tuple[str, ...] = self._words.FILLERS[split]
        self.keys: tuple[tuple[str, ...], ...] = (
            self._words.CATEGORY_KEYS,
            self._words.COLOUR_KEYS,
            self._words.COUNT_KEYS,
            self._words.PATTERN_KEYS,
        )
        self._slots: Mapping[str, tuple[str, ...]] = {
            "brand": self._words.BRANDS[split],
            **{name: table[split] for name, table in frames.SLOTS.items()},
        }
        self._facts: dict[str, str] = {}

    def for_listing(self) -> Sentences:
        """The same frames for one listing, which names one brand and one material."""
        writer = copy(self)
        writer._facts = {}
        return writer

    def fact(self, name: str, chance: Chance) -> str:
        """A brand, material or country, the same one throughout a listing."""
        known = self._facts.get(name)
        if known is None:
            known = self._facts[name] = pick(self._slots[name], chance)
        return known

    def phrase(self, product: Product, told: frozenset[int], chance: Chance) -> list[Piece]:
        """A sentence with a noun phrase that tells these attributes."""
        return self._render(pick(self.phrases, chance), product, told, chance)

    def single(self, product: Product, attribute: int, chance: Chance) -> list[Piece]:
        """A sentence that tells one attribute."""
        if attribute == CATEGORY:
            return self.phrase(product, frozenset({CATEGORY}), chance)
        return self._render(pick(self.singles[attribute], chance), product, frozenset(), chance)

    def bullet(self, product: Product, attribute: int, chance: Chance) -> list[Piece]:
        """A bullet that tells one attribute."""
        if chance() < 0.3:
            key = pick(self.keys[attribute], chance)
            value: list[Piece] = [(self.value(product, attribute, chance), attribute)]
            return [(key + ": ", PLAIN), *(capitalised(value) if chance() < 0.5 else value)]
        frame = pick(self.bullets[attribute], chance)
        return self._render(frame, product, frozenset({attribute}), chance)

    def other(self, frame: Frame, product: Product, chance: Chance) -> list[Piece]:
        """A sentence of `neutral` or `distractors`, or the value of a spec line."""
        return self._render(frame, product, frozenset(), chance)

    def value(self, product: Product, attribute: int, chance: Chance) -> str:
        """An attribute's word as the value of a spec sheet."""
        index = product.indices()[attribute]
        w = self._words
        if not self.english:
            tables = (w.CATEGORY_NOUNS, w.COLOUR_NAMES, w.COUNT_LABELS, w.PATTERN_NAMES)
            if attribute == COUNT and chance() < 0.4:
                return str(pick(w.COUNT_NOUNS[index], chance))
            return str(pick(tables[attribute][index], chance))
        if attribute == CATEGORY:
            return str(pick(w.CATEGORY_NOUNS[index], chance)[0])
        tables = (w.CATEGORY_NOUNS, w.COLOUR_WORDS, w.COUNT_NUMBERS, w.PATTERN_NAMES)
        return str(pick(tables[attribute][index], chance))

    def _render(
        self, frame: Frame, product: Product, told: frozenset[int], chance: Chance
    ) -> list[Piece]:
        if not self.english:
            return self._render_japanese(frame, product, told, chance)
        plural = noun_phrases.is_plural(product)
        phrase: list[Piece] = []
        for _, slot in frame:
            if slot in _DETERMINERS:
                # Made first: verbs before it have to agree with it too.
                phrase, plural = noun_phrases.english(product, told, slot, chance)
        pieces: list[Piece] = []
        for literal, slot in frame:
            if literal:
                pieces.append((literal, PLAIN))
            if slot in _AGREEMENT:
                pieces.append((_AGREEMENT[slot][plural], PLAIN))
            elif slot in _DETERMINERS:
                pieces += phrase
            elif slot:
                self._english_slot(slot, product, chance, pieces)
        return capitalised(pieces)

    def _english_slot(
        self, slot: str, product: Product, chance: Chance, pieces: list[Piece]
    ) -> None:
        if slot == "col":
            pieces.append((pick(words.COLOUR_WORDS[product.colour], chance), COLOUR))
        elif slot == "pat":
            pieces.append((pick(words.PATTERN_ADJECTIVES[product.pattern], chance), PATTERN))
        elif slot == "patn":
            # "none" is only clear behind a key.
            names = [n for n in words.PATTERN_NAMES[product.pattern] if n != "none"]
            pieces.append((pick(names, chance), PATTERN))
        elif slot == "pats":
            joint, word = pick(words.PATTERN_TAILS[product.pattern], chance)
            pieces += ((joint, PLAIN), (word, PATTERN))
        elif slot == "cnt":
            pieces.append((noun_phrases.count_noun(product, chance), COUNT))
        elif slot == "cat":
            nouns = pick(words.CATEGORY_NOUNS[product.category], chance)
            pieces.append((nouns[0], CATEGORY))
        elif slot == "xs":
            other = _other_product(product, chance)
            told = frozenset({CATEGORY, *(a for a in _OTHER_WORDS if chance() < 0.5)})
            text = "".join([t for t, _ in noun_phrases.core(other, told, True, chance)])
            pieces.append((text, PLAIN))
        else:
            pieces.append((self._filling(slot, chance), PLAIN))

    def _render_japanese(
        self, frame: Frame, product: Product, told: frozenset[int], chance: Chance
    ) -> list[Piece]:
        pieces: list[Piece] = []
        for literal, slot in frame:
            if literal:
                pieces.append((literal, PLAIN))
            if slot == "np":
                pieces += noun_phrases.japanese(product, told, chance)
            elif slot == "col":
                pieces.append((pick(words_ja.COLOUR_NAMES[product.colour], chance), COLOUR))
            elif slot == "pat":
                pieces.append((pick(words_ja.PATTERN_NAMES[product.pattern], chance), PATTERN))
            elif slot == "cnt":
                pieces.append((pick(words_ja.COUNT_NOUNS[product.count], chance), COUNT))
            elif slot == "cat":
                nouns = words_ja.CATEGORY_NOUNS[product.category]
                pieces.append((pick(nouns, chance), CATEGORY))
            elif slot == "xs":
                other = _other_product(product, chance)
                told_too = frozenset({CATEGORY, *(a for a in _OTHER_WORDS if chance() < 0.5)})
                parts = noun_phrases.japanese(other, told_too, chance)
                pieces.append(("".join([text for text, _ in parts]), PLAIN))
            elif slot:
                pieces.append((self._filling(slot, chance), PLAIN))
        return pieces

    def _filling(self, slot: str, chance: Chance) -> str:
        if slot == "n":
            # From 4: the numbers one to three could be taken for the count.
            return str(4 + int(chance() * 11))
        if slot == "m":
            return str(12 + int(chance() * 80))
        if slot == "d":
            return str(4 + int(chance() * 6))
        if slot == "y":
            return str(2018 + int(chance() * 9))
        if slot == "code":
            letters = pick(("AB", "KX", "TR", "PL", "QM", "VN"), chance)
            return f"{letters}-{int(4000 + chance() * 5999)}"
        if slot in _FACTS:
            return self.fact(slot, chance)
        return pick(self._slots[slot], chance)


def _other_product(product: Product, chance: Chance) -> Product:
    """Another category with any colour and pattern."""
    category = (product.category + 1 + int(chance() * (SIZES[0] - 1))) % SIZES[0]
    return Product(category, int(chance() * SIZES[1]), 1, int(chance() * SIZES[3]))


def told_together(
    product: Product, attributes: frozenset[int], language: str, chance: Chance
) -> list[frozenset[int]]:
    """The attributes in groups, one sentence each; some sentences tell several."""
    rest = attributes
    groups: list[frozenset[int]] = []
    alone = language == "en" and not noun_phrases.can_be_one(product)
    if COUNT in rest and (alone or chance() < 0.3):
        groups.append(frozenset({COUNT}))
        rest -= {COUNT}
    order = shuffled(sorted(rest), chance)
    while order:
        size = len(order) if chance() < 0.5 else 1 + int(chance() * len(order))
        groups.append(frozenset(order[:size]))
        order = order[size:]
    return groups


@cache
def sentences(language: str, split: str) -> Sentences:
    """The writer of a language and split, compiled once.

    Raises:
        ValueError: If there is no such language or split.
    """
    if language not in LANGUAGES or split not in SPLITS:
        raise ValueError(f"no texts for language {language!r}, split {split!r}")
    return Sentences(language, split)
