"""The worker's exit codes; `docs/reliability.md` says what an operator does about each."""

from __future__ import annotations

from stream_judge.errors import LaneLostError, OffsetError, PublishError

OK, FATAL, LANE_LOST, OFFSETS, PUBLISH = 0, 70, 72, 73, 75
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (LaneLostError, LANE_LOST),
    (OffsetError, OFFSETS),
    (PublishError, PUBLISH),
)


def exit_code(error: BaseException | None) -> int:
    """The exit code of a worker that ends for this error; 0 for none."""
    if error is None:
        return OK
    return next((code for kind, code in _CODES if isinstance(error, kind)), FATAL)
