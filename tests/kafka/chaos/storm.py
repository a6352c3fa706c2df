"""One storm: a cluster, a stub model server, workers under supervision, a load, a verdict."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from stream_judge.processes import ChildProcess
from stream_judge.settings import KafkaSettings
from stream_judge.testing_triton import StubTriton
from stream_judge.topics import create_topics
from tests.kafka.chaos.checker import Findings, SourceEntry, check, passed_over
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.load import LoadGenerator, LoadPlan
from tests.kafka.chaos.logs import read_committed, read_outcomes, read_source
from tests.kafka.chaos.topics import delete_source

_HERE = Path(__file__).parent
_PLAIN_FAUST = _HERE.parents[2] / "bench/plain_faust.py"
_RESTART_S = 0.5
_POLL_S = 0.2
_MOST_EXITS = 30
#: How long a storm may go on after its load and faults are over, seconds.
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class StormOptions:
    """What a storm is.

    Attributes:
        records: Source records.
        seed: Of every choice.
        partitions: Of the source topic.
        publisher: "transactional", "plain", or "faust" for `bench/plain_faust.py`.
        workers: Kept running by the supervisor.
        session_timeout_s: Of the group.
    """

    records: int = 600
    seed: int = 0
    partitions: int = 4
    publisher: str = "transactional"
    workers: int = 2
    session_timeout_s: float = 6.0


@dataclass(slots=True)
class Result:
    """A storm's verdict; the keys of the JSON that is printed."""

    fault: str
    seed: int
    records: int
    publisher: str
    partitions: int
    lost: int = 0
    repeated: int = 0
    order_breaks: int = 0
    committed_past: int = 0
    altered: int = 0
    dead_letters: int = 0
    dead_letters_expected: int = 0
    hang: int = 0
    recovery_s: float | None = None
    held_back_s: float = 0.0
    seconds: float = 0.0
    exits: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything that is promised was kept."""
        broken = self.lost + self.repeated + self.order_breaks + self.committed_past
        letters = self.dead_letters == self.dead_letters_expected
        return broken + self.altered + self.hang == 0 and letters

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class StormWorker:
    """A worker process, started by the supervisor."""

    def __init__(self, number: int, process: ChildProcess, lines: list[str]) -> None:
        self.number = number
        self.process = process
        self.lines = lines
        self.frozen = False

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return bool(self.process.pid) and self.process.exit_code is None

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.alive:
            os.kill(self.process.pid, number)
        self.frozen = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(
            signal.Signals(number), self.frozen
        )

    def said(self, words: str) -> int:
        """How many of its log lines have these words."""
        return sum(words in line for line in self.lines)


class Storm:
    """What a fault works with.

    Args:
        cluster: Where it happens.
        options: Size and seed.
        env: Environment of the workers, beside what the storm sets.
        plan: The load.
        kafka: Their Kafka settings, beside those.
        judged: Whether every sound update has to be judged.
        log: Folder for the workers' logs.
    """

    def __init__(
        self,
        cluster: StormCluster,
        options: StormOptions,
        plan: LoadPlan,
        *,
        env: Mapping[str, str] | None = None,
        kafka: Mapping[str, Any] | None = None,
        judged: bool = False,
        log: Path | None = None,
    ) -> None:
        name = uuid.uuid4().hex[:8]
        self.cluster = cluster
        self.options = options
        self.rng = random.Random(f"storm/{options.seed}")
        given: dict[str, Any] = {
            "bootstrap_servers": cluster.bootstrap,
            "application": f"storm-{name}",
            "topic": f"updates-{name}",
            "verdict_topic": f"verdicts-{name}",
            "dead_letter_topic": f"letters-{name}",
            "publisher": "transactional" if options.publisher == "transactional" else "plain",
            "session_timeout_s": options.session_timeout_s,
            "transaction_deadline_s": 4.0,
            "transaction_timeout_s": 8.0,
            "request_timeout_s": 8.0,
        }
        self.settings = KafkaSettings(**given | dict(kafka or {}))
        self.env = dict(env or {})
        #: For the next worker that starts, and only for that one.
        self.next_env: dict[str, str] = {}
        program = _PLAIN_FAUST if options.publisher == "faust" else _HERE / "worker_process.py"
        self.command = [sys.executable, str(program)]
        # Heavy-tailed, as a busy server is: 15 ms in the middle, some answers after a second.
        tail = random.Random(f"latency/{options.seed}")
        self.usual_latency = lambda: min(1.5, 0.015 * tail.paretovariate(1.6))
        self.latency: Callable[[], float] = self.usual_latency
        self.triton = StubTriton(latency_s=lambda: self.latency())
        self.load = LoadGenerator(self.settings, plan, options.partitions, options.seed)
        self.workers: list[StormWorker] = []
        self.exits: dict[str, int] = {}
        self.wanted = options.workers
        self.progress: list[tuple[float, int]] = []
        self.faults_over: list[float] = []
        self.held_back_s = 0.0
        self.passed = 0
        #: Source records that were judged before the source lost them.
        self.gone: list[SourceEntry] = []
        self._judged = judged
        self._log = log
        self._number = 0
        self._loading: asyncio.Task[None] | None = None
        self._start = asyncio.Lock()

    # -- workers

    async def start_worker(self) -> StormWorker:
        """Start one more."""
        async with self._start:
            self._number += 1
            lines: list[str] = []
            environment = {**os.environ, **self._environment(), **self.env, **self.next_env}
            self.next_env = {}
            process = ChildProcess(self.command, env=environment, on_line=self._keeper(lines))
            await process.start()
            started = StormWorker(self._number, process, lines)
            self.workers.append(started)
            return started

    def _keeper(self, lines: list[str]) -> Callable[[str], None]:
        number = self._number
        path = self._log and self._log / f"{self.settings.application}-{number}.log"

        def keep(line: str) -> None:
            lines.append(line)
            if path is not None:
                with path.open("a") as file:
                    file.write(line + "\n")

        return keep

    def _environment(self) -> dict[str, str]:
        changed = self.settings.model_dump(exclude_defaults=True, mode="json")
        env = {f"STREAM_JUDGE_KAFKA__{k.upper()}": str(v) for k, v in changed.items()}
        env["STREAM_JUDGE_KAFKA__BOOTSTRAP_SERVERS"] = self.cluster.workers_bootstrap
        return env | {
            "PYTHONPATH": str(_HERE.parents[2]),
            "STREAM_JUDGE_TRITON__URL": self.triton.url,
            "STREAM_JUDGE_TRITON__TIMEOUT_S": "5",
            "STREAM_JUDGE_POLICIES": str(_HERE / "policies"),
            "STREAM_JUDGE_WEB__PORT": "0",
            "STREAM_JUDGE_WINDOW__DRAIN_TIMEOUT_S": "2",
            "STREAM_JUDGE_WINDOW__RETRY_LAST_S": "2",
        }

    def living(self) -> list[StormWorker]:
        """Workers that run and are not frozen."""
        return [worker for worker in self.workers if worker.alive and not worker.frozen]

    def any_worker(self) -> StormWorker:
        """One of them, by the seed."""
        found = self.living()
        if not found:
            raise RuntimeError("no worker is alive")
        return self.rng.choice(found)

    async def until_working(self, worker: StormWorker, seconds: float = 40.0) -> None:
        """Wait until a worker has partitions, or is gone."""
        if self.options.publisher == "faust":
            # It does not say so.
            await asyncio.sleep(5.0)
            return
        end = time.monotonic() + seconds
        while worker.alive and not worker.said("partitions_assigned"):
            if time.monotonic() > end:
                raise TimeoutError(f"worker {worker.number} got no partitions")
            await asyncio.sleep(0.05)

    async def _supervise(self) -> None:
        """Start a new worker for one that ended, as an orchestrator would."""
        known: set[int] = set()
        while True:
            for worker in self.workers:
                code = worker.process.exit_code
                if code is not None and worker.number not in known:
                    known.add(worker.number)
                    self.exits[str(code)] = self.exits.get(str(code), 0) + 1
            while sum(worker.alive for worker in self.workers) < self.wanted:
                await asyncio.sleep(_RESTART_S)
                await self.start_worker()
            await asyncio.sleep(0.1)

    # -- what happens

    @asynccontextmanager
    async def fault(self) -> AsyncIterator[None]:
        """A fault that begins and ends; recovery is counted from its end."""
        yield
        self.faults_over.append(time.monotonic())

    async def until(self, share: float, seconds: float = 90.0) -> None:
        """Wait until this share of all records is committed."""
        least = share * self.options.records
        end = time.monotonic() + seconds
        while self._done() < least:
            if self._loading is not None and self._loading.done():
                # A load that failed is no hang of the workers.
                self._loading.result()
            if sum(self.exits.values()) > _MOST_EXITS:
                raise TimeoutError(f"workers end again and again: exit codes {self.exits}")
            if time.monotonic() > end:
                raise TimeoutError(f"{self._done()} of {least:.0f} committed after {seconds:.0f} s")
            await asyncio.sleep(0.05)

    async def look(self) -> None:
        """Prove, in the middle of it, that no offset is committed past its outcomes."""
        committed = await read_committed(self.settings)
        outcomes = await self._outcomes()
        source = await read_source(self.settings, self.options.partitions)
        self.passed += passed_over(source, *outcomes, committed)

    def _done(self) -> int:
        return self.progress[-1][1] if self.progress else 0

    async def forget_source(self) -> None:
        """Delete what is on the source now; what of it was judged stays to be accounted for."""
        committed = await read_committed(self.settings)
        source = await read_source(self.settings, self.options.partitions)
        self.gone = [e for e in source if e.place[1] < committed.get(e.place[0], 0)]
        await delete_source(self.settings, self.options.partitions)

    async def _watch(self) -> None:
        """Note the group's progress, and how long readers are held back."""
        held: dict[int, float] = {}
        while True:
            try:
                committed = await read_committed(self.settings)
                self.progress.append((time.monotonic(), sum(committed.values())))
                await self._note_held_back(held)
            except (KafkaError, OSError):
                # The broker may be part of the fault.
                held.clear()
            await asyncio.sleep(_POLL_S)

    async def _note_held_back(self, held: dict[int, float]) -> None:
        now = time.monotonic()
        for number, (stable, end) in (await self.cluster.ends(self.settings.verdict_topic)).items():
            if stable < end:
                since = held.setdefault(number, now)
                self.held_back_s = max(self.held_back_s, now - since)
            else:
                held.pop(number, None)

    async def _outcomes(self) -> tuple[list[Any], list[Any]]:
        return (
            await read_outcomes(self.settings, self.settings.verdict_topic),
            await read_outcomes(self.settings, self.settings.dead_letter_topic),
        )

    # -- from beginning to end

    async def create_topics(self) -> None:
        """Make the topics that are not there yet."""
        copies = min(3, self.cluster.nodes)
        await create_topics(self.settings, self.options.partitions, copies)

    async def run(
        self,
        name: str,
        fault: Callable[[Storm], Awaitable[None]],
        *,
        create: Callable[[Storm], Awaitable[None]] | None = None,
    ) -> Result:
        """The whole storm.

        Args:
            name: Of the fault.
            fault: What goes wrong, while the load is sent.
            create: Makes the topics; by default all of them.
        """
        started = time.monotonic()
        await (create(self) if create else self.create_topics())
        await self.triton.start()
        helpers = [asyncio.create_task(self._watch())]
        hang = 0
        problem = ""
        try:
            for _ in range(self.wanted):
                await self.start_worker()
            self._loading = asyncio.create_task(self.load.run())
            helpers.append(asyncio.create_task(self._supervise()))
            try:
                await self.until_working(self.workers[0])
                await fault(self)
                await self._loading
                await self._until_all()
            except (TimeoutError, AssertionError) as exc:
                # Either no progress, or the fault itself did not happen: both are no success.
                hang, problem = 1, f"{type(exc).__name__}: {exc}"
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            if self._loading is not None:
                self._loading.cancel()
                await asyncio.gather(self._loading, return_exceptions=True)
            await self._stop_workers()
            await self.triton.stop()
        result = self._result(name, await self._judge())
        result.hang = hang
        result.committed_past += self.passed
        result.seconds = round(time.monotonic() - started, 1)
        if problem:
            result.examples.append(problem)
        return result

    async def _until_all(self) -> None:
        """Wait until the committed offsets stand at the source's end."""
        source = await read_source(self.settings, self.options.partitions)
        last: dict[int, int] = {}
        for entry in source:
            last[entry.place[0]] = max(last.get(entry.place[0], 0), entry.place[1] + 1)
        end = time.monotonic() + PATIENCE_S
        while True:
            committed = await read_committed(self.settings)
            if all(committed.get(number, 0) >= offset for number, offset in last.items()):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"committed {committed}, the source ends at {last}")
            await asyncio.sleep(_POLL_S)

    async def _stop_workers(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        await asyncio.gather(*(worker.process.stop(15.0) for worker in self.workers))

    async def _judge(self) -> Findings:
        source = self.gone + await read_source(self.settings, self.options.partitions)
        committed = await read_committed(self.settings)
        verdicts, letters = await self._outcomes()
        found = check(source, verdicts, letters, committed)
        if self._judged:
            bad = {entry.place for entry in source if entry.expect != "verdict"}
            missed = [o for o in verdicts if o.place not in bad and b'"judged"' not in o.value]
            found.lost += len(missed)
            for outcome in missed:
                found.say(f"unjudgeable: {outcome.place}: {outcome.value[:400]!r}")
        return found

    def _result(self, name: str, found: Findings) -> Result:
        options = self.options
        return Result(
            fault=name,
            seed=options.seed,
            records=options.records,
            publisher=options.publisher,
            partitions=options.partitions,
            lost=found.lost,
            repeated=found.repeated,
            order_breaks=found.order_breaks,
            committed_past=found.committed_past,
            altered=found.altered,
            dead_letters=found.dead_letters,
            dead_letters_expected=found.dead_letters_expected,
            recovery_s=self._recovery_s(),
            held_back_s=round(self.held_back_s, 2),
            exits=dict(sorted(self.exits.items())),
            examples=found.examples,
        )

    def _recovery_s(self) -> float | None:
        """The longest time from a fault's end to the next commit; None where none was due."""
        waits = []
        for over in self.faults_over:
            before = max((done for at, done in self.progress if at <= over), default=0)
            after = [at for at, done in self.progress if at > over and done > before]
            if after:
                waits.append(after[0] - over)
        return round(max(waits), 2) if waits else None
