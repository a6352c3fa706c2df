"""Episodes: an instruction, then pairs of picture and text, each followed by its answer.

An episode of K pairs trains 0..K-1 samples at once: the k-th answer has seen k samples,
and every answer is a target. Texts and instructions are written anew for every episode;
only the drawings come from a bank. A batch depends on its seed and number alone, so a
resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.texts import write_listing
from stream_judge.catalogue.wording import KINDS, LATE, Instruction, compose_instruction
from stream_judge.training.rules import ANSWERS, PRIOR, RULES, ideal_observer, seen_before
from stream_judge.training.strange_words import with_odd_lines, with_strange_words
from stream_judge.training.tokenizer import PROMPT

# What a token is to the probes; 1..4 = last token of a mention of attribute 0..3.
PLAIN, ANSWER, LABEL, POLICY_END, PICTURE = 0, 5, 6, 7, 8
LANGUAGES = ("en", "ja")
_MIXED = ("title", "title", "title", "bullets", "paragraphs", "spec", "long")
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EpisodeKind:
    """What one batch is made of.

    Attributes:
        form: Text form of every listing; "mixed": titles mostly, the other forms between.
        pairs: K, pairs in an episode.
        titles: Only the last pair's text has the form, those before it are titles: as a
            policy's samples are short and the listings that it judges are not.
        named: Share of episodes whose instruction names the rule.
        bursts: Share of episodes in which only two attributes ever differ, so that
            samples soon cover the query.
        noise: Share of named episodes in which half of the shown labels are wrong, or all.
        same: Share of pairs that do not differ.
        two: Share of differing pairs that differ in two attributes.
        unsaid: Chance that a matching attribute is not mentioned.
        strange: Share of instructions that may get invented words, as a third of the texts do.
        odd: Share of last texts with one line many times in front or behind.
        simple: Share of instructions in few and plain phrasings.
        late: Instructions by the further writers too (`wording.LATE`).
        sparse: Keep one of every four picture tokens (at its true position): shorter
            rows for the first steps.
    """

    form: str
    pairs: int
    titles: bool = False
    named: float = 0.5
    bursts: float = 0.5
    noise: float = 0.4
    same: float = 0.25
    two: float = 0.1
    unsaid: float = 0.08
    strange: float = 0.4
    odd: float = 0.0
    simple: float = 0.0
    late: bool = False
    sparse: bool = False

    def only(self, *, named: bool) -> EpisodeKind:
        """The honest distribution for measuring: no bursts, no noise, one difference."""
        share = 1.0 if named else 0.0
        return replace(self, named=share, bursts=0.0, noise=0.0, two=0.0, unsaid=0.0, simple=0.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows of tokens, and what the probes are asked about them.

    Attributes:
        ids: int64 [B, T].
        kinds: int64 [B, T], what each token is (module constants).
        pair: int64 [B, T], which pair of the episode the token belongs to.
        patch: int64 [B, T], picture tokens: which of the picture's tokens.
        positions: float32 [B, T].
        pictures: int64 [B, K], indices into the bank.
        shown: int64 [B, K, 4], attribute values in the picture.
        told: int64 [B, K, 4], attribute values in the text.
        masks: int64 [B, K], bit mask of differing attributes.
        answers: bool [B, K], the right answers under the rule.
        labels: bool [B, K], the answers shown as samples (noisy ones included).
        rule: int64 [B].
        named: bool [B].
        wording: int64 [B], the instruction's kind, as an index into `wording.KINDS`.
        mentioned: bool [B, 4], the attributes that the instruction names on either side.
    """

    ids: IntArray
    kinds: IntArray
    pair: IntArray
    patch: IntArray
    positions: NDArray[np.float32]
    pictures: IntArray
    shown: IntArray
    told: IntArray
    masks: IntArray
    answers: BoolArray
    labels: BoolArray
    rule: IntArray
    named: BoolArray
    wording: IntArray
    mentioned: BoolArray

    @property
    def different(self) -> BoolArray:
        """bool [B, K, 4]: the attributes in which picture and text differ."""
        return self.shown != self.told

    def by_length(self) -> list[Batch]:
        """The same rows in two to four batches of like length, which need less padding."""
        lengths = (self.ids != 0).sum(1)
        parts = min(4, max(2, len(lengths) // 10), len(lengths))
        return [
            self._rows(rows, int(lengths[rows].max()))
            for rows in np.array_split(np.argsort(lengths, kind="stable"), parts)
        ]

    def _rows(self, rows: IntArray, width: int) -> Batch:
        tokens = ("ids", "kinds", "pair", "patch", "positions")
        chosen = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return Batch(**{**chosen, **{name: chosen[name][:, :width] for name in tokens}})

    def seen(self) -> IntArray:
        """`rules.seen_before` of this batch."""
        return seen_before(self.masks, self.labels)

    def ideal(self) -> NDArray[np.float64]:
        """`rules.ideal_observer` of this batch."""
        return ideal_observer(self.masks, self.labels)


class EpisodeWriter:
    """Writes batches of episodes over a bank of drawings.

    Args:
        tokenizer: The model's tokenizer.
        attributes: int [N, 4], the bank's attribute values.
        picture_tokens: Tokens a picture becomes.
        split: Which sentence frames and phrasings the texts are made from.
    """

    def __init__(
        self, tokenizer: Tokenizer, attributes: IntArray, picture_tokens: int, split: str
    ) -> None:
        self._tokenizer = tokenizer
        self._attributes = attributes.astype(np.int64)
        self._picture_tokens = picture_tokens
        self._split = split

    @cached_property
    def _parts(self) -> dict[str, list[int]]:
        names = ("after_image", "after_text", "after_answer", "positive", "negative")
        parts = {name: self.encode(str(PROMPT[name])) for name in names}
        for special in ("bos", "image"):
            parts[special] = [self._tokenizer.token_to_id(str(PROMPT[special]))]
        return parts

    @property
    def answer_ids(self) -> tuple[int, int]:
        """Token ids of (Yes, No)."""
        return self._parts["positive"][0], self._parts["negative"][0]

    def encode(self, text: str) -> list[int]:
        """Token ids of one prompt segment."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def write(self, kind: EpisodeKind, episodes: int, seed: Sequence[int]) -> Batch:
        """A batch of episodes; the same arguments give the same batch."""
        rng = np.random.default_rng(list(seed))
        scene = self._scene(kind, episodes, rng)
        words = random.Random(int(rng.integers(2**62)))
        instructions = self._instructions(kind, scene, words)
        rows = self._rows(kind, scene, instructions, words, rng)
        return self._pad(rows, scene, instructions)

    def _scene(self, kind: EpisodeKind, episodes: int, rng: np.random.Generator) -> _Scene:
        shape = (episodes, kind.pairs)
        rule = rng.choice(len(RULES), episodes, p=PRIOR)
        named = rng.random(episodes) < kind.named
        pictures = rng.integers(len(self._attributes), size=shape)
        shown = self._attributes[pictures]
        different = _draw_differences(kind, shape, rng)
        shift = rng.integers(1, np.broadcast_to(np.array(SIZES), shown.shape))
        told = np.where(different, (shown + shift) % np.array(SIZES), shown)
        masks = different @ np.array([1, 2, 4, 8])
        answers = ANSWERS[rule[:, None], masks]
        noisy = named & (rng.random(episodes) < kind.noise)
        share = np.where(rng.random(episodes) < 0.5, 0.5, 1.0)
        wrong = noisy[:, None] & (rng.random(shape) < share[:, None])
        return _Scene(rule, named, pictures, shown, told, masks, answers, answers ^ wrong)

    def _instructions(
        self, kind: EpisodeKind, scene: _Scene, words: random.Random
    ) -> list[Instruction]:
        made = []
        split = LATE if kind.late else self._split
        for named, rule in zip(scene.named, scene.rule, strict=True):
            counts = frozenset(RULES[rule]) if named else frozenset()
            language = words.choice(LANGUAGES)
            simple = words.random() < kind.simple
            said = compose_instruction(counts, language, words, split=split, simple=simple)
            if words.random() < kind.strange:
                said = replace(said, text=with_strange_words(said.text, (), language, words)[0])
            made.append(said)
        return made

    def _rows(
        self,
        kind: EpisodeKind,
        scene: _Scene,
        instructions: list[Instruction],
        words: random.Random,
        rng: np.random.Generator,
    ) -> list[_Row]:
        texts, spans = [], []
        # Longer texts differ much in length between languages: one language a batch
        # leaves less to pad.
        common = words.choice(LANGUAGES) if kind.form != "title" else None
        for i in range(len(scene.rule)):
            language = common or words.choice(LANGUAGES)
            for k in range(kind.pairs):
                same = [a for a in range(4) if not scene.masks[i, k] >> a & 1]
                unsaid = frozenset(a for a in same if words.random() < kind.unsaid)
                if len(unsaid) == 4:
                    unsaid = frozenset()
                product = Product(*(int(v) for v in scene.told[i, k]))
                # An episode is of one language mostly, as a shop's samples are.
                now = language if common or words.random() < 0.9 else words.choice(LANGUAGES)
                form = _form(kind, k, words)
                listing = write_listing(product, form, now, words, split=self._split, unsaid=unsaid)
                text, mentions = with_strange_words(listing.text, listing.spans, now, words)
                if k == kind.pairs - 1 and kind.odd and words.random() < kind.odd:
                    text, mentions = with_odd_lines(text, mentions, instructions[i].text, words)
                texts.append(str(PROMPT["text_prefix"]) + text)
                spans.append(mentions)
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        keep = self._sparse_patches(kind, scene.pictures.shape, rng)
        rows = []
        for i, instruction in enumerate(instructions):
            row = _Row()
            row.extend(self._parts["bos"], PLAIN, 0)
            row.extend(self.encode(self._worded(instruction)), PLAIN, 0)
            row.kinds[-1] = POLICY_END
            for k in range(kind.pairs):
                index = i * kind.pairs + k
                row.picture(self._parts["image"][0], self._picture_tokens, k, keep[i, k])
                row.extend(self._parts["after_image"], PLAIN, k)
                row.text(encoded[index], spans[index], len(str(PROMPT["text_prefix"])), k)
                row.extend(self._parts["after_text"], PLAIN, k)
                row.kinds[-1] = ANSWER
                label = "positive" if scene.labels[i, k] else "negative"
                row.extend(self._parts[label][:1], LABEL, k)
                row.extend(self._parts["after_answer"], PLAIN, k)
            rows.append(row)
        return rows

    def _worded(self, instruction: Instruction) -> str:
        return f"{PROMPT['before_instruction']}{instruction.text}{PROMPT['after_instruction']}"

    def _sparse_patches(
        self, kind: EpisodeKind, shape: tuple[int, ...], rng: np.random.Generator
    ) -> BoolArray:
        keep = np.ones((*shape, self._picture_tokens), bool)
        if kind.sparse:
            # One token of each attribute's four (see `vision.py`: token i tells i % 4).
            keep[:] = False
            choice = rng.integers(self._picture_tokens // 4, size=(*shape, 4)) * 4 + np.arange(4)
            np.put_along_axis(keep, choice, True, -1)
        return keep

    def _pad(self, rows: list[_Row], scene: _Scene, instructions: list[Instruction]) -> Batch:
        longest = max(len(row.ids) for row in rows)

        def stack(name: str) -> IntArray:
            table = np.zeros((len(rows), longest), np.int64)
            for i, row in enumerate(rows):
                values = getattr(row, name)
                table[i, : len(values)] = values
            return table

        return Batch(
            ids=stack("ids"),
            kinds=stack("kinds"),
            pair=stack("pair"),
            patch=stack("patch"),
            positions=stack("positions").astype(np.float32),
            pictures=scene.pictures,
            shown=scene.shown,
            told=scene.told,
            masks=scene.masks,
            answers=scene.answers,
            labels=scene.labels,
            rule=scene.rule,
            named=scene.named,
            wording=np.array([KINDS.index(said.kind) for said in instructions]),
            mentioned=np.array([[a in said.mentioned for a in range(4)] for said in instructions]),
        )


@dataclass(frozen=True, slots=True)
class _Scene:
    rule: IntArray
    named: BoolArray
    pictures: IntArray
    shown: IntArray
    told: IntArray
    masks: IntArray
    answers: BoolArray
    labels: BoolArray


class _Row:
    """One episode as growing lists of tokens."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.pair: list[int] = []
        self.patch: list[int] = []
        self.positions: list[int] = []
        self._position = 0

    def extend(self, ids: Sequence[int], kind: int, pair: int) -> None:
        n = len(ids)
        self.ids += ids
        self.kinds += [kind] * n
        self.pair += [pair] * n
        self.patch += [0] * n
        self.positions += range(self._position, self._position + n)
        self._position += n

    def picture(self, image_id: int, tokens: int, pair: int, keep: BoolArray) -> None:
        for patch in np.nonzero(keep)[0]:
            self.ids.append(image_id)
            self.kinds.append(PICTURE)
            self.pair.append(pair)
            self.patch.append(int(patch))
            self.positions.append(self._position + int(patch))
        self._position += tokens

    def text(
        self, encoding: Encoding, spans: Sequence[tuple[int, int, int]], shift: int, pair: int
    ) -> None:
        start = len(self.ids)
        limit = int(PROMPT["max_text_tokens"])
        self.extend(encoding.ids[:limit], PLAIN, pair)
        begins = [begin for begin, _ in encoding.offsets[:limit]]
        for attribute, _, end in spans:
            # The last token that begins inside the mention: only there is it whole.
            token = int(np.searchsorted(begins, end + shift, side="left")) - 1
            if token < len(begins) - 1 or len(begins) < limit:
                self.kinds[start + token] = attribute + 1


def _form(kind: EpisodeKind, pair: int, words: random.Random) -> str:
    if kind.titles and pair < kind.pairs - 1:
        return "title"
    return words.choice(_MIXED) if kind.form == "mixed" else kind.form


def _draw_differences(
    kind: EpisodeKind, shape: tuple[int, int], rng: np.random.Generator
) -> BoolArray:
    """bool [B, K, 4]: which attributes differ in each pair."""
    episodes, _ = shape
    share = np.full((episodes, 5), (1 - kind.same) / 4)
    burst = rng.random(episodes) < kind.bursts
    chosen = np.argsort(rng.random((episodes, 4)), 1)[:, :2]
    two_only = np.zeros((episodes, 5))
    two_only[np.arange(episodes)[:, None], chosen] = (1 - kind.same) / 2
    share[burst] = two_only[burst]
    share[:, 4] = kind.same
    edges = np.cumsum(share, 1)[:, None, :-1]
    which = (rng.random((*shape, 1)) > edges).sum(-1)
    different = np.arange(4) == which[..., None]
    second = (which + rng.integers(1, 4, size=shape)) % 4
    also = (rng.random(shape) < kind.two) & (which < 4)
    return different | ((np.arange(4) == second[..., None]) & also[..., None])
