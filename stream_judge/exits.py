"""The worker's exit codes; `docs/reliability.md` says what an operator does about each."""

from __future__ import annotations

from stream_judge.errors import (
    DeadLetterLimitError,
    LaneLostError,
    OffsetError,
    PublishError,
    StalledError,
)

OK, FATAL, STALLED, LANE_LOST, OFFSETS, DEAD_LETTERS, PUBLISH = 0, 70, 71, 72, 73, 74, 75
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (StalledError, STALLED),
    (LaneLostError, LANE_LOST),
    (OffsetError, OFFSETS),
    (DeadLetterLimitError, DEAD_LETTERS),
    (PublishError, PUBLISH),
)


def exit_code(error: BaseException | None) -> int:
    """The exit code of a worker that ends for this error; 0 for none."""
    if error is None:
        return OK
    return next((code for kind, code in _CODES if isinstance(error, kind)), FATAL)
