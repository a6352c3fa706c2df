"""The prompt: separately tokenised segments, and untrusted text that stays text.

    prefix   bos, instruction, then for each sample: picture, text, answer
    query    picture, text, "Answer:"  -> the next token is the judgement

No token ever spans two segments, so the prefix and the query tokenise to the same ids
whether they are joined or not, and a policy's prefix can be computed once. No text can hold a
control token, nor what the segments around it say (`serving.frames`).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, takewhile
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from .frames import Frames

# Kept of the control and format characters: the line break, which lists and paragraphs need.
_KEPT = "\n"
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
# Hangul's fillers: letters that nobody sees ("default ignorable").
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")
# Unicode's own bound (UAX 15, stream-safe text): no writing puts more marks on a letter.
_MAX_MARKS = 30
# No marks themselves, but NFKC makes marks of them.
_BECOME_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
# Characters. Longer tokens are runs of one of them (spaces, rules): no text consists of those.
_LONGEST_TOKEN = 32


class PromptError(ValueError):
    """A prompt that must not reach the model. `status` is the row's status."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def clean_text(text: str, max_chars: int | None = None) -> str:
    """Text as the model may read it: NFKC, no control or format characters, stripped.

    Normalisation comes first and tokenisation after it, because NFKC and the removal of
    zero-width characters can create what looks like a control token. The time it takes grows
    no faster than the text, whatever the text is.

    Args:
        text: As it was written.
        max_chars: Characters that are read, and that are given back, at most; None: all.
    """
    begun = text.lstrip()[:max_chars]
    spaced = begun.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    normal = unicodedata.normalize("NFKC", _bound_marks(spaced))
    kept = (
        c
        for c in normal
        if c in _KEPT or (c not in _FILLERS and unicodedata.category(c) not in _DROPPED_CATEGORIES)
    )
    # Once more, because NFKC makes up to 18 characters of one.
    return "".join(islice(kept, max_chars)).strip()


def _bound_marks(text: str) -> str:
    """The text without what is beyond `_MAX_MARKS` combining marks in a row.

    NFKC puts the marks of a run in order by insertion: its time grows with the square of the
    run, and a text that is one run would take half a minute.
    """
    if text.isascii():
        return text
    kept, run = [], 0
    for c in text:
        run = run + 1 if unicodedata.combining(c) or c in _BECOME_MARKS else 0
        if run <= _MAX_MARKS:
            kept.append(c)
    return "".join(kept)


