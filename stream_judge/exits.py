"""Exit codes; `docs/reliability.md` says what an operator does about each."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from stream_judge.errors import (
    BrokerError,
    DeadLetterLimitError,
    LaneLostError,
    OffsetError,
    StalledError,
)

#: Of a command whose question the broker did not answer.
UNAVAILABLE = 69
OK, FATAL, STALLED, LANE_LOST, OFFSETS, DEAD_LETTERS, PUBLISH = 0, 70, 71, 72, 73, 74, 75
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (StalledError, STALLED),
    (LaneLostError, LANE_LOST),
    (OffsetError, OFFSETS),
    (DeadLetterLimitError, DEAD_LETTERS),
    (BrokerError, PUBLISH),
)


def exit_code(error: BaseException | None) -> int:
    """The exit code of a worker that ends for this error; 0 for none."""
    if error is None:
        return OK
    return next((code for kind, code in _CODES if isinstance(error, kind)), FATAL)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Until the block ends, SIGTERM and SIGINT end the process with 0; main thread only.

    For a worker that has read nothing yet; its event loop takes the signals over.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: os._exit(OK)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
