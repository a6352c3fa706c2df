"""The JSON Schema of verdicts, version 1: fields may be added, never changed or removed."""

from __future__ import annotations

from typing import Any

from stream_judge.errors import (
    ImageBlockedError,
    ImageDecodeError,
    ImageMissingError,
    ImageNotFoundError,
    ImageTimeoutError,
    ImageTooLargeError,
    ImageUnreachableError,
    ImageUrlError,
)

_IMAGE_CODES = tuple(
    error.code
    for error in (
        ImageMissingError,
        ImageUrlError,
        ImageBlockedError,
        ImageNotFoundError,
        ImageUnreachableError,
        ImageTimeoutError,
        ImageTooLargeError,
        ImageDecodeError,
    )
)
#: Every `reason` a verdict may carry.
REASONS = (
    "above_publish",
    "between_thresholds",
    "below_block",
    *_IMAGE_CODES,
    "text_empty",
    "text_too_long",
    "no_policy",
    "bad_event",
    "internal_error",
    "verdict_too_large",
)


def _maybe(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


def _object(properties: dict[str, Any], *, optional: bool = False) -> dict[str, Any]:
    return {
        "type": ["object", "null"] if optional else "object",
        "properties": properties,
        "required": list(properties),
    }


def verdict_schema() -> dict[str, Any]:
    """The schema as a JSON-ready dict."""
    unit = {"minimum": 0, "maximum": 1}
    digest = {"pattern": "^[0-9a-f]{64}$"}
    image = _object(
        {
            "url": _maybe("string"),
            "sha256": _maybe("string", **digest),
            "width": _maybe("integer"),
            "height": _maybe("integer"),
            "score": _maybe("number", **unit),
            "code": {"enum": [*_IMAGE_CODES, None]},
        }
    )
    named = {"id": {"type": "string"}, "version": {"type": "integer"}}
    properties = {
        "schema": {"const": 1},
        "verdict_id": {"type": "string", **digest},
        "product_id": {"type": "string"},
        "revision": {"type": ["integer", "string", "null"]},
        "outcome": {"enum": ["judged", "unjudgeable"]},
        "verdict": {
            "enum": ["relevant", "not_relevant", None],
            "description": "as the decision: publish is relevant, block not_relevant; under "
            "review relevant from a score of 0.5 on; null where nothing was judged",
        },
        "decision": {
            "enum": ["publish", "review", "block"],
            "description": "by the policy's thresholds; on_unjudgeable where nothing was judged, "
            "and review where no policy applies",
        },
        "reason": {"enum": list(REASONS)},
        "score": _maybe("number", description="calibrated P(relevant)", **unit),
        "raw_score": _maybe("number", **unit),
        "answer_mass": _maybe(
            "number", description="probability of both answers in the whole vocabulary", **unit
        ),
        "thresholds": _object(
            {"block": {"type": "number", **unit}, "publish": {"type": "number", **unit}},
            optional=True,
        ),
        "images": {"type": "array", "items": image},
        "text": _object(
            {
                "sha256": _maybe("string", **digest),
                "tokens": _maybe("integer"),
                "truncated": _maybe("boolean"),
            }
        ),
        "policy": _object(
            {**named, "digest": {"type": "string", **digest}, "samples": {"type": "integer"}},
            optional=True,
        ),
        "model": _object(
            {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "digest": {"type": "string", **digest},
            },
            optional=True,
        ),
        "rationale": _maybe("string"),
        "source": _object(
            {
                "topic": {"type": "string"},
                "partition": {"type": "integer"},
                "offset": {"type": "integer"},
                "timestamp": {"type": "integer", "description": "milliseconds since the epoch"},
            }
        ),
        "judged_at": {"type": "string", "format": "date-time"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stream_judge verdict, version 1",
        **_object(properties),
    }
