"""Outages of what the operator owns: known while they last, waited for, never an outcome."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

Result = TypeVar("Result")
# So often an attempt has to fail, each time with an answer to something else since the time
# before, until it can be said to fail alone.
_ALONE_TIMES = 5


class Outages:
    """Which dependencies are out now; one for a worker.

    Args:
        on_change: Told the name of a dependency, and whether it is out.
    """

    def __init__(self, on_change: Callable[[str, bool], None] = lambda name, out: None) -> None:
        self._on_change = on_change
        self._out: dict[str, set[str]] = {}

    @property
    def names(self) -> list[str]:
        """What is out, in alphabetical order."""
        return sorted(self._out)

    def begin(self, name: str, part: str = "") -> None:
        """A dependency, or a part of it, does not answer."""
        if name not in self._out:
            self._on_change(name, True)
        self._out.setdefault(name, set()).add(part)

    def end(self, name: str, part: str = "") -> None:
        """It answers; the dependency is out until its last part does."""
        parts = self._out.get(name)
        if parts is None:
            return
        parts.discard(part)
        if not parts:
            del self._out[name]
            self._on_change(name, False)


class Tells(Enum):
    """What an attempt that ended, and met no outage, tells of the dependency.

    Attributes:
        ANSWERS: It works: who fails meanwhile fails alone.
        REACHED: Something of it is there, or in front of it: the others may try, and none of
            them is at fault for it.
        NOTHING: The attempt was not at it.
    """

    ANSWERS = "answers"
    REACHED = "reached"
    NOTHING = "nothing"


# Of the error that an attempt ended with, or None: it gave a result.
Telling = Callable[[Exception | None], Tells]


@dataclass(slots=True)
class Failures:
    """Those of one caller of a circuit, as far as others got answers between them.

    Attributes:
        tells: What the ends of this caller's attempts tell.
        answered: Answers that there had been, to anybody, at the last look.
        alone: Failures with answers to others since the one before.
        since: When the first of them was.
        wait_s: The caller's own wait, where the dependency is not out; 0 for none.
        part: What is out then, of the dependency.
    """

    tells: Telling
    answered: int
    part: str
    alone: int = 0
    since: float = 0.0
    wait_s: float = 0.0


class Circuit:
    """Repeats attempts at one dependency for as long as it is out.

    Closed, all attempts go through at once. An attempt that meets an outage opens it: then
    one caller at a time tries, after a wait that doubles with every failure; the others wait
    for what it finds. So a server that comes back is met by one request, not by a window of
    them, and no time-out ever becomes an outcome.

    Args:
        name: Of the dependency.
        outages: Told when it opens and closes, and of callers that wait by themselves.
        part: Which part of the dependency, where several have circuits.
        first_s: First wait, seconds.
        last_s: Longest wait, seconds; a dependency that is back is noticed within it.
        is_outage: Whether an error is an outage; any other is the caller's to handle.
        tells: What an attempt that met no outage tells of the dependency, where its caller does
            not know better; by default that it answers, whatever is wrong with the attempt.
        alone_s: An attempt that goes on failing for so long while others get answers has met
            no outage: it fails alone. None: it is repeated for ever. Others are other callers,
            and what `call` is given to ask where there may be none.
        on_retry: Told of every failed attempt, and the wait before the next one.
        sleep: Waits.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        name: str,
        outages: Outages,
        *,
        part: str = "",
        first_s: float,
        last_s: float,
        is_outage: Callable[[Exception], bool],
        tells: Telling = lambda end: Tells.ANSWERS,
        alone_s: float | None = None,
        on_retry: Callable[[Exception, float], None] = lambda exc, wait_s: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._outages = outages
        self._part = part
        self._first_s = first_s
        self._last_s = last_s
        self._is_outage = is_outage
        self._tells = tells
        self._alone_s = alone_s
        self._clock = clock
        self._answered = 0
        self._on_retry = on_retry
        self._sleep = sleep
        self._callers = 0
        self._turn = asyncio.Lock()
        self._wait_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the dependency is known to be out."""
        return self._wait_s > 0

    async def call(
        self,
        attempt: Callable[[], Awaitable[Result]],
        answers_else: Callable[[], Awaitable[bool]] | None = None,
    ) -> Result:
        """The result of an attempt, however long the dependency is out.

        Args:
            attempt: Tries.
            answers_else: Whether the dependency answers something else; asked after every
                failure, since all the other callers may be waiting behind this one. While it
                does, the circuit stays closed, and only this caller waits.

        Raises:
            Exception: What the attempt raises that is no outage, or that it meets alone.
        """
        with self.caller() as failures:
            return await self.repeat(failures, attempt, answers_else)

    @contextmanager
    def caller(self, tells: Telling | None = None) -> Iterator[Failures]:
        """Within it, the failures of one caller are counted, who may go elsewhere in between.

        Args:
            tells: What the ends of its attempts tell; None: as those of all others.
        """
        self._callers += 1
        part = f"{self._part}#{self._callers}"
        failures = Failures(tells or self._tells, self._answered, part)
        try:
            yield failures
        finally:
            self._outages.end(self._name, failures.part)

    async def repeat(
        self,
        failures: Failures,
        attempt: Callable[[], Awaitable[Result]],
        answers_else: Callable[[], Awaitable[bool]] | None = None,
        *,
        failed: Exception | None = None,
    ) -> Result:
        """As `call`, for a caller that comes more than once.

        Args:
            failures: The caller's, of `caller`.
            attempt: Tries.
            answers_else: See `call`.
            failed: An outage that the caller has met already, outside.

        Raises:
            Exception: What the attempt raises that is no outage, or that it meets alone.
        """
        ask = answers_else or _unknown
        if failed is not None:
            await self._note(failed, ask, failures, probing=False)
        while True:
            if failures.wait_s:
                await self._pause(failures.wait_s)
            if not self.is_open and (
                found := await self._try(attempt, ask, failures, probing=False)
            ):
                return found[0]
            async with self._turn:
                if self.is_open:
                    await self._pause(self._wait_s)
                    if found := await self._try(attempt, ask, failures, probing=True):
                        return found[0]

    async def _pause(self, seconds: float) -> None:
        # Jitter spreads the workers' attempts; it touches no score.
        await self._sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311

    async def _try(
        self,
        attempt: Callable[[], Awaitable[Result]],
        ask: Callable[[], Awaitable[bool]],
        failures: Failures,
        *,
        probing: bool,
    ) -> tuple[Result] | None:
        """What an attempt gives; None if it has to be repeated."""
        try:
            result = await attempt()
        except Exception as exc:
            if not self._is_outage(exc):
                self._heed(failures.tells(exc), probing=probing)
                raise
            await self._note(exc, ask, failures, probing=probing)
            return None
        self._heed(failures.tells(None), probing=probing)
        return (result,)

    async def _note(
        self,
        exc: Exception,
        ask: Callable[[], Awaitable[bool]],
        failures: Failures,
        *,
        probing: bool,
    ) -> None:
        """Have an outage waited for; raises it where it is met alone."""
        is_out = not await ask()
        if not is_out:
            self._answer(probing=probing)
        if self._fails_alone(failures):
            if probing:
                self._close()
            raise exc
        self._prolong(exc, failures, is_out=is_out, probing=probing)

    def _fails_alone(self, failures: Failures) -> bool:
        """Count one more failure of a caller: is it, by now, the only one who fails."""
        if self._alone_s is None or self._answered == failures.answered:
            return False
        failures.answered = self._answered
        failures.alone += 1
        if failures.alone == 1:
            failures.since = self._clock()
        lasted = self._clock() - failures.since
        return failures.alone >= _ALONE_TIMES and lasted >= self._alone_s

    def _heed(self, told: Tells, *, probing: bool) -> None:
        if told is Tells.ANSWERS:
            self._answer(probing=probing)
        elif told is Tells.REACHED and probing:
            self._close()

    def _answer(self, *, probing: bool) -> None:
        self._answered += 1
        if probing:
            self._close()

    def _close(self) -> None:
        self._wait_s = 0.0
        self._outages.end(self._name, self._part)

    def _prolong(self, exc: Exception, failures: Failures, *, is_out: bool, probing: bool) -> None:
        """Set the wait before the next attempt: everybody's, or this caller's own."""
        if not is_out:
            failures.wait_s = self._longer(failures.wait_s)
            # It waits for long, and is no more stuck than one that waits for an outage.
            self._outages.begin(self._name, failures.part)
            self._on_retry(exc, failures.wait_s)
            return
        failures.wait_s = 0.0
        if not self.is_open or probing:
            self._wait_s = self._longer(self._wait_s)
        self._outages.begin(self._name, self._part)
        self._on_retry(exc, self._wait_s)

    def _longer(self, wait_s: float) -> float:
        return min(2 * wait_s, self._last_s) if wait_s else self._first_s


async def _unknown() -> bool:
    return False
