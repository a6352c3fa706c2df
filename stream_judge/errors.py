"""The tree of stream_judge's errors.

    StreamJudgeError
    ├── ConfigError               settings, mappings, policies that cannot work
    │   ├── EnvironmentProblem    platform, port in use, disk full
    │   └── PolicyError           a policy file that cannot work
    ├── DecodeError               a record that is no product update
    ├── NoPolicyError             no policy applies to a product
    ├── ImageError                one picture of one product
    │   ├── ImageMissingError     the event names none
    │   ├── ImageUrlError         not a URL that may be fetched
    │   ├── ImageBlockedError     an address that must not be reached
    │   ├── ImageNotFoundError    gone (404, 410 and other 4xx)
    │   ├── ImageUnreachableError refused, reset, 5xx (retriable)
    │   │   ├── NameUnresolvedError   its host's name leads nowhere (retriable)
    │   │   ├── ImageAnswerError      an answer that is of no use (retriable)
    │   │   ├── StoreOutError         the operator's own store is out: waited for (retriable)
    │   │   └── ResolverOutError      no name resolves: waited for (retriable)
    │   ├── ImageTimeoutError     too slow (retriable)
    │   ├── ImageTooLargeError    bytes or pixels over the limit
    │   └── ImageDecodeError      not a picture
    ├── TextError                 the text of one product
    │   └── TextEmptyError
    ├── InferenceError            the model server
    │   ├── TritonUnavailableError (retriable)
    │   ├── TritonTimeoutError     (retriable)
    │   └── BadOutputError         (retriable)
    ├── BrokerError               the broker cannot be asked, or does not answer (retriable)
    │   └── PublishError          it did not confirm a record (retriable)
    ├── LaneLostError             another worker has taken a partition over
    ├── OffsetError               the group has no usable offset for a partition
    ├── StalledError              no progress although there is work
    ├── DeadLetterLimitError      too many of the last outcomes are dead letters
    ├── BrokenInvariantError      a defect: the code relies on what is not so
    └── ExportError               a checkpoint that cannot be exported

`code` is what verdicts, dead letters and metrics carry; `retriable` says whether the
same attempt may succeed later.

Two subclasses stand where they are raised: `RowFault` in `judge.py`, `TokenError` in
`kafka_oauth.py`. `serving/` imports nothing of the worker: its `PromptError` and `BundleError`
are `ValueError`s of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    # This module is imported where no package is installed.
    from pydantic import ValidationError


class StreamJudgeError(Exception):
    """Root of the tree.

    Args:
        message: What happened, to which record, and what to do.
        code: Another code than the class's.
        context: Names of what it happened to (topic, partition, offset, url, path, ...).
    """

    code: str = "error"
    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.context = context
        if code is not None:
            self.code = code


class ConfigError(StreamJudgeError):
    """Settings, a mapping or a file of the operator cannot work as they are."""

    code = "config"


class EnvironmentProblem(ConfigError):
    """The machine lacks something: platform, package, port, disk."""

    code = "environment"


class PolicyError(ConfigError):
    """A policy file cannot work as it is."""

    code = "policy_invalid"


class DecodeError(StreamJudgeError):
    """A record cannot be read as a product update."""

    code = "bad_event"


class NoPolicyError(StreamJudgeError):
    """No policy applies to a product."""

    code = "no_policy"


class ImageError(StreamJudgeError):
    """One picture of one product cannot be judged."""

    code = "image_failed"


class ImageMissingError(ImageError):
    """The event names no picture."""

    code = "image_missing"


class ImageUrlError(ImageError):
    """Not a URL that may be fetched: scheme, userinfo, port, syntax."""

    code = "image_bad_url"


class ImageBlockedError(ImageError):
    """The URL leads to an address that must not be reached."""

    code = "image_blocked"


class ImageNotFoundError(ImageError):
    """The host says that there is no such picture."""

    code = "image_not_found"


class ImageUnreachableError(ImageError):
    """The host or its name server is down, resets, or answers 5xx."""

    code = "image_unreachable"
    retriable = True


class NameUnresolvedError(ImageUnreachableError):
    """The name of a picture's host leads nowhere: the seller's fault, or the resolver's."""


class ImageAnswerError(ImageUnreachableError):
    """The host answers, but nothing of use: the picture's own fault, whoever owns the host."""


class StoreOutError(ImageUnreachableError):
    """A host of the operator's own picture store is out: an outage, not the seller's fault.

    Args:
        message: What happened.
        origin: Scheme, host and port of what is out.
    """

    def __init__(self, message: str, *, origin: str) -> None:
        super().__init__(message, origin=origin)
        self.origin = origin


class ResolverOutError(ImageUnreachableError):
    """No name resolves, not even the operator's canary: an outage, not the seller's fault."""


class ImageTimeoutError(ImageError):
    """The picture did not arrive in time."""

    code = "image_timeout"
    retriable = True


class ImageTooLargeError(ImageError):
    """The picture has more bytes or pixels than allowed."""

    code = "image_too_large"


class ImageDecodeError(ImageError):
    """The bytes are no picture of an allowed format."""

    code = "image_undecodable"


class TextError(StreamJudgeError):
    """The text of one product cannot be judged."""

    code = "text_failed"


class TextEmptyError(TextError):
    """Nothing is left of the text after normalisation."""

    code = "text_empty"


class InferenceError(StreamJudgeError):
    """The model server did not judge."""

    code = "inference_failed"


class TritonUnavailableError(InferenceError):
    """The model server cannot be reached, or the model is not loaded."""

    code = "triton_unavailable"
    retriable = True


class TritonTimeoutError(InferenceError):
    """The model server did not answer in time."""

    code = "triton_timeout"
    retriable = True


class BadOutputError(InferenceError):
    """The model server answered something else than its contract."""

    code = "bad_output"
    retriable = True


class BrokerError(StreamJudgeError):
    """The broker lets nobody in, refuses what is asked, or does not answer."""

    code = "broker_unavailable"
    retriable = True


class PublishError(BrokerError):
    """The broker did not confirm a record."""

    code = "publish_failed"


class LaneLostError(StreamJudgeError):
    """Another worker has committed for a partition that this one thought its own."""

    code = "lane_lost"


class OffsetError(StreamJudgeError):
    """A partition's committed offset is missing or out of range; an operator decides."""

    code = "offset_missing"


class StalledError(StreamJudgeError):
    """The worker makes no progress although there is work."""

    code = "stalled"


class DeadLetterLimitError(StreamJudgeError):
    """Too many of the last outcomes are dead letters: something is wrong with all of them."""

    code = "too_many_dead_letters"


class BrokenInvariantError(StreamJudgeError):
    """The code relies on something that is not so: a defect, and nobody's outcome.

    What follows from it may be wrong for every record, so it ends the process. An
    AssertionError does not: a library may raise one over what a seller wrote.
    """

    code = "broken_invariant"


class ExportError(StreamJudgeError):
    """A checkpoint cannot be exported."""

    code = "export_failed"


def one_line(exc: ValidationError) -> str:
    """Where each mistake of an operator's file or settings is, and what it is, in one line.

    Values are left out: one may be a secret.
    """
    mistakes = (
        (".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, "))
        for error in exc.errors(include_url=False, include_input=False)
    )
    return "; ".join(f"{where}: {what}" if where else what for where, what in mistakes)
