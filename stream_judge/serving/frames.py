"""What the template puts around a text, and how it is kept out of texts.

A text that held the frame of an answer would be read as a row of judged samples, whatever its
picture shows: one that repeats "Answer: Yes" has the model agree with anything. So neither the
characters of a frame, in whatever width, case or spacing, nor its token ids come from a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from tokenizers import Encoding, Tokenizer

Span = tuple[int, int]
# The word before a colon ("Answer:", "USER:"), or something in brackets ("[/INST]").
_LABEL = re.compile(r"[^\W_][\w-]*\s*:|[<\[{(]+\S*?\w\S*?[>\])}]+")
_PIECES = re.compile(r"\w+|[^\w\s]")
# SentencePiece writes its spaces as this character, and reads it as one.
# The braille blank has no dots: it looks like one.
_BLANKS = r"[\s\u2581\u2800]*"
# From the first blank on: a run of them is looked through once, not from each of them.
_LINE_BREAK = (
    rf"(?<![\s\u2581\u2800])(?:[\u2581\u2800]|[^\S\n\u2028\u2029])*[\n\u2028\u2029]{_BLANKS}"
)
_SIGNS = "|/~^\ufffd"


class Frames:
    """The labels of a template's segments, which no text may hold.

    What is guarded of a segment is its labels; where it has none, all of it but the blanks
    around it. A segment without letters and digits (a line break, a rule) is what ordinary
    texts consist of, and is not guarded.

    Args:
        segments: What stands around texts, `after_text` aside.
        after_text: What a text ends with. Its labels are guarded without their colons, too:
            wherever their ids are, and at the beginning of a line. The model has learnt that
            a judgement comes behind them.
        tokenizer: Encodes the segments as they are in the prompt.
        on_new_line: Whether the template begins a line for the text.
    """

    def __init__(
        self,
        segments: Sequence[str],
        after_text: str,
        tokenizer: Tokenizer,
        *,
        on_new_line: bool = False,
    ) -> None:
        patterns: list[str] = []
        frames: set[tuple[int, ...]] = set()
        for segment in (*segments, after_text):
            encoding = tokenizer.encode(segment, add_special_tokens=False)
            for label, span in _labels(segment):
                patterns.append(_spaced(label))
                frames.add(_ids_within(encoding, span))
                if segment == after_text:
                    word = label.rstrip(":").rstrip()
                    patterns.insert(0, _begins_a_line(word, on_new_line))
                    frames.add(_ids_within(encoding, (span[0], span[0] + len(word))))
        self._pattern = re.compile("|".join(patterns)) if patterns else None
        self._endings: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for frame in sorted(frames - {()}, key=len, reverse=True):
            self._endings[frame[-1]].append(frame)
        # It is in no frame, so that nothing around it can become one.
        taken = "".join((*segments, after_text))
        self._sign = next(c for c in _SIGNS if c not in taken)
        added = tokenizer.get_added_tokens_decoder()
        ids = tokenizer.encode(self._sign, add_special_tokens=False).ids[-1:]
        self._sign_ids = [token for token in ids if token not in added]

    def broken(self, text: str) -> str:
        """The text with a sign in the place of what looks like frames, one for all in a row.

        The time it takes grows no faster than the text; a second time changes nothing.

        Args:
            text: Cleaned (`serving.prompt.clean_text`).
        """
        if self._pattern is None:
            return text
        letters, places = _letters(text)
        kept: list[str] = []
        begun = 0
        for match in self._pattern.finditer(letters):
            between = text[begun : places[match.start()]]
            if between.strip() or not kept:
                kept.append(between)
            begun = places[match.end()]
        return self._sign.join([*kept, text[begun:]]) if kept else text

    def without(self, ids: Iterable[int]) -> list[int]:
        """The ids with the sign's in the place of a frame's, one for all in a row."""
        kept: list[int] = []
        for token in ids:
            kept.append(token)
            for frame in self._endings.get(token, ()):
                if tuple(kept[-len(frame) :]) == frame:
                    del kept[-len(frame) :]
                    if kept[-1:] != self._sign_ids:
                        kept += self._sign_ids
                    break
        return kept


def _labels(segment: str) -> Iterator[tuple[str, Span]]:
    """What is guarded of a segment, as plain letters, and where it lies in it."""
    letters, places = _letters(segment)
    spans = [match.span() for match in _LABEL.finditer(letters)]
    whole = letters.strip()
    if not spans and any(map(str.isalnum, whole)):
        begin = letters.index(whole)
        spans = [(begin, begin + len(whole))]
    for begin, end in spans:
        yield letters[begin:end], (places[begin], places[end])


def _spaced(label: str) -> str:
    """A pattern for the label with any blanks, or none, between its words and signs."""
    return _BLANKS.join(map(re.escape, _PIECES.findall(label)))


def _begins_a_line(word: str, on_new_line: bool) -> str:
    """A pattern for the word behind a line break, with its colon if it has one."""
    begin = rf"(?:\A{_BLANKS}|{_LINE_BREAK})" if on_new_line else _LINE_BREAK
    return rf"{begin}{_spaced(word)}(?:{_BLANKS}:)?"


def _ids_within(encoding: Encoding, span: Span) -> tuple[int, ...]:
    start, end = span
    spans = zip(encoding.ids, encoding.offsets, strict=True)
    return tuple(token for token, (begin, stop) in spans if begin < end and stop > start)


def _letters(text: str) -> tuple[str, Sequence[int]]:
    """The text in small letters without marks, and the place of each in the text.

    There is one place more than letters: the end of the text.
    """
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    found = [(plain, i) for i, c in enumerate(text) if (plain := _plain(c))]
    return "".join(c for c, _ in found), [*(i for _, i in found), len(text)]


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """The letter under a character's marks, small and of usual width; nothing for a mark."""
    if unicodedata.category(character).startswith("M"):
        return ""
    apart = unicodedata.normalize("NFKD", character)
    # Several letters in one (a syllable of Hangul) stay one.
    plain = (
        apart[0] if all(unicodedata.category(c).startswith("M") for c in apart[1:]) else character
    )
    small = plain.casefold()
    return small if len(small) == 1 else plain
