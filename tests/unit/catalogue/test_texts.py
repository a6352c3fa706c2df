from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator, Mapping
from types import ModuleType

import pytest

from stream_judge.catalogue import templates_en, templates_ja, words, words_ja
from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.noun_phrases import CATEGORY, COLOUR, COUNT, PATTERN
from stream_judge.catalogue.texts import FORMS, Listing, write_listing

SPLITS = ("train", "dev", "test")
CASES = [(form, language, split) for form in FORMS for language in ("en", "ja") for split in SPLITS]
TABLES = ("TITLE_SHAPES", "PHRASES", "COLOURS", "PATTERNS", "COUNTS")
TEXT_TABLES = ("NEUTRAL", "DISTRACTORS", "SPEC_LINES")


def value_words(language: str) -> list[list[set[str]]]:
    """Lower-case words by attribute and value."""
    w: ModuleType = words if language == "en" else words_ja
    if language == "en":
        categories = [{n for pair in row for n in pair} for row in w.CATEGORY_NOUNS]
        colours = [set(row) for row in w.COLOUR_WORDS]
        sets = [{phrase for phrase, _ in row} for row in w.SET_PHRASES]
        counts = [
            {*w.NUMERALS[i], *sets[i], *w.COUNT_LABELS[i], *w.COUNT_NOUNS[i], *w.COUNT_NUMBERS[i]}
            for i in range(SIZES[COUNT])
        ]
        tails = [{word for _, word in row} for row in w.PATTERN_TAILS]
        patterns = [
            {*w.PATTERN_ADJECTIVES[i], *tails[i], *w.PATTERN_NAMES[i]}
            for i in range(SIZES[PATTERN])
        ]
    else:
        categories = [set(row) for row in w.CATEGORY_NOUNS]
        colours = [{word for word, _ in row} for row in w.COLOUR_WORDS]
        counts = [{*w.COUNT_LABELS[i], *w.COUNT_NOUNS[i]} for i in range(SIZES[COUNT])]
        patterns = [set(row) for row in w.PATTERN_NAMES]
    tables = [categories, colours, counts, patterns]
    tables[COUNT][0] |= {"single"} if language == "en" else set()
    return [[{word.lower() for word in row} for row in table] for table in tables]


def listings(
    form: str, language: str, split: str, number: int = 60
) -> Iterator[tuple[Product, frozenset[int], Listing]]:
    rng = random.Random(f"{form} {language} {split}")
    for i in range(number):
        product = Product(*(rng.randrange(size) for size in SIZES))
        unsaid = frozenset(a for a in range(4) if rng.random() < 0.15) if i % 2 else frozenset()
        unsaid = frozenset() if len(unsaid) == 4 else unsaid
        yield (
            product,
            unsaid,
            write_listing(product, form, language, rng, split=split, unsaid=unsaid),
        )


def found(word: str, text: str, language: str) -> bool:
    if language == "ja":
        return word in text
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text.lower()) is not None


@pytest.mark.parametrize(("form", "language", "split"), CASES)
def test_every_span_holds_a_word_of_the_products_own_value(
    form: str, language: str, split: str
) -> None:
    table = value_words(language)
    for product, _, listing in listings(form, language, split):
        for attribute, start, end in listing.spans:
            word = listing.text[start:end].lower()
            assert word in table[attribute][product.indices()[attribute]], listing.text


@pytest.mark.parametrize(("form", "language", "split"), CASES)
def test_what_is_said_and_only_that_has_spans(form: str, language: str, split: str) -> None:
    for _, unsaid, listing in listings(form, language, split):
        assert {attribute for attribute, _, _ in listing.spans} == set(range(4)) - unsaid
        starts = [start for _, start, _ in listing.spans]
        assert starts == sorted(starts)


@pytest.mark.parametrize(("form", "language", "split"), CASES)
def test_text_is_normalised_and_composed_of_its_fields(
    form: str, language: str, split: str
) -> None:
    for _, _, listing in listings(form, language, split):
        text = listing.text
        assert text == unicodedata.normalize("NFKC", text).strip()
        assert not any(c != "\n" and unicodedata.category(c)[0] == "C" for c in text)
        assert all(line and line == line.strip() for line in text.split("\n"))
        assert "{" not in text
        parts = [listing.title, *listing.bullets]
        parts += [listing.description] if listing.description else []
        parts += [f"{key}: {value}" for key, value in listing.specifications]
        assert text == "\n".join(parts)


@pytest.mark.parametrize("split", SPLITS)
def test_english_forms_keep_their_lengths(split: str) -> None:
    for _, unsaid, listing in listings("title", "en", split):
        assert 3 - len(unsaid) <= len(re.findall(r"[\w'-]+", listing.title)) <= 14
    for _, _, listing in listings("bullets", "en", split):
        assert 3 <= len(listing.bullets) <= 6
    for _, _, listing in listings("paragraphs", "en", split):
        assert 40 <= len(listing.description.split()) <= 80
        assert 2 <= listing.description.count("\n") + 1 <= 3
    for _, _, listing in listings("long", "en", split):
        assert 150 <= len(listing.description.split()) <= 400
        assert listing.description.count("\n") + 1 >= 3


@pytest.mark.parametrize("split", SPLITS)
def test_japanese_forms_keep_their_lengths(split: str) -> None:
    for _, _, listing in listings("paragraphs", "ja", split):
        assert 100 <= len(listing.description) <= 200
    for _, _, listing in listings("long", "ja", split):
        assert 350 <= len(listing.description) <= 800


