"""The language decoder: rows in, scores out.

A row is a picture's embeddings, a text, and a policy (its digest, or its bundle). Rows of
one policy share the policy's prefix: one key/value cache of batch size 1, computed once
and never expanded. It lies in the host's memory: a CPU reads it where it is, to a GPU ONNX
Runtime copies all of it in every run. A bad row gets a status; its neighbours do not notice,
whatever is wrong with it.
"""

from __future__ import annotations

import json
import logging
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
from .prompt import PromptError, PromptTemplate, PromptTokenizer, Query, Text
from .sessions import open_session

Array = NDArray[np.float32]
_log = logging.getLogger(__name__)

#: What a row's status may be; a closed list.
STATUSES = (
    "ok",
    "policy_unknown",
    "policy_invalid",
    "policy_too_long",
    "text_empty",
    "bad_embeddings",
    "internal",
)
_DIGEST_LENGTH = 64
# About a title: where a policy leaves room for less, judging would be guessing.
_LEAST_TEXT_TOKENS = 64


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
        device: Number of the GPU that the graphs run on, if there is one.
        cache_bytes: The host's memory for resident policy prefixes.
        cache_entries: How many policies stay resident.
        batch_tokens: Query tokens, padding included, in one run of the graph.
        batch_attention: The same, times the positions that each attends to; a row that is
            over it by itself runs alone. Attention takes about 12 bytes a head for each: the
            default is 0.8 GB with six heads.
    """

    threads: int = 1
    device: int = 0
    cache_bytes: int = 512 * 1024 * 1024
    cache_entries: int = 64
    batch_tokens: int = 8192
    batch_attention: int = 10 * 1024 * 1024


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
        self._options = options
        graphs = (folder / "prefix.onnx", folder / "verdict.onnx", vision)
        self._prefix_graph, self._verdict_graph, self._vision = (
            open_session(graph, threads=options.threads, device=options.device) for graph in graphs
        )
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
        texts: dict[bytes, Text] = {}
        groups: dict[str, list[_Asked]] = defaultdict(list)
        for index, row in enumerate(rows):
            asked = self._take_in(index, row, texts, results[index])
            if asked is not None:
                groups[asked.prefix.digest].append(asked)
        for group in groups.values():
            for batch in self._batches(group):
                self._run_apart(batch, results)
        return results

    def register(self, data: bytes) -> Prefix:
        """Make a policy resident from its bundle; its prefix is computed unless it is.

        Raises:
            PromptError: `policy_invalid`, or `policy_too_long` if it does not fit the model.
        """
        digest = digest_of(data)
        prefix = self._cache.get(digest)
        if prefix is None:
            prefix = self._compute(digest, data)
            self._cache.put(prefix)
        return prefix

    def _take_in(
        self, index: int, row: Row, texts: dict[bytes, Text], result: Result
    ) -> _Asked | None:
        """What is asked for, or None and a status in the result."""
        try:
            asked = self._ask(index, row, texts)
        except PromptError as exc:
            result.status = exc.status
            return None
        except Exception:  # noqa: BLE001 - whatever it is, it is this row's alone
            _log.exception("a row cannot be read")
            result.status = "internal"
            return None
        result.tokens = (asked.query.used, asked.query.cut)
        return asked

    def _ask(self, index: int, row: Row, texts: dict[bytes, Text]) -> _Asked:
        shape = (self.picture_tokens, self.width)
        if row.embeddings.shape != shape or not np.isfinite(row.embeddings).all():
            raise PromptError(f"embeddings are not finite {shape}", "bad_embeddings")
        prefix = self._prefix(row.policy)
        # A listing of several pictures has as many rows, all of the same text.
        if row.text not in texts:
            texts[row.text] = self._prompt.read(row.text.decode("utf-8", "replace"))
        query = self._prompt.query(texts[row.text], prefix.max_text_tokens)
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
        limit = self._text_limit(len(ids), bundle.max_text_tokens)
        embeddings = np.zeros((1, self.picture_tokens, self.width), np.float32)
        if len(bundle.pixels):
            (embeddings,) = self._vision.run(None, {"pixels": bundle.pixels})
        flat = embeddings.reshape(1, -1, self.width).astype(np.float32)
        outputs = [output.name for output in self._prefix_graph.get_outputs()]
        values = self._prefix_graph.run(
            outputs, {"input_ids": np.array([ids], np.int64), "image_embeddings": flat}
        )
        keys_values = dict(zip(self._past_names, values, strict=True))
        return Prefix(digest, len(ids), keys_values, limit)

    def _text_limit(self, prefix_tokens: int, wanted: int | None) -> int:
        """Tokens of text that are read behind a prefix; texts are cut to it."""
        most = self._prompt.template.max_text_tokens
        wanted = min(wanted or most, most)
        room = self._max_positions - prefix_tokens - self._prompt.frame_tokens
        if room < min(wanted, _LEAST_TEXT_TOKENS):
            raise PromptError(f"{prefix_tokens} tokens leave no room for texts", "policy_too_long")
        return min(wanted, room)

    def _batches(self, group: list[_Asked]) -> Iterator[list[_Asked]]:
        """Rows of like length together, so that a long text does not pad the short ones."""
        batch: list[_Asked] = []
        for asked in sorted(group, key=lambda asked: asked.order):
            longest = len(asked.query.ids)
            fits = self._fits(len(batch) + 1, longest, asked.prefix.length)
            wasteful = batch and longest > 1.5 * len(batch[0].query.ids) + 32
            if batch and (wasteful or not fits):
                yield batch
                batch = []
            batch.append(asked)
        if batch:
            yield batch

    def _fits(self, rows: int, longest: int, prefix_tokens: int) -> bool:
        """Whether so many rows can run together: layers grow with the one, attention the other."""
        tokens = rows * longest
        attention = tokens * (prefix_tokens + longest)
        return tokens <= self._options.batch_tokens and attention <= self._options.batch_attention

    def _run_apart(self, batch: list[_Asked], results: list[Result]) -> None:
        """Run a batch; one that fails again row by row, so that only the guilty row fails."""
        try:
            self._run(batch, results)
        except Exception:  # noqa: BLE001 - unrelated requests share a batch
            _log.exception("a batch of %d rows failed", len(batch))
            if len(batch) == 1:
                results[batch[0].index].status = "internal"
                return
            for asked in batch:
                self._run_apart([asked], results)

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
