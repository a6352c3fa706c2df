"""The workers of a storm, under supervision as an orchestrator would keep them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from stream_judge.processes import ChildProcess

_RESTART_S = 0.5
# A worker ends a stop that hangs by itself, 30 s after its drain.
_STOP_S = 40.0
# What a worker logs when it was assigned partitions; a traceback may name the hook.
_ASSIGNED = '"event": "partitions_assigned"'
_ENDED = {signal.SIGTERM: 0, signal.SIGKILL: -signal.SIGKILL}
#: What a static member is told its name with.
INSTANCE_ID = "STREAM_JUDGE_KAFKA__INSTANCE_ID"


async def in_time(happened: Callable[[], object], seconds: float) -> bool:
    """Whether it happens within so many seconds; waits until then."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


class StormWorker:
    """A worker process, started by the crew."""

    def __init__(
        self, number: int, process: ChildProcess, lines: list[str], env: Mapping[str, str]
    ) -> None:
        self.number = number
        self.env = env
        self.process = process
        self.lines = lines
        self.frozen = False
        #: Those that the suite sent while it ran.
        self.signals: set[int] = set()

    @property
    def instance_id(self) -> str:
        """Its name as a static member; empty if it is none."""
        return self.env.get(INSTANCE_ID, "")

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return bool(self.process.pid) and self.process.exit_code is None

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.alive:
            os.kill(self.process.pid, number)
            self.signals.add(number)
        self.frozen = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(
            signal.Signals(number), self.frozen
        )

    def said(self, words: str) -> int:
        """How many of its log lines have these words."""
        return sum(words in line for line in self.lines)

    @property
    def partitions(self) -> int:
        """How many partitions it was assigned last."""
        return self._last_assigned("partitions")

    @property
    def generation(self) -> int:
        """The group's generation in which that was; 0 before the first."""
        return self._last_assigned("generation")

    def _last_assigned(self, field: str) -> int:
        for line in reversed(self.lines):
            if _ASSIGNED in line:
                return int(orjson.loads(line)[field])
        return 0


class Crew:
    """Keeps so many workers running.

    Args:
        command: Program and arguments of a worker.
        env: Its environment, beside this process's.
        wanted: How many are kept running.
        rng: Chooses among them.
        log: Where their log lines go: a file's name without the worker's number and suffix.
        says_it_works: Whether a worker logs that it was assigned partitions.
        static: Whether each is a static member: whoever replaces one takes its name.
    """

    def __init__(
        self,
        command: list[str],
        env: Mapping[str, str],
        wanted: int,
        rng: random.Random,
        *,
        log: Path | None = None,
        says_it_works: bool = True,
        static: bool = False,
    ) -> None:
        self.command = command
        self.env = dict(env)
        #: For the next worker that starts, and only for that one.
        self.next_env: dict[str, str] = {}
        self.wanted = wanted
        self.workers: list[StormWorker] = []
        self.exits: dict[str, int] = {}
        self._rng = rng
        self._log = log
        self.says_it_works = says_it_works
        self._static = static
        self._starting = asyncio.Lock()

    async def start(self) -> StormWorker:
        """Start one more."""
        async with self._starting:
            lines: list[str] = []
            number = len(self.workers) + 1
            environment = {**os.environ, **self.env, **self._name(), **self.next_env}
            self.next_env = {}
            keep = self._keeper(number, lines)
            process = ChildProcess(self.command, env=environment, on_line=keep)
            await process.start()
            started = StormWorker(number, process, lines, environment)
            self.workers.append(started)
            return started

    def _name(self) -> dict[str, str]:
        """A static member's name: the first that no worker has, as in a StatefulSet."""
        if not self._static:
            return {}
        taken = {worker.instance_id for worker in self.workers if worker.alive}
        names = (f"worker-{number}" for number in range(len(taken) + 1))
        return {INSTANCE_ID: next(name for name in names if name not in taken)}

    def living(self) -> list[StormWorker]:
        """Workers that run and are not frozen."""
        return [worker for worker in self.workers if worker.alive and not worker.frozen]

    def any(self) -> StormWorker:
        """One of them, by the seed."""
        found = self.living()
        if not found:
            raise AssertionError("no worker is alive")
        return self._rng.choice(found)

    async def owner(self, seconds: float = 40.0) -> StormWorker:
        """One that was assigned partitions, by the seed; waits until there is one."""
        if not self.says_it_works:
            return self.any()
        end = time.monotonic() + seconds
        while not (found := [worker for worker in self.living() if worker.partitions]):
            if time.monotonic() > end:
                raise TimeoutError("no worker has partitions")
            await asyncio.sleep(0.05)
        return self._rng.choice(found)

    async def until_working(self, worker: StormWorker, seconds: float = 40.0) -> None:
        """Wait until a worker has partitions, or is gone."""
        if not self.says_it_works:
            await asyncio.sleep(5.0)
            return
        end = time.monotonic() + seconds
        while worker.alive and not worker.said(_ASSIGNED):
            if time.monotonic() > end:
                raise TimeoutError(f"worker {worker.number} got no partitions")
            await asyncio.sleep(0.05)

    async def until_settled(self, partitions: int, seconds: float = 60.0) -> None:
        """Wait until all that are wanted own all partitions between them, in one generation."""
        if not self.says_it_works:
            await asyncio.sleep(5.0)
            return
        if not await in_time(lambda: self._is_settled(partitions), seconds):
            raise TimeoutError(f"the group has not settled within {seconds:.0f} s")

    def _is_settled(self, partitions: int) -> bool:
        members = self.living()
        return (
            len(members) >= self.wanted
            and len({worker.generation for worker in members}) == 1
            and sum(worker.partitions for worker in members) == partitions
        )

    async def end(self, worker: StormWorker, number: int = signal.SIGTERM) -> None:
        """End one by SIGTERM or SIGKILL; it has to end by that, and by nothing else."""
        worker.signal(number)
        await self.until_ended(worker, _ENDED[signal.Signals(number)])

    async def until_ended(self, worker: StormWorker, code: int, seconds: float = 60.0) -> None:
        """Wait until a worker has ended; it has to be with this exit code."""
        try:
            found = await asyncio.wait_for(worker.process.wait(), seconds)
        except TimeoutError as exc:
            raise TimeoutError(
                f"worker {worker.number} has not ended within {seconds:.0f} s"
            ) from exc
        # Other workers have other codes for what goes wrong.
        if self.says_it_works and found != code:
            raise AssertionError(f"worker {worker.number} ended with {found} and not with {code}")

    async def supervise(self) -> None:
        """Start a new worker for one that ended, until cancelled."""
        known: set[int] = set()
        while True:
            for worker in self.workers:
                code = worker.process.exit_code
                if code is not None and worker.number not in known:
                    known.add(worker.number)
                    self.exits[str(code)] = self.exits.get(str(code), 0) + 1
            while sum(worker.alive for worker in self.workers) < self.wanted:
                await asyncio.sleep(_RESTART_S)
                await self.start()
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Stop all of them, the frozen ones too."""
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        await asyncio.gather(*(worker.process.stop(_STOP_S) for worker in self.workers))

    def _keeper(self, number: int, lines: list[str]) -> Callable[[str], None]:
        path = self._log and self._log.with_name(f"{self._log.name}-{number}.log")

        def keep(line: str) -> None:
            lines.append(line)
            if path is not None:
                with path.open("a") as file:
                    file.write(line + "\n")

        return keep
