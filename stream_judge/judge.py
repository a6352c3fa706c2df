"""One event in, one outcome out. The worker, replay and `judge` all come here."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from stream_judge.decision import aggregate, calibrate, decide
from stream_judge.errors import (
    BadOutputError,
    ConfigError,
    DecodeError,
    ImageError,
    ImageMissingError,
    InferenceError,
    NoPolicyError,
    PolicyError,
    StreamJudgeError,
    TextEmptyError,
)
from stream_judge.events import ProductUpdate, SourceRecord
from stream_judge.images.loader import LoadedImage
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.outage import Circuit, Outages
from stream_judge.policy import Policy, PolicySet
from stream_judge.settings import WindowSettings
from stream_judge.triton import ModelSpec, PolicyBundle, RowResult
from stream_judge.verdict import Findings, ImageOutcome, Outcome, VerdictWriter

_log = structlog.get_logger(__name__)
Observer = Callable[[str, dict[str, Any]], None]
# Row statuses that are the listing's own fault.
_LISTING_FAULTS = frozenset({"text_empty", "text_too_long"})
_PROBE_TEXT = "A product."
# A tokenizer takes about 2 s for a million characters, and no model reads more than a few
# thousand tokens: what is beyond would only hold up the server.
_MAX_TEXT_CHARS = 100_000


class JudgeClient(Protocol):
    """What judging needs of the model server."""

    async def judge(self, pixels: NDArray[np.uint8], text: str, bundle: PolicyBundle) -> RowResult:
        """The answer to one row."""
        ...


class Loader(Protocol):
    """What judging needs of pictures."""

    async def load(self, url: str) -> LoadedImage:
        """The picture behind a URL."""
        ...


class RowFault(StreamJudgeError):
    """The model server refused one row for the listing's own fault; `code` says which."""


