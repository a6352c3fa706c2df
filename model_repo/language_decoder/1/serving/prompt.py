"""The prompt: separately tokenised segments, and untrusted text that stays text.

    prefix   bos, instruction, then for each sample: picture, text, answer
    query    picture, text, "Answer:"  -> the next token is the judgement

No token ever spans two segments, so the prefix and the query tokenise to the same ids
whether they are joined or not, and a policy's prefix can be computed once.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tokenizers import Tokenizer

# Kept of the control and format characters: the line break, which lists and paragraphs need.
_KEPT = "\n"
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


class PromptError(ValueError):
    """A prompt that must not reach the model. `status` is the row's status."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def clean_text(text: str) -> str:
    """Text as the model may read it: NFKC, no control or format characters, stripped.

    Normalisation comes first and tokenisation after it, because NFKC and the removal of
    zero-width characters can create what looks like a control token.
    """
    spaced = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    normal = unicodedata.normalize("NFKC", spaced)
    kept = (c for c in normal if c in _KEPT or unicodedata.category(c) not in _DROPPED_CATEGORIES)
    return "".join(kept).strip()


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The fixed parts of the prompt; `prompt.json` beside the tokenizer.

    Attributes:
        version: Format of this file, 1.
        bos: Token that begins every prompt; empty for none.
        image: Token that stands for a picture's embeddings.
        before_instruction: Goes before the instruction, in the same segment.
        after_instruction: Goes after the instruction, in the same segment.
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
        return cls(**content)  # type: ignore[arg-type]  # types were checked above

    @classmethod
    def read(cls, path: Path) -> PromptTemplate:
        """The template in a file; `ValueError` as `from_mapping`."""
        return cls.from_mapping(json.loads(path.read_text(encoding="utf-8")))


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
        tokenizer: The model's tokenizer; special tokens are disabled for all text.
        template: The fixed parts.
        picture_tokens: Slots a picture takes.

    Raises:
        ValueError: If the template's tokens do not exist, or both answers begin alike.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: PromptTemplate, *, picture_tokens: int
    ) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.template = template
        self._picture_tokens = picture_tokens
        self._forbidden = frozenset(tokenizer.get_added_tokens_decoder())
        self._image = self._token(template.image)
        self._bos = [self._token(template.bos)] if template.bos else []
        self._before_image = self._encode(template.before_image)
        self._after_image = self._encode(template.after_image)
        self._after_text = self._encode(template.after_text)
        self._after_answer = self._encode(template.after_answer)
        self.positive = self._encode(template.positive)[0]
        self.negative = self._encode(template.negative)[0]
        if self.positive == self.negative:
            raise ValueError("prompt.json: both answers begin with the same token")

    @property
    def image_id(self) -> int:
        """The id that stands for one embedding of a picture."""
        return self._image

    def prefix(self, instruction: str, samples: Sequence[tuple[str, bool]]) -> list[int]:
        """Token ids of a policy: instruction, then every sample with its answer.

        Raises:
            PromptError: `text_empty` for an empty sample text, `policy_invalid` if a text
                yields control tokens.
        """
        template = self.template
        said = template.before_instruction + clean_text(instruction) + template.after_instruction
        ids = [*self._bos, *self._plain(said, "policy_invalid")]
        for text, answer in samples:
            ids += self.query(text).ids
            ids.append(self.positive if answer else self.negative)
            ids += self._after_answer
        self._count_slots(ids, len(samples))
        return ids

    def query(self, text: str, max_tokens: int | None = None) -> Query:
        """Token ids of a listing.

        Args:
            text: As the seller wrote it; it is cleaned here.
            max_tokens: The policy's limit; the template's holds beside it.

        Raises:
            PromptError: `text_empty` if nothing is left after cleaning.
        """
        cleaned = clean_text(text)
        if not cleaned:
            raise PromptError("nothing is left of the text after cleaning", "text_empty")
        found = self._plain(self.template.text_prefix + cleaned, "internal")
        limit = min(max_tokens or self.template.max_text_tokens, self.template.max_text_tokens)
        kept = found[:limit]
        slots = [self._image] * self._picture_tokens
        ids = [*self._before_image, *slots, *self._after_image, *kept, *self._after_text]
        self._count_slots(ids, 1)
        return Query(tuple(ids), len(kept), len(found) - len(kept))

    def _token(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"prompt.json: the tokenizer has no token {name!r}")
        return int(token)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def _plain(self, text: str, status: str) -> list[int]:
        ids = self._encode(text)
        if not self._forbidden.isdisjoint(ids):
            raise PromptError("text became control tokens; the tokenizer is not safe", status)
        return ids

    def _count_slots(self, ids: Iterable[int], pictures: int) -> None:
        slots = sum(1 for token in ids if token == self._image)
        if slots != pictures * self._picture_tokens:
            raise PromptError(f"{slots} picture slots for {pictures} pictures", "internal")
