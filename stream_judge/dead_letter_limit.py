"""Stops a worker that would dead-letter everything, as after a bad deploy."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from stream_judge.errors import DeadLetterLimitError
from stream_judge.verdict import Outcome

# So many at the start, all of them dead letters, say as much as a full sample does.
_FIRST = 20


class DeadLetterLimit:
    """Counts dead letters among the last outcomes.

    Args:
        share: Of dead letters that is still let through, 0..1; 1 lets all through.
        sample: Outcomes that are looked at.
    """

    def __init__(self, share: float, sample: int) -> None:
        self._share = share
        self._last: deque[bool] = deque(maxlen=sample)
        self._sample = sample
        self._newest = ""

    def admit(self, run: Sequence[Outcome]) -> None:
        """Count a run that is about to be published.

        Raises:
            DeadLetterLimitError: With it there would be too many dead letters.
        """
        for outcome in run:
            bad = outcome.kind == "dead_letter"
            self._last.append(bad)
            if bad:
                self._newest = outcome.code
        seen, dead = len(self._last), sum(self._last)
        full = seen == self._sample and dead > self._share * seen
        hopeless = min(_FIRST, self._sample) <= seen == dead
        if self._share < 1 and (full or hopeless):
            raise DeadLetterLimitError(
                f"{run[0].record.place}: {dead} of the last {seen} outcomes are dead letters, the "
                f"newest with code {self._newest}; this run is not published. Look at the mapping "
                "and at what was deployed last, or raise window.dead_letter_limit"
            )