class Judge:
    """Judges records.

    Order: none; each call is on its own. Errors of the record become outcomes; an outage of
    the model server makes the call wait, retrying, for as long as it lasts. Cancelling a
    call leaves nothing behind.

    Args:
        mapping: Reads events.
        policies: Chooses and describes policies.
        model: What the server said about its model.
        loader: Fetches pictures.
        client: The model server.
        writer: Builds outcomes.
        window: Waits between attempts.
        metrics: Counts.
        observer: Told every step, for `stream-judge judge`.
        outages: Told when the model server is out.
    """

    def __init__(
        self,
        *,
        mapping: Mapping,
        policies: PolicySet,
        model: ModelSpec,
        loader: Loader,
        client: JudgeClient,
        writer: VerdictWriter,
        window: WindowSettings,
        metrics: Metrics,
        observer: Observer | None = None,
        outages: Outages | None = None,
    ) -> None:
        self._mapping = mapping
        self._policies = policies
        self._model = model
        self._loader = loader
        self._client = client
        self._writer = writer
        self._metrics = metrics
        self._circuit = Circuit(
            "triton",
            outages or Outages(),
            first_s=window.retry_first_s,
            last_s=window.retry_last_s,
            is_outage=is_model_outage,
            on_retry=self._report_outage,
        )
        self._observe: Observer = observer or (lambda step, detail: None)
        side = model.pixels.size
        self._probe = np.full((side, side, 3), 127, np.uint8)

    async def check_policies(self) -> None:
        """Judge a grey picture under every policy: it fits the model, and is resident then.

        Raises:
            PolicyError: The model server refuses one.
        """
        for policy in self._policies.policies:
            row = await self._circuit.call(partial(self._probe_row, policy))
            if row.status != "ok":
                raise PolicyError(f"policy {policy.id}: the model server answers {row.status}")

    async def judge(self, record: SourceRecord) -> Outcome:
        """The one outcome of a record."""
        try:
            return await self._attempt(record)
        except (MemoryError, ConfigError):
            raise
        except Exception:  # noqa: BLE001 - the edge of the main loop: tried once more
            _log.exception("record_failed", place=record.place)
        try:
            return await self._attempt(record)
        except (MemoryError, ConfigError):
            raise
        except Exception as exc:  # noqa: BLE001 - the edge of the main loop: a dead letter
            error = StreamJudgeError(
                f"{record.place}: {type(exc).__name__} in stream_judge itself: {exc}",
                code="internal_error",
            )
            _log.exception("record_dead_lettered", place=record.place, code=error.code)
            return self._dead_letter(record, error, "judge", 2, traceback.format_exc())

    async def _attempt(self, record: SourceRecord) -> Outcome:
        if record.value is None:
            return self._tombstone(record)
        found = Findings(
            model_name=self._model.name,
            model_version=self._model.version,
        )
        try:
            with self._metrics.stage("decode"):
                found.update = self._mapping.update(record)
            self._observe("mapped", _describe(found.update))
        except DecodeError as exc:
            self._observe("dead_letter", {"code": exc.code, "message": exc.message})
            return self._dead_letter(record, exc, "decode", 1)
        try:
            await self._judge_update(found.update, found)
        except (ImageError, TextEmptyError, NoPolicyError, RowFault) as exc:
            self._observe("unjudgeable", {"code": exc.code, "message": exc.message})
            return self._writer.unjudgeable(record, found, exc.code)
        return self._writer.judged(record, found)

    def _tombstone(self, record: SourceRecord) -> Outcome:
        product_id = self._mapping.key_to_product_id(record)
        if product_id is not None:
            return self._writer.tombstone(record, product_id)
        error = DecodeError(
            f"{record.place}: a tombstone whose key names no product; see key_to_product_id"
        )
        return self._dead_letter(record, error, "decode", 1)

    def _dead_letter(
        self,
        record: SourceRecord,
        error: StreamJudgeError,
        stage: str,
        attempts: int,
        stacktrace: str = "",
    ) -> Outcome:
        return self._writer.dead_letter(
            record,
            error,
            stage=stage,
            attempts=attempts,
            product_id=self._mapping.product_id(record),
            stacktrace=stacktrace,
        )

    async def _judge_update(self, update: ProductUpdate, found: Findings) -> None:
        policy = found.policy = self._policies.choose(update)
        self._observe("policy", {"id": policy.id, "digest": policy.digest})
        text = update.text(policy.file.text.fields)
        found.text_sha256 = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        self._observe("text", {"text": text})
        text = text[:_MAX_TEXT_CHARS]
        if not text.strip():
            raise TextEmptyError(f"product {update.product_id}: no text in the policy's fields")
        with self._metrics.stage("images"):
            loaded = await self._load(update, policy, found)
        with self._metrics.stage("infer"):
            raw_scores = await self._infer(loaded, text, policy, found)
        raw_score = aggregate(raw_scores, policy.file.images.aggregate)
        found.judgement = decide(raw_score, policy.file.calibration, policy.file.thresholds)
        self._observe(
            "decided",
            {
                "score": found.judgement.score,
                "verdict": found.judgement.verdict,
                "decision": found.judgement.decision,
                "reason": found.judgement.reason,
            },
        )

    async def _load(
        self, update: ProductUpdate, policy: Policy, found: Findings
    ) -> list[tuple[int, LoadedImage]]:
        """The pictures that count, with their places in `found.images`."""
        rules = policy.file.images
        urls = update.image_urls[: 1 if rules.aggregate == "primary" else rules.max]
        if not urls:
            raise ImageMissingError(f"product {update.product_id}: the event names no picture")
        results = await asyncio.gather(*(self._load_one(url) for url in urls))
        found.images = [outcome for outcome, _, _ in results]
        errors = [error for _, _, error in results if error is not None]
        for outcome in found.images:
            self._observe("image", {"url": outcome.url, "sha256": outcome.sha256} | _why(outcome))
        # Under `all` the picture that is missing could be the one that does not match.
        if errors and (rules.aggregate != "any" or len(errors) == len(urls)):
            raise errors[0]
        return [(i, image) for i, (_, image, _) in enumerate(results) if image is not None]

    async def _load_one(
        self, url: str
    ) -> tuple[ImageOutcome, LoadedImage | None, ImageError | None]:
        try:
            loaded = await self._loader.load(url)
        except ImageError as exc:
            return ImageOutcome(url, code=exc.code), None, exc
        outcome = ImageOutcome(url, loaded.sha256, loaded.width, loaded.height)
        return outcome, loaded, None

    async def _infer(
        self,
        loaded: list[tuple[int, LoadedImage]],
        text: str,
        policy: Policy,
        found: Findings,
    ) -> list[float]:
        rows = await asyncio.gather(*(self._row(image.pixels, text, policy) for _, image in loaded))
        for (index, _), row in zip(loaded, rows, strict=True):
            found.tokens_used, found.tokens_cut = row.tokens_used, row.tokens_cut
            found.model_digest = row.model_digest
            if row.status in _LISTING_FAULTS:
                raise RowFault(f"the model server says {row.status}", code=row.status)
            before = found.images[index]
            score = calibrate(row.raw_score, policy.file.calibration)
            found.images[index] = ImageOutcome(
                before.url, before.sha256, before.width, before.height, score
            )
            self._observe("inferred", {"raw_score": row.raw_score, "tokens": row.tokens_used})
        chosen = aggregate([row.raw_score for row in rows], policy.file.images.aggregate)
        found.answer_mass = next(r.answer_mass for r in rows if r.raw_score == chosen)
        return [row.raw_score for row in rows]

    async def _row(self, pixels: NDArray[np.uint8], text: str, policy: Policy) -> RowResult:
        """One row, however long the model server is out.

        A server that fails a row of ours, too, is out; one that fails only this row has met
        a listing that it cannot take, which must not stop the partition.

        Raises:
            PolicyError: The server refuses the policy.
        """

        async def attempt() -> RowResult:
            row = await self._client.judge(pixels, text, policy.bundle)
            if row.status == "ok" or row.status in _LISTING_FAULTS:
                return row
            probe = await self._probe_row(policy)
            if probe.status == "policy_invalid":
                raise PolicyError(f"policy {policy.id}: the model server answers {probe.status}")
            if probe.status != "ok":
                raise BadOutputError(f"the model server answers sound rows with {probe.status}")
            raise RuntimeError(f"the model server answers only this row with {row.status}")

        return await self._circuit.call(attempt)

    async def _probe_row(self, policy: Policy) -> RowResult:
        return await self._client.judge(self._probe, _PROBE_TEXT, policy.bundle)

    def _report_outage(self, exc: Exception, wait_s: float) -> None:
        assert isinstance(exc, InferenceError)
        self._metrics.retries.labels(exc.code).inc()
        _log.warning("model_server_out", code=exc.code, message=exc.message, wait_s=wait_s)


def is_model_outage(exc: Exception) -> bool:
    """Whether an error means that the model server is out."""
    return isinstance(exc, InferenceError) and exc.retriable


def _describe(update: ProductUpdate) -> dict[str, Any]:
    return {
        "product_id": update.product_id,
        "revision": update.revision,
        "category": update.category,
        "locale": update.locale,
        "seller": update.seller,
        "fields": dict(update.fields),
        "images": list(update.image_urls),
    }


def _why(outcome: ImageOutcome) -> dict[str, Any]:
    if outcome.code is not None:
        return {"code": outcome.code}
    return {"width": outcome.width, "height": outcome.height}