@pytest.mark.parametrize("language", ["en", "ja"])
def test_spec_sheets_have_fifteen_lines_with_different_keys(language: str) -> None:
    for _, _, listing in listings("spec", language, "test"):
        keys = [key for key, _ in listing.specifications]
        assert len(keys) >= 15
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_no_word_is_said_of_two_values(language: str) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for attribute, table in enumerate(value_words(language)):
        for value, row in enumerate(table):
            for word in row:
                assert word not in seen, (word, seen.get(word), attribute, value)
                seen[word] = (attribute, value)


@pytest.mark.parametrize(
    ("frames", "lexicon", "language"),
    [(templates_en, words, "en"), (templates_ja, words_ja, "ja")],
)
def test_no_frame_or_filler_holds_a_value_word(
    frames: ModuleType, lexicon: ModuleType, language: str
) -> None:
    table = value_words(language)
    # A number alone says no count: "1" in "10" or "4001".
    banned = {word for rows in table for row in rows for word in row if not word.isdigit()}
    # "none" and "single" mean something only behind a key or as a count.
    banned -= {"none"}
    for text in all_texts(frames, lexicon):
        bare = re.sub(r"\{[a-z]+\}", "#", text)
        assert not [word for word in banned if found(word, bare, language)], text


def all_texts(frames: ModuleType, lexicon: ModuleType) -> Iterator[str]:
    for name in (*TABLES, *TEXT_TABLES):
        for lines in getattr(frames, name).values():
            yield from lines
    for bullets in frames.BULLETS.values():
        for lines in bullets:
            yield from lines
    for slot in frames.SLOTS.values():
        for lines in slot.values():
            yield from lines
    for table in (lexicon.BRANDS, lexicon.FILLERS):
        for lines in table.values():
            yield from lines


@pytest.mark.parametrize("frames", [templates_en, templates_ja])
def test_other_products_stand_in_distractors_only(frames: ModuleType) -> None:
    for name in (*TABLES, "NEUTRAL"):
        assert not [line for line in joined(getattr(frames, name)) if "{xs}" in line]
    assert all("{xs}" in line for line in joined(frames.DISTRACTORS))


def joined(table: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [line for lines in table.values() for line in lines]


@pytest.mark.parametrize(("frames", "lexicon"), [(templates_en, words), (templates_ja, words_ja)])
def test_splits_share_no_frame_filler_or_brand(frames: ModuleType, lexicon: ModuleType) -> None:
    tables = [getattr(frames, name) for name in (*TABLES, *TEXT_TABLES)]
    tables += [lexicon.BRANDS, lexicon.FILLERS, *frames.SLOTS.values()]
    for attribute in range(4):
        tables.append({split: frames.BULLETS[split][attribute] for split in SPLITS})
    for table in tables:
        everything = joined(table)
        assert len(everything) == len(set(everything)), sorted(
            line for line in everything if everything.count(line) > 1
        )


def test_there_are_many_frames_to_learn_from() -> None:
    for frames in (templates_en, templates_ja):
        sentences = (frames.PHRASES, frames.COLOURS, frames.PATTERNS, frames.COUNTS)
        assert sum(len(table["train"]) for table in sentences) >= 100
        assert len(frames.TITLE_SHAPES["train"]) >= 30
    assert len(templates_en.DISTRACTORS["train"]) >= 40
    for lexicon in (words, words_ja):
        assert len(lexicon.BRANDS["train"]) >= 60
        assert len(lexicon.FILLERS["train"]) >= 80


@pytest.mark.parametrize("language", ["en", "ja"])
def test_titles_of_two_values_differ_only_by_the_named_attribute(language: str) -> None:
    product = Product(0, 0, 1, 1)
    for attribute, value in (("colour", 4), ("pattern", 2), ("category", 8), ("count", 2)):
        other = product.replaced(attribute, value)
        listing = write_listing(other, "title", language, random.Random(attribute))
        for index, start, end in listing.spans:
            word = listing.text[start:end].lower()
            own = value_words(language)[index][other.indices()[index]]
            assert word in own


def test_one_pair_of_trousers_is_never_spoken_of_as_a_pair() -> None:
    rng = random.Random(4)
    for category in (3, 5):
        for count in range(3):
            for _ in range(60):
                product = Product(category, 0, count, 0)
                text = write_listing(product, "long", "en", rng).text.lower()
                assert not found("pair", text, "en")


@pytest.mark.parametrize("form", FORMS)
def test_same_seed_gives_the_same_listing(form: str) -> None:
    product = Product(2, 3, 1, 2)
    for language in ("en", "ja"):
        first = write_listing(product, form, language, random.Random(9))
        assert first == write_listing(product, form, language, random.Random(9))
        assert first != write_listing(product, form, language, random.Random(10))


def test_attributes_can_be_left_out_by_name() -> None:
    listing = write_listing(
        Product(1, 1, 1, 1), "title", "en", random.Random(1), unsaid=frozenset({"colour"})
    )
    assert {attribute for attribute, _, _ in listing.spans} == {CATEGORY, COUNT, PATTERN}
    assert COLOUR not in {attribute for attribute, _, _ in listing.spans}


def test_unknown_forms_languages_and_splits_are_refused() -> None:
    product = Product(0, 0, 0, 0)
    rng = random.Random(0)
    with pytest.raises(ValueError, match="form"):
        write_listing(product, "poem", "en", rng)
    with pytest.raises(ValueError, match="language"):
        write_listing(product, "title", "fr", rng)
    with pytest.raises(ValueError, match="split"):
        write_listing(product, "title", "en", rng, split="wild")