_VERSION = 1


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The fixed parts of the prompt; `prompt.json` beside the tokenizer.

    What the segments say is kept out of the texts between them (`serving.frames`). So they
    should say it in labels ("Answer:", "[/INST]"), which listings do without: of a segment
    without a label all its words together are kept out, and one of signs alone is not guarded.

    Attributes:
        version: Format of this file, 1.
        bos: Token that begins every prompt; empty for none.
        image: Token that stands for a picture's embeddings.
        before_instruction: Goes before the instruction; what stands behind its last control
            token is tokenised together with the instruction.
        after_instruction: Goes after the instruction, likewise up to its first control token.
        before_image: Segment before each picture; may be empty.
        after_image: Segment between picture and text.
        text_prefix: Goes before each text, in the text's segment.
        after_text: Segment after each text; the answer follows it.
        positive: The answer for a match; its first token is what is scored.
        negative: The answer for no match; its first token is what is scored.
        after_answer: Segment after a sample's answer.
        max_text_tokens: Tokens of a listing's text that are read.
    """

    version: int
    bos: str
    image: str
    before_instruction: str
    after_instruction: str
    before_image: str
    after_image: str
    text_prefix: str
    after_text: str
    positive: str
    negative: str
    after_answer: str
    max_text_tokens: int

    @classmethod
    def from_mapping(cls, content: Mapping[str, object]) -> PromptTemplate:
        """The template of a parsed `prompt.json`.

        Raises:
            ValueError: If a field is missing, unknown or of another type.
        """
        known = {field.name for field in fields(cls)}
        if set(content) != known:
            raise ValueError(f"prompt.json: fields {sorted(known ^ set(content))} do not fit")
        numbers = {"version", "max_text_tokens"}
        for name, value in content.items():
            if type(value) is not (int if name in numbers else str):
                raise ValueError(f"prompt.json: {name} has a value of another type")
        if content["version"] != _VERSION:
            raise ValueError(f"prompt.json: version {content['version']}; wanted {_VERSION}")
        if content["max_text_tokens"] < 1:  # type: ignore[operator]  # an int, see above
            raise ValueError("prompt.json: max_text_tokens has to be at least 1")
        return cls(**content)  # type: ignore[arg-type]  # types were checked above

    @classmethod
    def read(cls, path: Path) -> PromptTemplate:
        """The template in a file; `ValueError` as `from_mapping`."""
        return cls.from_mapping(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Text:
    """A listing's text as the model reads it.

    Attributes:
        ids: Its first tokens, as many as the template lets be read; none if nothing is left
            of the text after cleaning.
        tokens: How many it has in all; where the text was cut before it was tokenised, how
            many were found, and one for the rest.
    """

    ids: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Query:
    """Token ids of one listing.

    Attributes:
        ids: Picture slot, text, and what precedes the answer.
        used: Tokens of the text that were kept.
        cut: Tokens of the text that were left out at its end.
    """

    ids: tuple[int, ...]
    used: int
    cut: int


class PromptTokenizer:
    """Turns instructions, samples and listings into token ids.

    Args:
        tokenizer: The model's tokenizer; added tokens are disabled for all text.
        template: The fixed parts.
        picture_tokens: Slots a picture takes.

    Raises:
        ValueError: If the template's tokens do not exist, or both answers begin alike.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: PromptTemplate, *, picture_tokens: int
    ) -> None:
        # The template may name the model's control tokens; texts, below, may not.
        tokenizer.encode_special_tokens = False
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.template = template
        self._picture_tokens = picture_tokens
        self._image = self._token(template.image)
        self._bos = [self._token(template.bos)] if template.bos else []
        self._before_image = self._encode(template.before_image)
        self._after_image = self._encode(template.after_image)
        self._after_text = self._encode(template.after_text)
        self._after_answer = self._encode(template.after_answer)
        self._controls = frozenset(tokenizer.get_added_tokens_decoder())
        self._opening, self._before_instruction = self._behind_controls(template.before_instruction)
        self._after_instruction, self._closing = self._before_controls(template.after_instruction)
        self._refuse_slots()
        self.positive = self._encode(template.positive)[0]
        self.negative = self._encode(template.negative)[0]
        if self.positive == self.negative:
            raise ValueError("prompt.json: both answers begin with the same token")
        # From here on all that is encoded is text.
        tokenizer.encode_special_tokens = True
        self._frames = _frames(template, tokenizer)
        self._tokenizer = _disarmed(tokenizer)
        self._forbidden = {*self._controls, self._image, *self._bos}
        # No token covers more than the longest: what lies beyond is not among those read.
        # (NFKC can join four characters into one, but no text is longest tokens throughout.)
        self._max_chars = (template.max_text_tokens + 1) * _longest_token(tokenizer)

    @property
    def image_id(self) -> int:
        """The id that stands for one embedding of a picture."""
        return self._image

    @property
    def frame_tokens(self) -> int:
        """Tokens of a query besides its text."""
        segments = (self._before_image, self._after_image, self._after_text)
        return self._picture_tokens + sum(map(len, segments))

    def prefix(self, instruction: str, samples: Sequence[tuple[str, bool]]) -> list[int]:
        """Token ids of a policy: instruction, then every sample with its answer.

        Raises:
            PromptError: `text_empty` for an empty sample text.
        """
        said = self._before_instruction + clean_text(instruction) + self._after_instruction
        ids = [*self._bos, *self._opening, *self._plain(self._encode(said)), *self._closing]
        for text, answer in samples:
            ids += self.query(text).ids
            ids.append(self.positive if answer else self.negative)
            ids += self._after_answer
        self._count_slots(ids, len(samples))
        return ids

    def read(self, text: str) -> Text:
        """A listing's text, cleaned and tokenised; what is empty stays empty.

        What the template says around texts is not in it, neither its characters nor its ids.

        Args:
            text: As the seller wrote it.
        """
        cleaned = clean_text(text, self._max_chars)
        found = self._framed(self._frames.broken(cleaned)) if cleaned else []
        is_cut = len(text.strip()) > self._max_chars or len(cleaned) == self._max_chars
        return Text(tuple(found[: self.template.max_text_tokens]), len(found) + is_cut)

    def query(self, text: str | Text, max_tokens: int | None = None) -> Query:
        """Token ids of a listing.

        Args:
            text: As the seller wrote it, or as `read` gave it.
            max_tokens: The policy's limit; the template's holds beside it.

        Raises:
            PromptError: `text_empty` if nothing is left after cleaning.
        """
        found = self.read(text) if isinstance(text, str) else text
        if not found.ids:
            raise PromptError("nothing is left of the text after cleaning", "text_empty")
        kept = found.ids[:max_tokens]
        slots = [self._image] * self._picture_tokens
        ids = [*self._before_image, *slots, *self._after_image, *kept, *self._after_text]
        self._count_slots(ids, 1)
        return Query(tuple(ids), len(kept), found.tokens - len(kept))

    def _token(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"prompt.json: the tokenizer has no token {name!r}")
        return int(token)

    def _behind_controls(self, segment: str) -> tuple[list[int], str]:
        """Ids up to the segment's last control token, and the words behind it.

        Words are tokenised together with the instruction that they stand beside.
        """
        encoding = self._encoded(segment)
        ends = [
            end
            for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._controls
        ]
        cut = max(ends, default=0)
        return self._encode(segment[:cut]), segment[cut:]

    def _before_controls(self, segment: str) -> tuple[str, list[int]]:
        """The words before the segment's first control token, and the ids from there on."""
        encoding = self._encoded(segment)
        begins = [
            begin
            for token, (begin, _) in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._controls
        ]
        cut = min(begins, default=len(segment))
        return segment[:cut], self._encode(segment[cut:])

    def _refuse_slots(self) -> None:
        segments = (
            self._opening,
            self._closing,
            self._before_image,
            self._after_image,
            self._after_text,
            self._after_answer,
        )
        if any(self._image in ids for ids in segments):
            raise ValueError(
                f"prompt.json: a segment holds the picture's own token {self.template.image}"
            )

    def _encode(self, text: str) -> list[int]:
        return list(self._encoded(text).ids) if text else []

    def _encoded(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _framed(self, text: str) -> list[int]:
        """Token ids of a cleaned text behind `text_prefix`, which is a frame itself."""
        prefix = self.template.text_prefix
        encoding = self._encoded(prefix + text)
        # A sign can be several tokens: there may be more of them than the prefix has characters.
        own = sum(1 for _ in takewhile(lambda span: span[1] <= len(prefix), encoding.offsets))
        ids = encoding.ids
        return [*self._plain(ids[:own]), *self._frames.without(self._plain(ids[own:]))]

    def _plain(self, ids: Iterable[int]) -> list[int]:
        """Token ids of untrusted text.

        Added tokens are disarmed; one that the vocabulary itself gives for a word is left
        out. A seller who writes such a word gets a verdict on the rest.
        """
        return [token for token in ids if token not in self._forbidden]

    def _count_slots(self, ids: Iterable[int], pictures: int) -> None:
        slots = sum(1 for token in ids if token == self._image)
        if slots != pictures * self._picture_tokens:
            raise PromptError(f"{slots} picture slots for {pictures} pictures", "internal")


def _frames(template: PromptTemplate, tokenizer: Tokenizer) -> Frames:
    segments = (
        template.before_instruction,
        template.after_instruction,
        template.before_image,
        template.after_image,
        template.text_prefix,
        template.after_answer,
    )
    before = (template.after_image + template.text_prefix).rstrip(" ")
    return Frames(segments, template.after_text, tokenizer, on_new_line=before.endswith("\n"))


def _disarmed(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer to which every added token is text like any other.

    `encode_special_tokens` does that for special tokens only, and chat models have added
    ones that are not marked special.
    """
    armed = [t for t in tokenizer.get_added_tokens_decoder().values() if not t.special]
    if not armed:
        return tokenizer
    disarmed = Tokenizer.from_str(tokenizer.to_str())
    for token in armed:
        token.special = True
    disarmed.add_special_tokens(armed)
    disarmed.encode_special_tokens = True
    return disarmed


def _longest_token(tokenizer: Tokenizer) -> int:
    """Characters that one token covers at most, within `_LONGEST_TOKEN`."""
    ids = [[token] for token in tokenizer.get_vocab(with_added_tokens=False).values()]
    longest = max(map(len, tokenizer.decode_batch(ids, skip_special_tokens=False)))
    # One more, because some decoders drop the space that a word begins with.
    return min(longest + 1, _LONGEST_TOKEN)
