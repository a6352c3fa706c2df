"""The language decoder: rows in, scores out.

A row is a picture's embeddings, a text, and a policy (its digest, or its bundle). Rows of
one policy share the policy's prefix: one key/value cache of batch size 1, computed once,
never copied. A bad row gets a status; its neighbours do not notice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .bundle import BundleError, digest_of, unpack_bundle
from .prefixes import Prefix, PrefixCache
from .prompt import PromptError, PromptTemplate, PromptTokenizer, Query
from .sessions import open_session

Array = NDArray[np.float32]

#: What a row's status may be; a closed list.
STATUSES = (
    "ok",
    "policy_unknown",
    "policy_invalid",
    "text_empty",
    "text_too_long",
    "bad_embeddings",
    "internal",
)
_DIGEST_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One judgement that is asked for.

    Attributes:
        embeddings: float32 [T, D], the picture's embeddings.
        text: The listing's text, UTF-8.
        policy: A bundle's digest (64 hex digits) or the bundle itself.
    """

    embeddings: Array
    text: bytes
    policy: bytes


@dataclass(slots=True)
class Result:
    """One judgement; NaN where `status` is not `ok`.

    Attributes:
        status: One of `STATUSES`.
        raw_score: P(yes) against no, 0..1.
        logits: (yes, no).
        answer_mass: P(yes or no) within the whole vocabulary, 0..1.
        tokens: Text tokens (used, cut).
    """

    status: str = "ok"
    raw_score: float = float("nan")
    logits: tuple[float, float] = (float("nan"), float("nan"))
    answer_mass: float = float("nan")
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """Bounds of the decoder.

    Attributes:
        threads: Intra-op threads of each session.
        cache_bytes: Memory for resident policy prefixes.
        cache_entries: How many policies stay resident.
        batch_tokens: Query tokens, padding included, in one run of the graph.
    """

    threads: int = 1
    cache_bytes: int = 512 * 1024 * 1024
    cache_entries: int = 64
    batch_tokens: int = 8192


@dataclass(slots=True)
class _Asked:
    index: int
    row: Row
    query: Query
    prefix: Prefix
    order: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.order = (len(self.query.ids), self.index)


