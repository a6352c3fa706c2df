"""The records that an outcome becomes: verdict, dead letter, tombstone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from stream_judge.decision import Judgement
from stream_judge.errors import BrokenInvariantError, StreamJudgeError
from stream_judge.events import Headers, ProductUpdate, SourceRecord
from stream_judge.policy import Decision, Policy

SCHEMA = 1
_SORTED = orjson.OPT_SORT_KEYS
# What an error says of itself must not make its dead letter too large to send.
_MAX_MESSAGE, _MAX_STACKTRACE = 2_000, 4_000
# Nobody has said what to do without a policy: people look.
_WITHOUT_POLICY: Decision = "review"
# Version 00, no all-zero ids (W3C Trace Context).
_TRACEPARENT = re.compile(
    rb"00-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
)
#: Where the judged record lies: topic, partition, offset.
SOURCE_HEADERS = ("sj-source-topic", "sj-source-partition", "sj-source-offset")
#: Ours begin with it in a dead letter, behind the headers of the record itself.
FIRST_OF_LETTER = "__streams.errors.exception"
Kind = Literal["judged", "unjudgeable", "dead_letter", "tombstone"]
Destination = Literal["verdicts", "dead_letters"]


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One record to publish.

    Attributes:
        destination: Which topic.
        key: Key bytes, or None.
        value: Value bytes, or None for a tombstone.
        headers: In order.
    """

    destination: Destination
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source record.

    Attributes:
        record: The source record.
        kind: Which of the four it is.
        code: Reason or error code; closed lists.
        decision: For verdicts.
        outputs: What is published, in order.
    """

    record: SourceRecord
    kind: Kind
    code: str
    decision: Decision | None
    outputs: tuple[OutputRecord, ...]


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """One picture in a verdict.

    Attributes:
        url: As the event gave it.
        sha256: Of the file; None if it could not be had.
        width: Pixels; None if it could not be decoded.
        height: The same.
        score: Calibrated, 0..1; None if it was not judged.
        code: Why it was not judged; None if it was.
    """

    url: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    score: float | None = None
    code: str | None = None

    @property
    def identity(self) -> str:
        """What stands for the picture in the verdict's id: its digest, or why there is none."""
        return self.sha256 if self.sha256 is not None and self.code is None else str(self.code)


@dataclass(slots=True)
class Findings:
    """What is known of a record when its verdict is written; filled as judging goes on."""

    update: ProductUpdate
    policy: Policy | None = None
    images: list[ImageOutcome] = field(default_factory=list)
    text_sha256: str | None = None
    tokens_used: int | None = None
    tokens_cut: int | None = None
    judgement: Judgement | None = None
    answer_mass: float | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_digest: str | None = None


