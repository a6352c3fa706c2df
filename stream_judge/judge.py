"""One event in, one outcome out. The worker and `stream-judge judge` both come here."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from stream_judge.decision import aggregate, calibrate, decide
from stream_judge.errors import (
    BrokenInvariantError,
    ConfigError,
    DecodeError,
    ImageError,
    ImageMissingError,
    NoPolicyError,
    StreamJudgeError,
    TextEmptyError,
)
from stream_judge.events import ProductUpdate, SourceRecord
from stream_judge.images.loader import LoadedImage
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.outage import Outages
from stream_judge.policy import Policy, PolicySet
from stream_judge.rows import LISTING_FAULTS, JudgeClient, Rows, together
from stream_judge.settings import WindowSettings
from stream_judge.triton import ModelSpec
from stream_judge.verdict import Findings, ImageOutcome, Outcome, VerdictWriter

_log = structlog.get_logger(__name__)
Observer = Callable[[str, dict[str, Any]], None]
# No model reads more than a few thousand tokens, and the server cuts what it gets for itself:
# what is beyond would only fill the wire.
_MAX_TEXT_CHARS = 100_000
# Of no record: what comes next would fare no better.
_FATAL = (MemoryError, ConfigError, BrokenInvariantError)


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
        model: What the server said about its model; pictures are prepared for it.
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
        self._loader = loader
        self._writer = writer
        self._metrics = metrics
        self._rows = Rows(client, model, window, metrics, outages or Outages())
        self._observe: Observer = observer or (lambda step, detail: None)

    async def check_policies(self) -> None:
        """Judge a grey picture under every policy: it fits the model, and is resident then.

        Raises:
            PolicyError: The model server refuses one.
            ConfigError: The model wants other pictures by now.
        """
        for policy in self._policies.policies:
            await self._rows.check(policy)

    async def judge(self, record: SourceRecord) -> Outcome:
        """The one outcome of a record.

        Raises:
            ConfigError: What the operator has set cannot work (any longer).
            BrokenInvariantError: A defect that concerns every record.
        """
        try:
            return await self._attempt(record)
        except _FATAL:
            raise
        except Exception:  # noqa: BLE001 - the edge of the main loop: tried once more
            _log.exception("judging_failed", place=record.place, attempt=1)
        try:
            return await self._attempt(record)
        except _FATAL:
            raise
        except Exception as exc:  # noqa: BLE001 - the edge of the main loop: a dead letter
            error = StreamJudgeError(
                f"{record.place}: {type(exc).__name__} in stream_judge itself: {exc}",
                code="internal_error",
            )
            _log.exception("judging_failed", place=record.place, attempt=2, code=error.code)
            return self._dead_letter(record, error, "judge", 2, traceback.format_exc())

    async def _attempt(self, record: SourceRecord) -> Outcome:
        if record.value is None:
            return self._tombstone(record)
        try:
            with self._metrics.stage("decode"):
                update = self._mapping.update(record)
            self._observe("mapped", _describe(update))
        except DecodeError as exc:
            self._observe("dead_letter", {"code": exc.code, "message": exc.message})
            return self._dead_letter(record, exc, "decode", 1)
        found = Findings(update)
        try:
            await self._judge_update(update, found)
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
        text = text.lstrip()[:_MAX_TEXT_CHARS]
        if not text:
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
        results = await together(self._load_one(url) for url in urls)
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
        pictures = [image.pixels for _, image in loaded]
        rows, spec = await self._rows.judge(pictures, text, policy)
        found.model_name, found.model_version = spec.name, spec.version
        found.model_digest = rows[0].model_digest
        for (index, _), row in zip(loaded, rows, strict=True):
            found.tokens_used, found.tokens_cut = row.tokens_used, row.tokens_cut
            if row.status in LISTING_FAULTS:
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