class LanguageDecoder:
    """Judges rows with the graphs in a model folder.

    Args:
        folder: Holds `prefix.onnx`, `verdict.onnx`, their data, `tokenizer.json`,
            `prompt.json` and `decoder.json`.
        vision: The vision encoder's ONNX file; it encodes the samples' pictures.
        options: Bounds.

    Raises:
        ValueError: If tokenizer, template and graphs do not fit each other.
    """

    def __init__(self, folder: Path, vision: Path, options: DecoderOptions) -> None:
        import json

        self._options = options
        self._prefix_graph = open_session(folder / "prefix.onnx", threads=options.threads)
        self._verdict_graph = open_session(folder / "verdict.onnx", threads=options.threads)
        self._vision = open_session(vision, threads=options.threads)
        shape = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
        self.picture_tokens = int(shape["picture_tokens"])
        self.width = int(shape["width"])
        self.image_size = int(shape["image_size"])
        self._max_positions = int(shape["max_positions"])
        self._prompt = PromptTokenizer(
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            PromptTemplate.read(folder / "prompt.json"),
            picture_tokens=self.picture_tokens,
        )
        self._cache = PrefixCache(max_bytes=options.cache_bytes, max_entries=options.cache_entries)
        self._past_names = [
            i.name for i in self._verdict_graph.get_inputs() if i.name.startswith("prefix_")
        ]

    def judge(self, rows: Sequence[Row]) -> list[Result]:
        """Results in the order of the rows; a row's score does not depend on the others."""
        results = [Result() for _ in rows]
        groups: dict[str, list[_Asked]] = defaultdict(list)
        for index, row in enumerate(rows):
            try:
                asked = self._ask(index, row)
            except PromptError as exc:
                results[index].status = exc.status
                continue
            results[index].tokens = (asked.query.used, asked.query.cut)
            groups[asked.prefix.digest].append(asked)
        for group in groups.values():
            for batch in self._batches(group):
                self._run(batch, results)
        return results

    def register(self, data: bytes) -> Prefix:
        """Make a policy resident from its bundle; its prefix is computed unless it is.

        Raises:
            PromptError: `policy_invalid`, or `text_too_long` if it does not fit the model.
        """
        digest = digest_of(data)
        prefix = self._cache.get(digest)
        if prefix is None:
            prefix = self._compute(digest, data)
            self._cache.put(prefix)
        return prefix

    def _ask(self, index: int, row: Row) -> _Asked:
        shape = (self.picture_tokens, self.width)
        if row.embeddings.shape != shape or not np.isfinite(row.embeddings).all():
            raise PromptError(f"embeddings are not finite {shape}", "bad_embeddings")
        prefix = self._prefix(row.policy)
        text = row.text.decode("utf-8", "replace")
        query = self._prompt.query(text, prefix.max_text_tokens)
        if prefix.length + len(query.ids) > self._max_positions:
            raise PromptError("policy and text do not fit the model", "text_too_long")
        return _Asked(index, row, query, prefix)

    def _prefix(self, policy: bytes) -> Prefix:
        if len(policy) == _DIGEST_LENGTH:
            known = self._cache.get(policy.decode("ascii", "replace"))
            if known is None:
                raise PromptError("send the bundle", "policy_unknown")
            return known
        return self.register(policy)

    def _compute(self, digest: str, data: bytes) -> Prefix:
        try:
            bundle = unpack_bundle(data, size=self.image_size)
        except BundleError as exc:
            raise PromptError(str(exc), "policy_invalid") from exc
        try:
            ids = self._prompt.prefix(bundle.instruction, bundle.samples)
        except PromptError as exc:
            raise PromptError(str(exc), "policy_invalid") from exc
        if len(ids) >= self._max_positions:
            raise PromptError("the policy does not fit the model", "text_too_long")
        embeddings = np.zeros((1, self.picture_tokens, self.width), np.float32)
        if len(bundle.pixels):
            (embeddings,) = self._vision.run(None, {"pixels": bundle.pixels})
        flat = embeddings.reshape(1, -1, self.width).astype(np.float32)
        outputs = [output.name for output in self._prefix_graph.get_outputs()]
        values = self._prefix_graph.run(
            outputs, {"input_ids": np.array([ids], np.int64), "image_embeddings": flat}
        )
        keys_values = dict(zip(self._past_names, values, strict=True))
        return Prefix(digest, len(ids), keys_values, bundle.max_text_tokens)

    def _batches(self, group: list[_Asked]) -> Iterator[list[_Asked]]:
        """Rows of like length together, so that a long text does not pad the short ones."""
        batch: list[_Asked] = []
        for asked in sorted(group, key=lambda asked: asked.order):
            longest = len(asked.query.ids)
            padded = longest * (len(batch) + 1)
            wasteful = batch and longest > 1.5 * len(batch[0].query.ids) + 32
            if batch and (padded > self._options.batch_tokens or wasteful):
                yield batch
                batch = []
            batch.append(asked)
        if batch:
            yield batch

    def _run(self, batch: list[_Asked], results: list[Result]) -> None:
        logits = self._verdict_graph.run(["logits"], self._feeds(batch))[0]
        for asked, line in zip(batch, logits.astype(np.float64), strict=True):
            result = results[asked.index]
            if not np.isfinite(line).all():
                result.status = "internal"
                continue
            yes, no = float(line[self._prompt.positive]), float(line[self._prompt.negative])
            top = float(line.max())
            everything = top + float(np.log(np.exp(line - top).sum()))
            result.logits = (yes, no)
            result.raw_score = float(1 / (1 + np.exp(no - yes)))
            result.answer_mass = float(np.exp(yes - everything) + np.exp(no - everything))

    def _feeds(self, batch: list[_Asked]) -> dict[str, NDArray[Any]]:
        prefix = batch[0].prefix
        longest = max(len(asked.query.ids) for asked in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        positions = np.zeros((len(batch), longest), np.int64)
        for i, asked in enumerate(batch):
            # Padding goes to the left: the last column is every row's question.
            start = longest - len(asked.query.ids)
            ids[i, start:] = asked.query.ids
            mask[i, start:] = 1
            positions[i, start:] = np.arange(prefix.length, prefix.length + longest - start)
        return {
            "input_ids": ids,
            "image_embeddings": np.stack([asked.row.embeddings for asked in batch]),
            "attention_mask": mask,
            "position_ids": positions,
            **prefix.keys_values,
        }


def manifest_digest(repository: Path) -> str:
    """The model's name in every verdict: sha256 of the repository's `manifest.json`."""
    return hashlib.sha256((repository / "manifest.json").read_bytes()).hexdigest()