class VerdictWriter:
    """Builds outcomes.

    Args:
        source: CloudEvents `source` of what is published.
        max_record_bytes: Largest record that the output topics take.
    """

    def __init__(self, *, source: str, max_record_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_record_bytes

    def judged(self, record: SourceRecord, found: Findings) -> Outcome:
        """A verdict with a score.

        Raises:
            BrokenInvariantError: There is none.
        """
        judgement = found.judgement
        if judgement is None:
            raise BrokenInvariantError(f"{record.place}: a verdict without a judgement")
        verdict = self._verdict(record, found, "judged", judgement.reason, judgement.decision)
        return self._fitting(record, found, verdict, judgement.reason, judgement.decision)

    def unjudgeable(self, record: SourceRecord, found: Findings, code: str) -> Outcome:
        """A verdict that says why there is no score; the gate is never left waiting."""
        decision = found.policy.file.on_unjudgeable if found.policy else _WITHOUT_POLICY
        verdict = self._verdict(record, found, "unjudgeable", code, decision)
        return self._fitting(record, found, verdict, code, decision)

    def tombstone(self, record: SourceRecord, product_id: str) -> Outcome:
        """The deletion of a product's verdict."""
        headers = self._headers(record, "tombstone", product_id, _now())
        output = OutputRecord("verdicts", product_id.encode(), None, headers)
        return Outcome(record, "tombstone", "tombstone", None, (output,))

    def dead_letter(
        self,
        record: SourceRecord,
        error: StreamJudgeError,
        *,
        stage: str,
        attempts: int,
        product_id: str | None,
        stacktrace: str = "",
    ) -> Outcome:
        """The record's own bytes and headers, and a verdict where the product is known."""
        origin = {
            "message": error.message[:_MAX_MESSAGE],
            # The end of a traceback says most.
            "stacktrace": stacktrace[-_MAX_STACKTRACE:],
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
        }
        headers: list[tuple[str, bytes | None]] = [
            (FIRST_OF_LETTER, type(error).__name__.encode()),
            *((f"__streams.errors.{name}", _utf8(text)) for name, text in origin.items()),
            ("sj-code", error.code.encode()),
            ("sj-stage", stage.encode()),
            ("sj-attempts", str(attempts).encode()),
            *_source_headers(record),
        ]
        outputs = [self._letter(record, headers)]
        decision: Decision | None = None
        if product_id is not None:
            update = ProductUpdate(product_id, None, (), ())
            verdict = self.unjudgeable(record, Findings(update), error.code)
            outputs += verdict.outputs
            decision = verdict.decision
        return Outcome(record, "dead_letter", error.code, decision, tuple(outputs))

    def _letter(
        self, record: SourceRecord, headers: list[tuple[str, bytes | None]]
    ) -> OutputRecord:
        """The dead letter; what is too large to be sent goes, and is named by its digest."""
        key, value, own = record.key, record.value, record.headers
        if key is None and value is None:
            headers = [*headers, ("sj-null", b"1")]
        if _size(key, value, (*own, *headers)) > self._max_bytes and value is not None:
            headers = [*headers, *_omitted("value", value)]
            value = None
        if _size(key, value, (*own, *headers)) > self._max_bytes and own:
            content = b"".join(name.encode() + (field or b"") for name, field in own)
            headers = [*headers, *_omitted("headers", content)]
            own = ()
        if _size(key, value, headers) > self._max_bytes and key is not None:
            headers = [*headers, *_omitted("key", key)]
            key = None
        if key is None and value is None:
            # Kafka clients refuse a record with neither.
            value = b""
        return OutputRecord("dead_letters", key, value, (*own, *headers))

    def _fitting(
        self,
        record: SourceRecord,
        found: Findings,
        verdict: dict[str, Any],
        code: str,
        decision: Decision,
    ) -> Outcome:
        kind: Kind = verdict["outcome"]
        output = self._output(record, verdict)
        if _size(output.key, output.value, output.headers) > self._max_bytes:
            verdict["images"] = [{**image, "url": None} for image in verdict["images"]]
            output = self._output(record, verdict)
        if _size(output.key, output.value, output.headers) > self._max_bytes:
            kind, code = "unjudgeable", "verdict_too_large"
            bare = replace(found, images=[], judgement=None, answer_mass=None)
            decision = found.policy.file.on_unjudgeable if found.policy else _WITHOUT_POLICY
            verdict = self._verdict(record, bare, kind, code, decision)
            # Of what was judged, not of what is left; and another one than under a larger limit.
            verdict["verdict_id"] = _verdict_id(found, code)
            output = self._output(record, verdict)
        return Outcome(record, kind, code, decision, (output,))

    def _output(self, record: SourceRecord, verdict: dict[str, Any]) -> OutputRecord:
        product_id = str(verdict["product_id"])
        headers = (
            *self._headers(record, "verdict", product_id, verdict["judged_at"]),
            ("content-type", b"application/json"),
        )
        return OutputRecord("verdicts", product_id.encode(), orjson.dumps(verdict), headers)

    def _headers(self, record: SourceRecord, kind: str, product_id: str, time: str) -> Headers:
        return (
            ("ce_specversion", b"1.0"),
            ("ce_type", f"stream_judge.{kind}.v1".encode()),
            ("ce_source", self._source.encode()),
            # Of the event, not of the content: a product that goes back to an earlier text
            # has that text's verdict id again, and consumers drop repeated CloudEvents ids.
            ("ce_id", record.place.encode()),
            ("ce_subject", product_id.encode()),
            ("ce_time", time.encode()),
            *_trace_headers(record),
            *_source_headers(record),
        )

    def _verdict(
        self, record: SourceRecord, found: Findings, outcome: Kind, reason: str, decision: Decision
    ) -> dict[str, Any]:
        update, policy, judged = found.update, found.policy, found.judgement
        thresholds = policy.file.thresholds.model_dump() if policy else None
        return {
            "schema": SCHEMA,
            "verdict_id": _verdict_id(found),
            "product_id": update.product_id,
            "revision": update.revision,
            "outcome": outcome,
            "verdict": judged.verdict if judged else None,
            "decision": decision,
            "reason": reason,
            "score": judged.score if judged else None,
            "raw_score": judged.raw_score if judged else None,
            "answer_mass": found.answer_mass,
            "thresholds": thresholds,
            "images": [
                {
                    "url": image.url,
                    "sha256": image.sha256,
                    "width": image.width,
                    "height": image.height,
                    "score": image.score,
                    "code": image.code,
                }
                for image in found.images
            ],
            "text": {
                "sha256": found.text_sha256,
                "tokens": found.tokens_used,
                "truncated": None if found.tokens_cut is None else found.tokens_cut > 0,
            },
            "policy": policy
            and {
                "id": policy.id,
                "version": policy.file.version,
                "digest": policy.digest,
                "samples": len(policy.file.samples),
            },
            "model": found.model_digest
            and {
                "name": found.model_name,
                "version": found.model_version,
                "digest": found.model_digest,
            },
            "rationale": None,
            "source": {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp_ms,
            },
            "judged_at": _now(),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _verdict_id(found: Findings, *codes: str) -> str:
    """The same content judged the same way has the same id, also when it is judged again.

    Args:
        found: What was judged, and by what.
        codes: Why nothing came of it, beside the codes of its pictures.
    """
    content = {
        "product_id": found.update.product_id,
        "revision": found.update.revision,
        "text": found.text_sha256,
        "images": [*(image.identity for image in found.images), *codes],
        "policy": found.policy.digest if found.policy else None,
        "model": found.model_digest,
    }
    return hashlib.sha256(orjson.dumps(content, option=_SORTED)).hexdigest()


def _source_headers(record: SourceRecord) -> tuple[tuple[str, bytes], ...]:
    place = (record.topic, str(record.partition), str(record.offset))
    return tuple((name, part.encode()) for name, part in zip(SOURCE_HEADERS, place, strict=True))


def _trace_headers(record: SourceRecord) -> Headers:
    """W3C trace context: the source's trace if it has one, else a new one.

    Ids come from the record's place, so that a repeated record has the same ones.
    """
    digest = hashlib.sha256(record.place.encode()).hexdigest()
    given = dict(record.headers)
    parent = _TRACEPARENT.fullmatch(given.get("traceparent") or b"")
    if parent is None:
        return (("traceparent", f"00-{digest[:32]}-{digest[32:48]}-01".encode()),)
    trace_id, flags = parent["trace"].decode(), parent["flags"].decode()
    own = ("traceparent", f"00-{trace_id}-{digest[32:48]}-{flags}".encode())
    state = given.get("tracestate")
    # W3C: at least 512 characters must be passed on; more may be dropped.
    return (own, ("tracestate", state)) if state and len(state) <= 512 else (own,)


def _omitted(part: str, content: bytes) -> tuple[tuple[str, bytes], ...]:
    return (
        (f"sj-{part}-omitted", b"1"),
        (f"sj-{part}-sha256", hashlib.sha256(content).hexdigest().encode()),
        (f"sj-{part}-length", str(len(content)).encode()),
    )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _size(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> int:
    # A batch around one record costs about 100 bytes more.
    named = sum(len(name) + len(content or b"") + 8 for name, content in headers)
    return len(key or b"") + len(value or b"") + named + 100
